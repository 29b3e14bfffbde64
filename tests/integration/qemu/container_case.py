"""In the virtual machine: a container on cgroup v2, made as an engine makes it, and the agent's preparation in it.

Prints ``CONTAINER {json}``.  Standard library alone.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import subprocess
import sys
from pathlib import Path

from agents.sandboxer.cgroups import base, detect
from agents.sandboxer.cgroups.base import CgroupError, Limits

CGROUPS = Path("/sys/fs/cgroup")
NEW_CGROUP, NEW_MOUNT = 0x0200_0000, 0x0002_0000
READ_ONLY, REMOUNT, BIND, RECURSIVE, PRIVATE = 0x1, 0x20, 0x1000, 0x4000, 0x4_0000
DETACH = 2
TREE = "skerry-case-a1"

libc = ctypes.CDLL(None, use_errno=True)


def call(result: int, what: str) -> None:
    assert result >= 0, f"{what}: {os.strerror(ctypes.get_errno())}"


def attempt() -> str:
    """What kind of cgroups an agent gets here, or why none."""
    try:
        backend, _ = detect.choose("v2", TREE, "/tmp")
    except CgroupError as error:
        return f"refused: {error}"
    backend.create("w@1", Limits(250, 48 << 20, 9), b"{}")
    group = Path(backend.path("w@1"))
    limits = " ".join((group / name).read_text().strip() for name in ("cpu.max", "memory.max", "pids.max"))
    own = Path("/proc/self/cgroup").read_text().strip()
    assert backend.remove("w@1")
    assert backend.remove_tree()
    return f"{own} {limits}"


def outside() -> int:
    """Make the container: a group with the controllers, namespaces, a read-only mount; then look from within."""
    group = CGROUPS / "engine" / "c1"
    group.mkdir(parents=True)
    for parent in (CGROUPS, CGROUPS / "engine"):
        (parent / "cgroup.subtree_control").write_text("+cpu +memory +pids")
    if (child := os.fork()) == 0:
        (group / "cgroup.procs").write_text("0")
        call(libc.unshare(NEW_CGROUP | NEW_MOUNT), "unshare")
        call(libc.mount(b"none", b"/", None, RECURSIVE | PRIVATE, None), "private mounts")
        call(libc.umount2(b"/sys/fs/cgroup", DETACH), "umount")
        call(libc.mount(b"none", b"/sys/fs/cgroup", b"cgroup2", 0, None), "mount")
        call(libc.mount(b"none", b"/sys/fs/cgroup", None, BIND | REMOUNT | READ_ONLY, None), "read-only")
        sleeper = subprocess.Popen(["sleep", "100"])
        before = attempt()
        command = [sys.executable, "-S", "-s", "-m", "agents.container", sys.executable, "-S", "-s", __file__, "inside"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        moved = Path(f"/proc/{sleeper.pid}/cgroup").read_text().strip()
        sleeper.kill()
        sleeper.wait()
        answer = {"before": before, "after": done.stdout.strip(), "said": done.stderr, "sleeper": moved}
        print("CONTAINER", json.dumps(answer), flush=True)
        os._exit(0)
    os.waitpid(child, 0)
    with contextlib.suppress(OSError):
        base.remove_directories(str(CGROUPS / "engine"))
    return 0


if __name__ == "__main__":
    if sys.argv[1:] == ["inside"]:
        print(attempt())
    else:
        sys.exit(outside())
