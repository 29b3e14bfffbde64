"""What a workload sees: its own processes, hostname, IPC, mounts and, if it asks, network.

Owns: entering the namespaces, the mounts inside, the user namespace of an ordinary user's workloads, and trying
whether all of it works here.  Must not know: networks beyond an empty one, cgroups, what runs.

Root needs no user namespace to make the others; its workloads get one afterwards (`user_namespace`).  An ordinary user
gets one first, in which only that user exists.
"""

from __future__ import annotations

import contextlib
import os
import stat
from typing import Final

from agents.sandboxer import linux

_KERNEL_FILES: Final = ("sys", "sysrq-trigger", "irq", "bus", "fs")
"""Below /proc: root without any capability may still write them, since it owns them."""
HOSTNAME_BYTES_MAX: Final = 63
_PRIVATE_FLAGS: Final = linux.MS_NOSUID | linux.MS_NODEV | linux.MS_NOEXEC
SHARED_MEMORY: Final = "/dev/shm"  # noqa: S108 - a mount point
MESSAGE_QUEUES: Final = "/dev/mqueue"


def hostname_of(allocation: str) -> str:
    """The hostname of a workload: ``ticker-0`` for ``default/ticker.0``."""
    return allocation.rpartition("/")[2].replace(".", "-")[-HOSTNAME_BYTES_MAX:]


def enter_user(user: int, group: int) -> None:
    """Become all-powerful over nothing: a user namespace with `user` and `group` alone.  Raises OSError."""
    linux.unshare(linux.CLONE_NEWUSER)
    write("/proc/self/setgroups", "deny")
    write("/proc/self/uid_map", f"{user} {user} 1")
    write("/proc/self/gid_map", f"{group} {group} 1")


def enter(hostname: str, *, network: bool) -> None:
    """Leave the host's mounts, hostname, IPC and, with `network`, its network, which starts empty.

    Called in a process of the PID namespace whose /proc is to be shown.  Raises OSError.
    """
    own_network = linux.CLONE_NEWNET if network else 0
    linux.unshare(linux.CLONE_NEWNS | linux.CLONE_NEWUTS | linux.CLONE_NEWIPC | own_network)
    linux.sethostname(hostname)
    linux.mount("none", "/", None, linux.MS_REC | linux.MS_PRIVATE)
    linux.mount("proc", "/proc", "proc", _PRIVATE_FLAGS)
    if network:  # without capabilities it could not listen on 80
        with contextlib.suppress(OSError):
            write("/proc/sys/net/ipv4/ip_unprivileged_port_start", "0")
    for name in _KERNEL_FILES:
        path = f"/proc/{name}"
        if os.path.exists(path):
            linux.mount(path, path, None, linux.MS_BIND | linux.MS_REC)
            linux.mount_read_only(path)
    if os.path.ismount("/sys"):
        linux.mount_read_only("/sys")  # its own limits among them
    if os.path.isdir(SHARED_MEMORY):
        linux.mount("shm", SHARED_MEMORY, "tmpfs", _PRIVATE_FLAGS, "mode=1777")
    if os.path.isdir(MESSAGE_QUEUES):
        linux.mount("mqueue", MESSAGE_QUEUES, "mqueue", _PRIVATE_FLAGS)


def cover(directory: str, own: str) -> str:
    """Hide `directory` but for `own`, a directory below it, which keeps its path.  Raises OSError.

    Called after `enter`.  The way to `own` is made open to everybody: where a directory around `directory` is
    not, that one is covered instead, of which a user without privileges could not have seen anything.

    Returns:
        What was covered.
    """
    covered = closed_to_others(directory)
    kept = os.open(own, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    linux.mount("skerry", covered, "tmpfs", _PRIVATE_FLAGS, "mode=0755,size=256k")
    os.makedirs(own)
    linux.mount(f"/proc/self/fd/{kept}", own, None, linux.MS_BIND)
    os.close(kept)
    return covered


def closed_to_others(directory: str) -> str:
    """The first directory on the way to `directory` that not everybody may search, or else itself."""
    way = [directory]
    while os.path.dirname(way[-1]) not in (way[-1], "/"):
        way.append(os.path.dirname(way[-1]))
    return next((path for path in reversed(way) if not os.stat(path).st_mode & stat.S_IXOTH), directory)


def work(*, user_namespace: bool) -> str:
    """Try them all in children of this process; "" or why they cannot be had."""
    return linux.tried(lambda: _try(user_namespace))


def _try(user_namespace: bool) -> None:
    if user_namespace:
        enter_user(os.geteuid(), os.getegid())
    before = os.open("/proc/self/ns/pid", os.O_RDONLY | os.O_CLOEXEC)
    linux.unshare(linux.CLONE_NEWPID)
    failed = linux.tried(lambda: enter("probe", network=True))
    if failed:
        raise OSError(failed)
    if not user_namespace:  # there a helper makes them, and need not come back
        linux.setns(before, linux.CLONE_NEWPID)


def write(path: str, text: str) -> None:
    """Write a file of the kernel's at once; raises OSError."""
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, text.encode())
    finally:
        os.close(fd)
