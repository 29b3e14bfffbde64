"""What consensus needs from the world, as protocols.

Owns: the seams where clock, dice, threads, disk, network and observation are injected.
Must not know: any implementation.  Real ones live in `cluster`, simulated ones in `chaos`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Protocol, TypeVar

from raft.messages import Entry, Message

Item = TypeVar("Item")
Item_contra = TypeVar("Item_contra", contravariant=True)


class Clock(Protocol):
    """Time as intervals; never the wall clock."""

    def now_ns(self) -> int:
        """Nanoseconds on a clock that counts suspended time too (CLOCK_BOOTTIME)."""
        ...


class Dice(Protocol):
    """The only source of chance."""

    def below(self, bound: int) -> int:
        """A uniform integer in ``[0, bound)``; ``bound >= 1``."""
        ...

    def token(self, size_bytes: int) -> bytes:
        """Unguessable bytes, for identities."""
        ...


class Worker(Protocol[Item_contra]):
    """One thread beside the event loop, which works off what it is given, in order."""

    def start(self) -> None:
        """Begin; called once, before anything is submitted."""
        ...

    def submit(self, item: Item_contra) -> None:
        """Queue one item; never blocks, as whoever submits bounds how many there are."""
        ...

    def stop(self) -> None:
        """End after what is queued; called once."""
        ...


class Threads(Protocol):
    """Where work goes that may block."""

    def worker(self, name: str, work: Callable[[Item], None], ended: Callable[[], None]) -> Worker[Item]:
        """A worker that is not started yet.

        In its thread it calls `work` with each item, and `ended` once after `stop`; `work` does not raise.
        Both get back to the event loop by ``call_soon_threadsafe`` alone.
        """
        ...


class Transport(Protocol):
    """Fire-and-forget messages to peers; losing, repeating or delaying one is legal."""

    def send(self, to: str, message: Message) -> None:
        """Queue `message` for replica `to`; never blocks, drops when the outbox is full."""
        ...


class Observer(Protocol):
    """Receives what happened, in the vocabulary of the trace (DESIGN.md §10)."""

    def emit(self, kind: str, /, **fields: Any) -> object:
        """Record one event; must not raise and must not block.  What it returns is not looked at."""
        ...


class Frozen(Protocol):
    """The state as it was at one index, held still while the state machine goes on."""

    def chunks(self) -> Iterator[bytes]:
        """The serialised state, a piece at a time (any sizes, none above 16 MiB).

        Consumed once and in one thread that is not the event loop's, beside `apply`; it must not look at
        anything that `apply` changes.
        """
        ...

    def digest(self) -> str:
        """Which state it is, as in `messages.Digest`: the same for the same state, on every replica.

        Called in one thread that is not the event loop's, as `chunks` is, and never on the same object.
        """
        ...

    def release(self) -> None:
        """Let go of what was held; called once, on the event loop, after `chunks` or `digest` ended or failed."""
        ...


class StateMachine(Protocol):
    """What committed entries are applied to."""

    def apply(self, entries: Sequence[Entry]) -> Sequence[Any]:
        """Apply committed entries in index order; returns one result an entry."""
        ...

    def freeze(self) -> Frozen:
        """Hold the state still as it is now, right after an `apply`; short, as the event loop waits for it."""
        ...

    def restore(self, index: int, term: int, chunks: Iterable[bytes]) -> None:
        """Replace the whole state by a frozen one that had applied (index, term); `apply` goes on at index + 1.

        `chunks` are the frozen state's bytes, cut anywhere.  Called on the event loop, before the first `apply` or
        between two of them.  Raises ValueError if they make no state; the state then counts as lost.
        """
        ...


class File(Protocol):
    """One open file of a `Disk`.  Offsets and lengths in bytes."""

    def write_at(self, offset: int, data: bytes) -> None:
        """Write all of `data`; raises OSError (ENOSPC, EIO) otherwise."""
        ...

    def read_at(self, offset: int, length: int) -> bytes:
        """Read up to `length` bytes; shorter at the end of the file."""
        ...

    def size(self) -> int:
        """Current size in bytes."""
        ...

    def sync(self) -> None:
        """Return once all written data is durable (fdatasync); raises OSError."""
        ...

    def close(self) -> None:
        """Release the file."""
        ...


class Disk(Protocol):
    """One directory of files.  Names are plain, without separators."""

    def open(self, name: str, *, create: bool = False) -> File:
        """Open for reading and writing; FileNotFoundError unless it exists or `create`."""
        ...

    def names(self) -> list[str]:
        """All file names, sorted."""
        ...

    def rename(self, old: str, new: str) -> None:
        """Atomically replace `new` by `old`; durable after `sync_directory`."""
        ...

    def remove(self, name: str) -> None:
        """Remove a file; durable after `sync_directory`."""
        ...

    def set_aside(self, name: str, folder: str) -> None:
        """Move a file out of the way into the sub-directory `folder`, made if missing, over nothing that is there.

        Durable after `sync_directory`; `names` does not list it any more.
        """
        ...

    def sync_directory(self) -> None:
        """Make creations, renames and removals durable."""
        ...

    def inode(self) -> str:
        """An identity of the directory that a copy of it does not share (device:inode)."""
        ...

    def lock(self) -> None:
        """Take the directory exclusively until `close`; raises StoreLocked."""
        ...

    def close(self) -> None:
        """Release the lock."""
        ...
