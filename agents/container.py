"""``python -m agents.container COMMAND…``: make a container fit for an agent, then become COMMAND.

Owns: which of the container's own cgroups an agent may work in, making them writable, and what covers /proc.
Must not know: Docker, workloads, or the agent's settings but for where its cgroups go.

A container engine shows a container its own cgroups, read-only.  Two arrangements occur:

- v1: one mount a controller.  They are remounted read-write (this needs CAP_SYS_ADMIN); the agent's tree is
  made beside the container's processes, below the container's own cgroup.
- v2: one mount.  A group that hands controllers to its children may hold no processes itself ("no internal
  processes", cgroup-v2.rst), so all processes of the container move to a leaf first.

The engine removes a container's cgroups with all that is below them: whatever becomes of the agent, nothing is left.
Where the engine shows the whole hierarchy instead, the agent is told to work below the container's own group.

An engine also covers parts of /proc.  The kernel lets a user namespace mount a /proc of its own only where one is
fully visible (user_namespaces(7)), so the covers are taken off: workloads get their own /proc in any case.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NoReturn

MNT_DETACH: Final = 0x2
MS_RDONLY_CLEARED: Final = 0x1000 | 0x20  # MS_BIND | MS_REMOUNT, without MS_RDONLY
MS_NOSUID_NODEV_NOEXEC: Final = 0x2 | 0x4 | 0x8
LEAF: Final = "container"
"""The v2 group that the container's own processes move to."""
ROOT_VARIABLE: Final = "SKERRY_AGENT_SANDBOX_ROOT"
V1_NEEDED: Final = frozenset(("pids", "memory", "cpu", "cpuacct", "freezer"))
MOVES_MAX: Final = 8
"""Rounds of moving processes: each may have forked while it was moved."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What to do before the agent starts.

    Attributes:
        remount: mount points to make writable.
        emptied: the v2 group to move processes out of; "" = none.
        root: the container's own group below the mount points; "" = the mount points themselves.
        covers: mount points on parts of /proc, innermost first.
    """

    remount: tuple[str, ...]
    emptied: str
    root: str
    covers: tuple[str, ...] = ()


def plan(mountinfo: str, membership: str) -> Plan:
    """Decide from the texts of /proc/self/mountinfo (proc(5)) and /proc/self/cgroup (cgroups(7)).

    A process in no container finds itself in the root group of what it sees; then only what is read-only is
    made writable, and nothing is moved: the real root may hold processes and children.
    """
    paths = _membership(membership)
    remount: list[str] = []
    emptied, roots = "", []
    mounts = _mounts(mountinfo)
    covers = [point for point, _, _, kind, _ in mounts if point.startswith("/proc/") and kind in ("proc", "tmpfs")]
    for point, shown, writable, kind, options in mounts:
        if kind not in ("cgroup", "cgroup2"):
            continue
        controllers = V1_NEEDED.intersection(options) if kind == "cgroup" else {""}
        if not controllers or point in remount:
            continue
        if not writable:
            remount.append(point)
        path = paths.get(min(controllers))
        if path is None:
            continue
        below = _below(path, shown)
        roots.append(below)
        if kind == "cgroup2" and _is_v2_alone(paths):
            emptied = os.path.normpath(os.path.join(point, below))
    distinct = sorted(set(roots))
    root = distinct[0] if len(distinct) == 1 else ""
    return Plan(tuple(remount), emptied, root, tuple(reversed(covers)))


def _membership(text: str) -> dict[str, str]:
    """Controller → path of the own group; "" is v2."""
    paths: dict[str, str] = {}
    for line in text.splitlines():
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        for controller in controllers.split(","):
            paths[controller] = path
    return paths


def _is_v2_alone(paths: Mapping[str, str]) -> bool:
    return not V1_NEEDED.intersection(paths)


def _mounts(text: str) -> list[tuple[str, str, bool, str, list[str]]]:
    """(mount point, root shown there, writable, kind, super options) of every mount."""
    found = []
    for line in text.splitlines():
        before, _, after = line.partition(" - ")
        fields, kinds = before.split(), after.split()
        if len(fields) >= 6 and len(kinds) >= 3:
            found.append((fields[4], fields[3], "rw" in fields[5].split(","), kinds[0], kinds[2].split(",")))
    return found


def _below(path: str, shown: str) -> str:
    """The own group relative to what the mount shows; "" when the mount shows just it, or is foreign."""
    relative = os.path.relpath(path, shown)
    return "" if relative == "." or relative.startswith("..") else relative


def carry_out(chosen: Plan) -> None:
    """Remount, uncover and move; raises OSError."""
    libc = ctypes.CDLL(None, use_errno=True)
    flags = ctypes.c_ulong(MS_RDONLY_CLEARED | MS_NOSUID_NODEV_NOEXEC)
    for point in chosen.remount:
        _check(libc.mount(b"none", os.fsencode(point), None, flags, None), f"cannot make {point} writable")
    if chosen.emptied:
        _empty(chosen.emptied)
    for point in chosen.covers:
        _check(libc.umount2(os.fsencode(point), MNT_DETACH), f"cannot uncover {point}")


def _check(result: int, what: str) -> None:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


def _empty(group: str) -> None:
    """Move every process of a v2 group to its leaf, so that it may have children with controllers.

    Raises:
        OSError: it cannot be written, or processes kept coming.
    """
    leaf = os.path.join(group, LEAF)
    with contextlib.suppress(FileExistsError):
        os.mkdir(leaf)
    for _ in range(MOVES_MAX):
        with open(os.path.join(group, "cgroup.procs"), encoding="ascii") as file:
            waiting = file.read().split()
        if not waiting:
            return
        for pid in waiting:
            with contextlib.suppress(ProcessLookupError), open(os.path.join(leaf, "cgroup.procs"), "w") as file:
                file.write(pid)
    raise OSError(16, f"processes kept starting in {group}")


def main(command: Sequence[str]) -> NoReturn:
    """Prepare, then replace this process by `command`.

    What cannot be prepared is said and left: the agent starts all the same, and shows the isolation it has.
    """
    if not command:
        sys.stderr.write("usage: python -m agents.container COMMAND [ARGUMENT…]\n")
        sys.exit(2)
    environment = dict(os.environ)
    try:
        with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
            mountinfo = file.read()
        with open("/proc/self/cgroup", encoding="utf-8") as file:
            chosen = plan(mountinfo, file.read())
        if chosen.root:
            environment.setdefault(ROOT_VARIABLE, chosen.root)
        carry_out(chosen)
    except OSError as error:
        sys.stderr.write(f"this container is not fit for all isolation: {error}\n")
    os.execvpe(command[0], list(command), environment)  # noqa: S606  our own command line


if __name__ == "__main__":
    main(sys.argv[1:])
