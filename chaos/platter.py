"""What outlives a crash: the contents and names of a forgetting disk, and what a power loss keeps.

Owns: the difference between visible and durable, torn and reordered writes, the faults that wait.
Must not know: handles, locks' callers, or what the files mean (`chaos.disk` is the front).
"""

from __future__ import annotations

import errno
import threading
from collections.abc import Callable
from random import Random
from typing import Literal

SECTOR_BYTES = 512
"""A torn write keeps whole sectors, except when the dice say that a sector tore too."""

Operation = Literal["open", "write", "read", "sync", "rename", "remove", "sync_directory"]


class PowerLost(OSError):
    """The power went at this operation or before it; this handle of the disk is dead."""

    def __init__(self) -> None:
        super().__init__(errno.EIO, "the power went")


class Content:
    """One file's bytes: as visible now, as durable, and the writes between the two."""

    __slots__ = ("durable", "pending", "visible")

    def __init__(self) -> None:
        self.visible = bytearray()
        self.durable = bytearray()
        self.pending: list[tuple[int, bytes]] = []


def place(into: bytearray, offset: int, data: bytes) -> None:
    """Write `data` at `offset`, zeros in between."""
    if offset > len(into):
        into.extend(bytes(offset - len(into)))
    into[offset : offset + len(data)] = data


class Fault:
    """Fail `count` operations of one kind after letting `after` of them pass."""

    __slots__ = ("after", "count", "number", "operation")

    def __init__(self, operation: Operation, number: int, after: int, count: int) -> None:
        self.operation = operation
        self.number = number
        self.after = after
        self.count = count


class Platter:
    """What outlives a crash, shared by all handles of one disk."""

    def __init__(self, dice: Random, inode: str) -> None:
        self.dice = dice
        self.inode = inode
        self.names: dict[str, Content] = {}
        self.durable_names: dict[str, Content] = {}
        self.directory_pending: list[Callable[[dict[str, Content]], None]] = []
        self.generation = 0
        self.locked = False
        self.operations = 0
        self.crash_at: int | None = None
        self.on_crash: Callable[[], None] | None = None
        self.faults: list[Fault] = []
        self.counts: dict[str, int] = {}
        self.mutex = threading.RLock()

    def change_names(self, change: Callable[[dict[str, Content]], None]) -> None:
        """Apply a directory operation now; it is durable after `sync_directory`."""
        change(self.names)
        self.directory_pending.append(change)

    def lose_power(self, *, torn: bool) -> None:
        """Forget what is unsynced, but with `torn` keep random parts of it."""
        if torn:
            for content in self.durable_names.values():
                self._keep_some(content)
            for change in self.directory_pending[: self.dice.randrange(len(self.directory_pending) + 1)]:
                change(self.durable_names)
        self.directory_pending.clear()
        self.names = dict(self.durable_names)
        for content in self.names.values():
            content.visible = bytearray(content.durable)
            content.pending.clear()
        self.end_generation()

    def _keep_some(self, content: Content) -> None:
        """Let a random subset of the pending writes reach the platter, in random order, some torn."""
        kept = [write for write in content.pending if self.dice.randrange(2)]
        self.dice.shuffle(kept)
        for offset, data in kept:
            if self.dice.randrange(2):
                unit = SECTOR_BYTES if self.dice.randrange(2) else 1
                data = data[: self.dice.randrange(len(data) // unit + 1) * unit]
            place(content.durable, offset, data)

    def end_generation(self) -> None:
        """Invalidate all handles and the lock."""
        self.generation += 1
        self.locked = False
        self.crash_at = None


def added(name: str, content: Content) -> Callable[[dict[str, Content]], None]:
    """The directory operation that creates `name`."""

    def change(names: dict[str, Content]) -> None:
        names[name] = content

    return change


def renamed(old: str, new: str, content: Content) -> Callable[[dict[str, Content]], None]:
    """The directory operation that replaces `new` by `old`."""

    def change(names: dict[str, Content]) -> None:
        names.pop(old, None)
        names[new] = content

    return change


def removed(name: str) -> Callable[[dict[str, Content]], None]:
    """The directory operation that removes `name`."""

    def change(names: dict[str, Content]) -> None:
        names.pop(name, None)

    return change
