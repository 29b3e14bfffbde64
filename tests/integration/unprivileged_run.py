"""A sandboxer without any privilege, driven by the conformance suite's client: ``unprivileged_run.py DIRECTORY``."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import conformance
from conformance import Client, alive, wait

INSIDE = """ls -d /proc/[0-9]* | wc -l; hostname; grep CapBnd /proc/self/status | cut -f2
ls /sys/class/net >/dev/null; grep -c : /proc/net/dev; mount -t tmpfs none /mnt 2>/dev/null || echo refused"""


def launch(directory: Path) -> Client:
    command = [sys.executable, "-S", "-s", "-m", "agents.sandboxer", "--detach", "--dir", str(directory)]
    with (directory / "log").open("ab") as log:
        subprocess.run([*command, "--node", "np", "--cluster", "rig"], stdout=log, stderr=log, timeout=30, check=True)
    return Client(directory)


def main(directory: Path) -> None:
    roomy = 1 << 30
    client = launch(directory)
    client.start("d/code.0", "/bin/sh", "-c", "exit 4", memory_bytes=roomy)
    inside = client.start("d/inside.0", "/bin/sh", "-c", INSIDE, memory_bytes=roomy, network="none")
    client.exit_of("d/inside.0")
    bridge = client.start("d/bridge.0", "sleep", "9", network="bridge")["exit"]["detail"]
    client.start("d/hog.0", *conformance.PYTHON, conformance.HOG, memory_bytes=128 << 20)
    tree = client.start("d/tree.0", "/bin/sh", "-c", "sleep 100 & sleep 100 & sleep 100", memory_bytes=roomy)
    wait(lambda: client.ask("usage")["workloads"]["d/tree.0"][2] == 4, "all of the tree runs")
    client.ask("stop", allocation="d/tree.0", epoch=1, grace_ms=0)
    exits = {name: client.exit_of(name) for name in ("d/code.0", "d/hog.0", "d/tree.0")}
    deadline_ns = time.clock_gettime_ns(time.CLOCK_BOOTTIME) + 60_000_000_000
    assert client.ask("renew", deadline_ns=deadline_ns, registration=0)["ok"]
    strict = client.start("d/strict.0", "sleep", "100", on_disconnect="stop", memory_bytes=roomy)
    keep = client.start("d/keep.0", "sleep", "100", memory_bytes=roomy)
    hello = client.hello
    pidfd = os.pidfd_open(hello["pid"])
    signal.pidfd_send_signal(pidfd, signal.SIGKILL)
    wait(lambda: not alive(strict["pid"]) and not alive(hello["pid"]), "sandboxer and stop workload died")
    client = launch(directory)
    adopted = client.record("d/keep.0")
    client.ask("shutdown", stop_workloads=True)
    left = [pid for pid in (tree["pid"], keep["pid"]) if alive(pid)]
    print(
        json.dumps(
            {
                "hello": hello,
                "exits": exits,
                "inside": Path(inside["output"], "stdout").read_text(),
                "bridge": bridge,
                "adopted": adopted,
                "left": left,
            }
        )
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]))
