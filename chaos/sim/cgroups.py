"""The cgroup tree of a simulated machine, as a sandboxer's backend.

Owns: groups, their extended attributes, counters.  Must not know: what identities mean, or who decides.

It is the machine's: it outlives every sandboxer, and nothing outlives a boot.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from agents.sandboxer.cgroups.base import Backend, Limits

if TYPE_CHECKING:
    from chaos.sim.kernel import Kernel
    from chaos.sim.syscalls import Syscalls

HOME: Final = "/sim"
CPU_SHARE: Final = 10
"""A workload uses one part in so many of its time."""


@dataclass(slots=True)
class Group:
    """One directory of the tree."""

    limits: Limits
    identity: bytes
    made_ns: int
    oom_kills: int = 0
    watchers: list[Callable[[], None]] = field(default_factory=list)
    """Called when memory runs out."""


class Groups(Backend):
    """All groups of one boot; see `Backend` for what each method promises."""

    kind = "cgroup-sim"

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel
        self._groups: dict[str, Group] = {}
        self._lease: bytes | None = None
        self.holder: Syscalls | None = None
        """The process that supervises by them."""

    def group(self, name: str) -> Group | None:
        """The group of that name."""
        return self._groups.get(name)

    def count_oom(self, name: str) -> None:
        """The kernel killed somebody in it for memory."""
        group = self._groups.get(name)
        if group is not None:
            group.oom_kills += 1
            for watcher in list(group.watchers):
                watcher()

    def prepare(self) -> None:
        """See `Backend.prepare`."""

    def create(self, name: str, limits: Limits, identity: bytes) -> None:
        """See `Backend.create`."""
        if name in self._groups:
            raise FileExistsError(17, "the group exists", name)
        self._groups[name] = Group(limits, identity, self._kernel.timers.now_ns())

    def join_fds(self, name: str) -> list[int]:
        """See `Backend.join_fds`: the spawner reads the group's name from the plan."""
        return []

    def identity(self, name: str) -> bytes | None:
        """See `Backend.identity`."""
        group = self._groups.get(name)
        return None if group is None else group.identity

    def write_identity(self, name: str, identity: bytes) -> None:
        """See `Backend.write_identity`."""
        self._groups[name].identity = identity

    def names(self) -> list[str]:
        """See `Backend.names`."""
        return sorted(self._groups)

    def members(self, name: str) -> list[int]:
        """See `Backend.members`."""
        if self.holder is not None:
            self.holder.hear()
        return [process.pid for process in self._kernel.members(name)] if name in self._groups else []

    def kill(self, name: str) -> None:
        """See `Backend.kill`."""
        if self.holder is not None:
            self.holder.tell()
        self._kernel.kill_group(name)

    def usage(self, name: str) -> tuple[int, int, int]:
        """See `Backend.usage`."""
        group = self._groups.get(name)
        if group is None:
            return 0, 0, 0
        lived_ns = self._kernel.timers.now_ns() - group.made_ns
        return lived_ns // CPU_SHARE, group.limits.memory_bytes // 2, len(self.members(name))

    def oom_kills(self, name: str) -> int:
        """See `Backend.oom_kills`."""
        group = self._groups.get(name)
        return 0 if group is None else group.oom_kills

    def watch_oom(self, name: str) -> int:
        """See `Backend.watch_oom`."""
        return -1 if self.holder is None else self.holder.watch_oom(name)

    def remove(self, name: str) -> bool:
        """See `Backend.remove`."""
        if self.members(name):
            return False
        self._groups.pop(name, None)
        return True

    def remove_tree(self) -> bool:
        """See `Backend.remove_tree`."""
        if self._groups:
            return False
        self._lease = None
        return True

    def path(self, name: str) -> str:
        """See `Backend.path`."""
        return f"{HOME}/{name}"

    def home(self) -> str:
        """See `Backend.home`."""
        return HOME

    def keep_lease(self, lease: bytes) -> None:
        """See `Backend.keep_lease`."""
        self._lease = lease

    def kept_lease(self) -> bytes | None:
        """See `Backend.kept_lease`."""
        return self._lease
