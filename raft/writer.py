"""The two threads that wait for the disk, so that the event loop does not.

Owns: merging queued `Persist` effects into one write, the writer thread, the thread that fills
segments ahead.  Must not know: asyncio, the core, or what is done with the answers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from msgspec import Struct

from raft.effects import Persist
from raft.messages import Base, Entry, HardState
from raft.protocols import Clock, Threads
from raft.store.log_store import LogStore


class Batch(Struct, frozen=True):
    """One write: everything up to `Persist.write` number `write`; with `base` the log begins anew behind it."""

    write: int
    hard_state: HardState | None
    entries: Sequence[Entry]
    base: Base | None = None


class Written(Struct, frozen=True):
    """How a batch ended.  `last_term`, `last_index`: the log's end on disk; `error` None when durable."""

    write: int
    last_term: int
    last_index: int
    size_bytes: int
    duration_ns: int
    error: BaseException | None


def merge(persists: Sequence[Persist]) -> Batch:
    """One write with the effect of all of `persists` in order; later ones replace what they overlap."""
    assert persists, "nothing to merge"
    if len(persists) == 1:
        only = persists[0]
        return Batch(only.write, only.hard_state, only.entries, only.base)
    hard_state: HardState | None = None
    entries: list[Entry] = []
    base: Base | None = None
    for persist in persists:
        hard_state = persist.hard_state or hard_state
        if persist.base is not None:
            base, entries = persist.base, []
        if not persist.entries:
            continue
        if entries:
            keep = persist.entries[0].index - entries[0].index
            assert keep <= len(entries), "persisted entries leave a gap"
            del entries[max(0, keep) :]
        entries.extend(persist.entries)
    return Batch(persists[-1].write, hard_state, entries, base)


class Writer:
    """One dedicated thread; `submit` one batch at a time, `done` is called in that thread."""

    def __init__(
        self,
        store: LogStore,
        clock: Clock,
        threads: Threads,
        done: Callable[[Written], None],
        ended: Callable[[], None],
    ) -> None:
        self._store = store
        self._clock = clock
        self._done = done
        self._thread = threads.worker("raft-writer", self._work, ended)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def submit(self, batch: Batch) -> None:
        """Write `batch`; not before `done` was called for the last one."""
        self._thread.submit(batch)

    def stop(self) -> None:
        """End the thread after the write in flight; `ended` is called then."""
        self._thread.stop()

    def _work(self, batch: Batch) -> None:
        self._done(self._write(batch))

    def _write(self, batch: Batch) -> Written:
        store, started = self._store, self._clock.now_ns()
        size, error = 0, None
        try:
            size = store.append(batch.hard_state, batch.entries, batch.base)
        except BaseException as raised:
            error = raised
        took = self._clock.now_ns() - started
        return Written(batch.write, store.last_term, store.last_index, size, took, error)


class Filler:
    """One thread that makes the next segment while the live one is written."""

    def __init__(
        self,
        store: LogStore,
        threads: Threads,
        done: Callable[[BaseException | None], None],
        ended: Callable[[], None],
    ) -> None:
        self._store = store
        self._done = done
        self._thread = threads.worker("raft-filler", self._work, ended)
        self.busy = False

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def request(self) -> None:
        """Make a spare segment, unless one is being made; `done` is called in the thread."""
        if not self.busy:
            self.busy = True
            self._thread.submit(None)

    def stop(self) -> None:
        """End the thread after the segment at hand; `ended` is called then."""
        self._thread.stop()

    def _work(self, _: None) -> None:
        error: BaseException | None = None
        try:
            self._store.prepare_spare()
        except BaseException as raised:
            error = raised
        self.busy = False
        self._done(error)
