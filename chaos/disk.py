"""A disk in memory that forgets everything unsynced when the power goes.

Owns: the double of `raft.protocols.Disk` for crash tests: what is visible, what is durable,
what a crash leaves, and the faults a disk shows (EIO, ENOSPC, bit rot, a sync that lies).
Must not know: what the files mean, threads' schedules, or time.  Chance is injected.

The model is the strictest reading of POSIX: written bytes are visible at once and durable
after their file's `sync`; a name is durable after `sync_directory`, whatever was synced
in the file.  After a failed sync the unsynced bytes stay visible and are never written
again, as on Linux, so a second sync that succeeds proves nothing.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from random import Random

from chaos.platter import Content, Fault, Operation, Platter, PowerLost, added, place, removed, renamed
from raft.disk import free_name
from raft.errors import StoreLocked

__all__ = ["ForgettingDisk", "ForgettingFile", "PowerLost"]


class ForgettingDisk:
    """One process's handle of a disk; satisfies `raft.protocols.Disk`.

    After `crash` or `kill` this handle and its files raise `PowerLost`; `reopen` gives the next
    process its own handle of the same disk.

    Args:
        dice: the only source of chance.
        capacity_bytes: writes past this total of file sizes fail with ENOSPC; None = no limit.
        torn: a crash keeps a random, reordered, torn part of unsynced writes instead of nothing.
        lying: `sync` and `sync_directory` answer without making anything durable.
    """

    def __init__(
        self,
        dice: Random,
        *,
        capacity_bytes: int | None = None,
        torn: bool = False,
        lying: bool = False,
        _platter: Platter | None = None,
    ) -> None:
        self.capacity_bytes = capacity_bytes
        self.torn = torn
        self.lying = lying
        self._platter = _platter or Platter(dice, f"forgetting:{dice.randrange(1 << 62):x}")
        self._generation = self._platter.generation
        self._holds_lock = False

    # -- the protocol ---------------------------------------------------------------------

    def open(self, name: str, *, create: bool = False) -> ForgettingFile:
        """Open for reading and writing; FileNotFoundError unless it exists or `create`."""
        with self._platter.mutex:
            self._operate("open")
            if not name or "/" in name or name in {".", ".."}:
                raise OSError(errno.EINVAL, "a name without separators is needed", name)
            content = self._platter.names.get(name)
            if content is None:
                if not create:
                    raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), name)
                content = Content()
                self._platter.change_names(added(name, content))
            return ForgettingFile(self, content)

    def names(self) -> list[str]:
        """All file names, sorted."""
        with self._platter.mutex:
            self._alive()
            return sorted(name for name in self._platter.names if "/" not in name)

    def rename(self, old: str, new: str) -> None:
        """Atomically replace `new` by `old`; durable after `sync_directory`."""
        with self._platter.mutex:
            self._operate("rename")
            content = self._platter.names.get(old)
            if content is None:
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), old)
            self._platter.change_names(renamed(old, new, content))

    def set_aside(self, name: str, folder: str) -> None:
        """Move a file into the sub-directory `folder`; durable after `sync_directory`."""
        with self._platter.mutex:
            self._operate("rename")
            content = self._platter.names.get(name)
            if content is None:
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), name)
            taken = [each.removeprefix(f"{folder}/") for each in self._platter.names if each.startswith(f"{folder}/")]
            self._platter.change_names(renamed(name, f"{folder}/{free_name(name, taken)}", content))

    def remove(self, name: str) -> None:
        """Remove a file; durable after `sync_directory`."""
        with self._platter.mutex:
            self._operate("remove")
            if name not in self._platter.names:
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), name)
            self._platter.change_names(removed(name))

    def sync_directory(self) -> None:
        """Make creations, renames and removals durable."""
        with self._platter.mutex:
            self._operate("sync_directory")
            if not self.lying:
                self._platter.durable_names = dict(self._platter.names)
                self._platter.directory_pending.clear()

    def inode(self) -> str:
        """An identity of the directory that a copy of it does not share."""
        return self._platter.inode

    def lock(self) -> None:
        """Take the directory exclusively until `close`; raises StoreLocked."""
        with self._platter.mutex:
            self._alive()
            if self._platter.locked:
                raise StoreLocked("the directory is in use", hint="stop the other process first")
            self._platter.locked = self._holds_lock = True

    def close(self) -> None:
        """Release the lock; harmless on a dead handle."""
        with self._platter.mutex:
            if self._generation == self._platter.generation:
                self._platter.locked = self._holds_lock = False

    # -- what goes wrong ------------------------------------------------------------------

    @property
    def operations(self) -> int:
        """Operations so far over the life of the disk; crash points count in these."""
        return self._platter.operations

    @property
    def counts(self) -> dict[str, int]:
        """Operations so far, by kind."""
        return dict(self._platter.counts)

    def crash(self) -> None:
        """The power goes now: unsynced bytes and names are forgotten (see `torn`)."""
        with self._platter.mutex:
            self._platter.lose_power(torn=self.torn)

    def kill(self) -> None:
        """The process is killed, the machine runs on: nothing visible is lost."""
        with self._platter.mutex:
            self._platter.end_generation()

    def abandon(self) -> None:
        """This handle's process is dead, others of the same disk go on."""
        with self._platter.mutex:
            if self._holds_lock and self._generation == self._platter.generation:
                self._platter.locked = False
            self._holds_lock = False
            self._generation = -1

    def crash_at(self, operations_from_now: int) -> None:
        """Lose power in the middle of the n-th operation from now (1 = the next one)."""
        assert operations_from_now >= 1, "a crash point lies ahead"
        self._platter.crash_at = self._platter.operations + operations_from_now

    def on_crash(self, then: Callable[[], None]) -> None:
        """Call `then` when the next crash point is reached, before the operation fails."""
        self._platter.on_crash = then

    def stored(self) -> list[str]:
        """All file names, sorted, also of a dead handle."""
        return sorted(self._platter.names)

    def size_of(self, name: str) -> int:
        """Bytes that are durable of a file, also of a dead handle."""
        return len(self._platter.names[name].durable)

    def durable(self, name: str) -> bytes:
        """The durable bytes of a file, also of a dead handle."""
        return bytes(self._platter.names[name].durable)

    def fail(self, operation: Operation, number: int = errno.EIO, *, after: int = 0, count: int = 1) -> None:
        """Let `count` operations of this kind fail with errno `number`, `after` more have passed."""
        self._platter.faults.append(Fault(operation, number, after, count))

    def rot(self, name: str, offset: int, mask: int = 0x01) -> None:
        """Flip the bits of `mask` in one stored byte, silently."""
        content = self._platter.names[name]
        content.visible[offset] ^= mask
        if offset < len(content.durable):
            content.durable[offset] ^= mask

    def reopen(self) -> ForgettingDisk:
        """The next process's handle; the current one must be crashed, killed or closed."""
        platter = self._platter
        return ForgettingDisk(
            platter.dice, capacity_bytes=self.capacity_bytes, torn=self.torn, lying=self.lying, _platter=platter
        )

    def copy(self) -> ForgettingDisk:
        """A copied directory: the same visible bytes under another inode, all durable."""
        twin = ForgettingDisk(self._platter.dice, capacity_bytes=self.capacity_bytes, torn=self.torn, lying=self.lying)
        for name, content in self._platter.names.items():
            copied = Content()
            copied.visible, copied.durable = bytearray(content.visible), bytearray(content.visible)
            twin._platter.names[name] = twin._platter.durable_names[name] = copied
        return twin

    # -- the inside -----------------------------------------------------------------------

    def _alive(self) -> None:
        if self._generation != self._platter.generation:
            raise PowerLost

    def _operate(self, operation: Operation, *, partly: Callable[[], None] | None = None) -> None:
        """Count one operation; crash or fail here if that is due.

        `partly` does a random part of the operation, for the crash in its middle.
        """
        self._alive()
        platter = self._platter
        platter.operations += 1
        platter.counts[operation] = platter.counts.get(operation, 0) + 1
        if platter.crash_at is not None and platter.operations >= platter.crash_at:
            if partly is not None:
                partly()
            platter.lose_power(torn=self.torn)
            if platter.on_crash is not None:
                platter.on_crash()
            raise PowerLost
        for fault in platter.faults:
            if fault.operation != operation:
                continue
            if fault.after:
                fault.after -= 1
                continue
            fault.count -= 1
            if fault.count <= 0:
                platter.faults.remove(fault)
            raise OSError(fault.number, os.strerror(fault.number))

    def _room_for(self, growth: int) -> None:
        if self.capacity_bytes is None or growth <= 0:
            return
        used = sum(len(content.visible) for content in self._platter.names.values())
        if used + growth > self.capacity_bytes:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


class ForgettingFile:
    """One open file of a `ForgettingDisk`; satisfies `raft.protocols.File`."""

    def __init__(self, disk: ForgettingDisk, content: Content) -> None:
        self._disk = disk
        self._content = content
        self._closed = False

    def write_at(self, offset: int, data: bytes) -> None:
        """Write all of `data`, visible at once, durable after `sync`; raises OSError."""
        data = bytes(data)
        with self._disk._platter.mutex:
            self._usable()
            self._disk._operate("write", partly=lambda: self._content.pending.append((offset, data)))
            self._disk._room_for(offset + len(data) - len(self._content.visible))
            place(self._content.visible, offset, data)
            self._content.pending.append((offset, data))

    def read_at(self, offset: int, length: int) -> bytes:
        """Read up to `length` bytes; shorter at the end of the file."""
        with self._disk._platter.mutex:
            self._usable()
            self._disk._operate("read")
            return bytes(self._content.visible[offset : offset + length])

    def size(self) -> int:
        """Current size in bytes."""
        with self._disk._platter.mutex:
            self._usable()
            self._disk._alive()
            return len(self._content.visible)

    def sync(self) -> None:
        """Make all written data durable, or fail and drop it from what will ever be written."""
        with self._disk._platter.mutex:
            self._usable()
            try:
                self._disk._operate("sync")
            except PowerLost:
                raise
            except OSError:
                self._content.pending.clear()
                raise
            if self._disk.lying:
                return
            for offset, data in self._content.pending:
                place(self._content.durable, offset, data)
            self._content.pending.clear()

    def close(self) -> None:
        """Release the file; nothing is synced by it."""
        self._closed = True

    def _usable(self) -> None:
        if self._closed:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
