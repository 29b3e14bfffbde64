"""What a workload sees: its own processes, hostname, IPC, mounts and, if it asks, network.

Owns: entering the namespaces, the mounts inside, the user namespace of an ordinary user's workloads, and trying
whether all of it works here.  Must not know: networks beyond an empty one, cgroups, what runs.

Root needs no user namespace to make the others, and its workloads get none: they work on the host's own files, which
a mapped root could not read.  An ordinary user gets one, in which only that user exists.
"""

from __future__ import annotations

import contextlib
import os
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
    _write("/proc/self/setgroups", "deny")
    _write("/proc/self/uid_map", f"{user} {user} 1")
    _write("/proc/self/gid_map", f"{group} {group} 1")


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
            _write("/proc/sys/net/ipv4/ip_unprivileged_port_start", "0")
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


def work(*, user_namespace: bool) -> str:
    """Try them all in children of this process; "" or why they cannot be had."""
    return linux.tried(lambda: _try(user_namespace))


def _try(user_namespace: bool) -> None:
    if user_namespace:
        enter_user(os.geteuid(), os.getegid())
    linux.unshare(linux.CLONE_NEWPID)
    failed = linux.tried(lambda: enter("probe", network=True))
    if failed:
        raise OSError(failed)


def _write(path: str, text: str) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, text.encode())
    finally:
        os.close(fd)
