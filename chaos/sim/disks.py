"""The disks of one machine: directories that outlive processes, and what goes wrong with them.

Owns: who has which directory open, and faults of all of them at once.
Must not know: what the files mean, how long anything takes (`chaos.sim.threads.Storage`).
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from random import Random

from chaos.disk import ForgettingDisk
from chaos.platter import Operation
from chaos.sim.lives import Life


class Disks:
    """The directories of one machine, by name.

    Args:
        stream: gives a directory its own stream of chance.
        torn: a power loss keeps a random part of unsynced writes instead of none.
    """

    def __init__(self, stream: Callable[[str], Random], *, torn: bool = False) -> None:
        self._stream = stream
        self._torn = torn
        self._capacity_bytes: int | None = None
        self._handles: dict[str, ForgettingDisk] = {}
        self._open: dict[Life, dict[str, ForgettingDisk]] = {}

    def open(self, directory: str, life: Life) -> ForgettingDisk:
        """A process's handle of a directory, made if it is missing."""
        mine = self._open.setdefault(life, {})
        handle = mine.get(directory)
        if handle is None:
            last = self._handles.get(directory)
            handle = ForgettingDisk(self._stream(directory), torn=self._torn) if last is None else last.reopen()
            handle.capacity_bytes = self._capacity_bytes
            mine[directory] = self._handles[directory] = handle
        return handle

    def handle(self, directory: str) -> ForgettingDisk:
        """The newest handle of a directory, for faults and for looking; KeyError if there is no such directory."""
        return self._handles[directory]

    def names(self) -> list[str]:
        """All directories."""
        return sorted(self._handles)

    def release(self, life: Life) -> None:
        """The process is dead: its handles are, too, and nothing that is visible is lost."""
        for handle in self._open.pop(life, {}).values():
            handle.abandon()

    # -- what goes wrong ------------------------------------------------------------------------

    def lose_power(self) -> None:
        """What was not synced is gone."""
        self._open.clear()
        for handle in self._handles.values():
            handle.crash()

    def lose_power_at(self, directory: str, operations: int, then: Callable[[], None]) -> None:
        """Lose power in the middle of the n-th operation from now; `then` is called at that moment."""
        handle = self._handles[directory]
        handle.crash_at(operations)
        handle.on_crash(then)

    def fill(self) -> None:
        """No file can grow any more (ENOSPC)."""
        self._limit(0)

    def free(self) -> None:
        """There is room again."""
        self._limit(None)

    def fail(self, directory: str, operation: Operation, number: int = errno.EIO, *, count: int = 1) -> None:
        """Let the next operations of a kind fail; see `chaos.disk`."""
        self._handles[directory].fail(operation, number, count=count)

    def wipe(self, directory: str) -> None:
        """Everything in a directory is gone, names and bytes; the next process finds it new."""
        handle = self._handles.pop(directory, None)
        if handle is not None:
            handle.kill()
            for mine in self._open.values():
                mine.pop(directory, None)

    def rot(self, directory: str, dice: Random, *, suffix: str = "") -> str:
        """Flip one bit of a stored byte of a file whose name ends so; returns which, "" if there is nothing."""
        handle = self._handles[directory]
        sizes = {name: handle.size_of(name) for name in handle.stored() if name.endswith(suffix)}
        names = [name for name, size in sizes.items() if size]
        if not names:
            return ""
        name = dice.choice(names)
        offset, mask = dice.randrange(sizes[name]), 1 << dice.randrange(8)
        handle.rot(name, offset, mask)
        return f"{name}@{offset}^{mask:#04x}"

    def _limit(self, capacity_bytes: int | None) -> None:
        self._capacity_bytes = capacity_bytes
        for mine in self._open.values():
            for handle in mine.values():
                handle.capacity_bytes = capacity_bytes
