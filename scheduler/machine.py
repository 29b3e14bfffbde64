"""Committed entries become state, trace events and wake-ups.

Owns: the order "apply, then tell", and handing the state out and taking it back whole.
Must not know: consensus, HTTP, or what a command means.

Data that is no command is refused by every replica alike and the next entry is applied.  An exception out of
the state is the impossible: part of the command may be done, and books that are half changed must
neither be served nor frozen, so the process ends with the trace.  So does a command of a newer
version: guessing what it means would make the replicas differ.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol

from raft.messages import COMMAND, Entry
from raft.protocols import Observer
from scheduler.changelog import Changelog
from scheduler.errors import CommandTooNew
from scheduler.state import State
from scheduler.state.results import Result
from scheduler.state.snapshot import FrozenState


class Log(Protocol):
    """The part of a logger that is used."""

    def error(self, event: str, **fields: Any) -> Any:
        """Say that something is wrong."""
        ...


class Machine:
    """The state machine of one replica; satisfies `raft.protocols.StateMachine`.

    Attributes:
        state: the replicated state; read-only for everyone else.
        changelog: what changed lately.
        on_applied: called once a batch with the last applied index.
    """

    def __init__(self, state: State, *, observer: Observer, changelog: Changelog, log: Log) -> None:
        self.state = state
        self.changelog = changelog
        self.on_applied: list[Callable[[int], None]] = []
        self._observer = observer
        self._log = log

    def apply(self, entries: Sequence[Entry]) -> list[Result | None]:
        """Apply committed entries in order; one result an entry, None for those that carry no command.

        Raises:
            CommandTooNew: the log holds a command of a newer version of Skerry.
            Exception: applying failed; the state must not be used any more.
        """
        results = [self._apply_one(entry) for entry in entries]
        self.changelog.wake()
        for listener in self.on_applied:
            listener(self.state.index)
        return results

    def freeze(self) -> FrozenState:
        """The state of this moment; what is applied later does not change it."""
        return self.state.freeze()

    def restore(self, index: int, term: int, chunks: Iterable[bytes]) -> None:
        """Become the state frozen at `index`; followers of changes are told that there is a gap.

        It may be an earlier state than the present one, which was wrong: what is applied again is not told again.

        Raises:
            ValueError: `chunks` are no whole state of that index and term; nothing was changed.
            SnapshotTooNew: a newer program wrote them.
        """
        self.state.restore(index, term, chunks)
        self.changelog.skip(max(index, self.changelog.last_index))
        self.changelog.wake()
        for listener in self.on_applied:
            listener(index)

    def _apply_one(self, entry: Entry) -> Result | None:
        told = entry.index <= self.changelog.last_index  # by a state that was replaced since
        if entry.kind != COMMAND:
            self.state.advance(entry.index, entry.term)
            if not told:
                self.changelog.add(entry.index, ())
            return None
        result = self._applied(entry)
        if not told:
            for kind, fields in (*result.changes, *result.traced):
                self._observer.emit(kind, **fields)
            self.changelog.add(entry.index, result.changes)
        return result

    def _applied(self, entry: Entry) -> Result:
        try:
            return self.state.apply(entry.index, entry.term, entry.data)
        except CommandTooNew:
            raise
        except Exception as error:
            self._log.error("a command tripped over the state", index=entry.index, error=repr(error), exc_info=True)
            self._observer.emit("inv", name="apply", ok=False, index=entry.index, why=repr(error))
            raise
