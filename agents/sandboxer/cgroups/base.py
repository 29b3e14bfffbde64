"""What every cgroup backend can do.

Owns: the interface, and the file handling that backends share.
Must not know: workloads' lives, namespaces, the journal.

A node's tree is one directory ``<root>/skerry-<cluster>-<node>`` in each hierarchy, an attempt one
directory ``<name>`` in it.  A backend touches nothing outside that tree, but for enabling
controllers for it on v2.
"""

from __future__ import annotations

import contextlib
import errno
import os
import signal
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

IDENTITY_ATTRIBUTES: Final = ("trusted.skerry", "user.skerry")
LEASE_ATTRIBUTES: Final = ("trusted.skerry-lease", "user.skerry-lease")
PERIOD_US: Final = 100_000
QUOTA_US_MIN: Final = 1_000
"""The kernel's smallest quota: with the period above, 10 millicores."""


class CgroupError(Exception):
    """A hierarchy cannot be used, and why."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What a cgroup enforces; 0 = no limit."""

    cpu_millicores: int
    memory_bytes: int
    pids: int

    @property
    def quota_us(self) -> int:
        """CPU time per `PERIOD_US`."""
        return max(QUOTA_US_MIN, self.cpu_millicores * PERIOD_US // 1000)


class Backend(ABC):
    """The cgroups of one node.  Names are single path components."""

    kind: str
    confines = True
    """Whether processes cannot leave their group, nor use more memory than it allows."""

    @abstractmethod
    def prepare(self) -> None:
        """Make the node's tree, and try a group with limits in it.

        Raises:
            CgroupError: it cannot be made or limits nothing.
        """

    @abstractmethod
    def create(self, name: str, limits: Limits, identity: bytes) -> None:
        """Make a group with its limits and identity; OSError, and nothing left, if it cannot be."""

    @abstractmethod
    def join_fds(self, name: str) -> list[int]:
        """Descriptors a process writes "0" to, to join; the caller closes them."""

    @abstractmethod
    def identity(self, name: str) -> bytes | None:
        """The identity written last; None if there is none."""

    @abstractmethod
    def write_identity(self, name: str, identity: bytes) -> None:
        """Replace the identity."""

    @abstractmethod
    def names(self) -> list[str]:
        """All groups, sorted."""

    @abstractmethod
    def members(self, name: str) -> list[int]:
        """Processes in the group and below; [] when it is gone."""

    def contains(self, name: str, pid: int) -> bool:
        """Whether `pid` is in the group or below."""
        return pid in self.members(name)

    @abstractmethod
    def kill(self, name: str) -> None:
        """SIGKILL every process in the group and below, also while it forks."""

    @abstractmethod
    def usage(self, name: str) -> tuple[int, int, int]:
        """(cpu_ns since its creation, memory_bytes, pids)"""

    @abstractmethod
    def oom_kills(self, name: str) -> int:
        """Processes the kernel killed in it for memory."""

    def watch_oom(self, name: str) -> int:
        """A descriptor that gets readable when memory runs out; -1 where the kernel ends the group itself."""
        return -1

    @abstractmethod
    def remove(self, name: str) -> bool:
        """Remove the group; False while a process is left in it.  Unknown is removed."""

    @abstractmethod
    def remove_tree(self) -> bool:
        """Remove the node's tree; False while a group is left in it."""

    @abstractmethod
    def path(self, name: str) -> str:
        """Where a person looks first."""

    @abstractmethod
    def home(self) -> str:
        """The node's directory, which attributes of the node are written on."""

    def keep_lease(self, lease: bytes) -> None:
        """Write the node's lease on its directory; OSError if it cannot be."""
        set_attribute(self.home(), LEASE_ATTRIBUTES, lease)

    def kept_lease(self) -> bytes | None:
        """What `keep_lease` wrote last; None if there is none."""
        return get_attribute(self.home(), LEASE_ATTRIBUTES)


def write(path: str, value: str) -> None:
    """Write a control file; raises OSError."""
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, value.encode())
    finally:
        os.close(fd)


def read(path: str) -> str:
    """Read a control file, stripped; raises OSError."""
    with open(path, encoding="ascii") as file:
        return file.read().strip()


def read_number(path: str, key: str | None = None) -> int:
    """A number of a control file, or of its line ``key NUMBER``; 0 when it cannot be read."""
    try:
        text = read(path)
    except OSError:
        return 0
    if key is None:
        return int(text) if text.isdigit() else 0
    for line in text.splitlines():
        name, _, value = line.partition(" ")
        if name == key:
            return int(value)
    return 0


def make_tree(path: str) -> None:
    """Make a node's tree unless it exists; its parent must exist, since what we make we remove again."""
    with contextlib.suppress(FileExistsError):
        os.mkdir(path)


def set_identity(path: str, identity: bytes) -> None:
    """Write the identity as an extended attribute of a cgroup directory."""
    set_attribute(path, IDENTITY_ATTRIBUTES, identity)


def set_attribute(path: str, names: tuple[str, ...], value: bytes) -> None:
    """Write an extended attribute under the first of these names that may be used."""
    for attribute in names:
        try:
            os.setxattr(path, attribute, value)
        except OSError as error:
            if error.errno not in (errno.EPERM, errno.EOPNOTSUPP):
                raise
            failure = error
        else:
            return
    raise failure


def get_identity(path: str) -> bytes | None:
    """Inverse of `set_identity`."""
    return get_attribute(path, IDENTITY_ATTRIBUTES)


def get_attribute(path: str, names: tuple[str, ...]) -> bytes | None:
    """Inverse of `set_attribute`; None if there is none."""
    for attribute in names:
        with contextlib.suppress(OSError):
            return os.getxattr(path, attribute)
    return None


def walk(path: str) -> Iterator[str]:
    """A directory and all below it, deepest first: a workload may make groups in its own."""
    for directory, _, _ in os.walk(path, topdown=False):
        yield directory


def processes(path: str) -> list[int]:
    """Processes of a group and all below it."""
    found: list[int] = []
    for directory in walk(path):
        with contextlib.suppress(OSError):
            found += [int(line) for line in read(f"{directory}/cgroup.procs").split()]
    return found


def remove_directories(path: str) -> bool:
    """rmdir a group and all below it; False while one is busy."""
    gone = True
    for directory in walk(path):
        try:
            os.rmdir(directory)
        except FileNotFoundError:
            continue
        except OSError as error:
            if error.errno not in (errno.EBUSY, errno.ENOTEMPTY):
                raise
            gone = False
    return gone


def subdirectories(path: str) -> list[str]:
    """Names of the directories in `path`, sorted; [] when it is gone."""
    try:
        with os.scandir(path) as entries:
            return sorted(entry.name for entry in entries if entry.is_dir(follow_symlinks=False))
    except FileNotFoundError:
        return []


def kill_members(backend: Backend, name: str) -> int:
    """SIGKILL the present members, through pidfds opened before membership is checked again.

    Returns:
        How many were signalled.
    """
    opened: dict[int, int] = {}
    for pid in backend.members(name):
        with contextlib.suppress(OSError):
            opened[pid] = os.pidfd_open(pid)
    still = frozenset(backend.members(name))
    killed = 0
    for pid, pidfd in opened.items():
        with contextlib.suppress(ProcessLookupError):
            if pid in still:
                signal.pidfd_send_signal(pidfd, signal.SIGKILL)
                killed += 1
        os.close(pidfd)
    return killed
