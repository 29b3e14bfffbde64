"""A root that may make every namespace but a user namespace: ``forbidding_run.py DIRECTORY``.

The limit is set in a user namespace made for this, which ends with it; the machine's own stays as it is.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import traceback
from pathlib import Path
from typing import NoReturn

from conformance import Client

from agents.sandboxer import linux


def main(directory: Path) -> None:
    made, mapped = os.pipe(), os.pipe()
    child = os.fork()
    if child == 0:
        linux.unshare(linux.CLONE_NEWUSER)
        os.write(made[1], b"m")
        os.read(mapped[0], 1)
        linux.unshare(linux.CLONE_NEWPID)
        first = os.fork()
        if first == 0:
            inside(directory)
        os._exit(os.waitstatus_to_exitcode(os.waitpid(first, 0)[1]))
    os.read(made[0], 1)
    for kind in ("uid", "gid"):
        Path(f"/proc/{child}/{kind}_map").write_text("0 0 4294967295")
    os.write(mapped[1], b"m")
    sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))


def inside(directory: Path) -> NoReturn:
    """Process 1 of a PID namespace that belongs to the new user namespace, as in a container; all ends with it."""
    status = 1
    try:
        linux.unshare(linux.CLONE_NEWNS)
        linux.mount("none", "/", None, linux.MS_REC | linux.MS_PRIVATE)
        linux.mount("proc", "/proc", "proc", 0)
        Path("/proc/sys/user/max_user_namespaces").write_text("0")
        print(json.dumps(run(directory)), flush=True)
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(status)


def run(directory: Path) -> dict[str, object]:
    directory.mkdir()
    command = [sys.executable, "-S", "-s", "-m", "agents.sandboxer", "--detach", "--dir", str(directory)]
    command += ["--node", "nf", "--cluster", "rig", "--cgroups", "none"]
    with (directory / "log").open("ab") as log:
        subprocess.run(command, stdout=log, stderr=log, timeout=30, check=True)
    client = Client(directory)
    script = "id -u; echo works > here; cat here"
    record = client.start("f/w.0", "/bin/sh", "-c", script, network="none", memory_bytes=1 << 30)
    exit_ = client.exit_of("f/w.0")
    inside = Path(record["output"], "stdout").read_text()
    client.ask("shutdown", stop_workloads=True)
    return {
        "isolation": client.hello["isolation"],
        "why": client.hello["isolation_why"],
        "exit": exit_,
        "inside": inside,
    }


if __name__ == "__main__":
    main(Path(sys.argv[1]))
