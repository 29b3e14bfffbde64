"""Committed entries become state, trace events and wake-ups.

Owns: the order "apply, then tell".  Must not know: consensus, HTTP, or what a command means.

Applying is deterministic, failure included: a command that cannot be read, or that trips over
the state, is refused by every replica alike and the next one is applied.  Only a command of a
newer version stops the process: guessing what it means would make the replicas differ.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from raft.messages import COMMAND, Entry
from raft.protocols import Observer
from scheduler.changelog import Changelog
from scheduler.errors import CommandTooNew
from scheduler.state import State
from scheduler.state.results import Result


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
        """
        results = [self._apply_one(entry) for entry in entries]
        self.changelog.wake()
        for listener in self.on_applied:
            listener(self.state.index)
        return results

    def _apply_one(self, entry: Entry) -> Result | None:
        if entry.kind != COMMAND:
            self.state.advance(entry.index, entry.term)
            self.changelog.add(entry.index, ())
            return None
        result = self._applied(entry)
        for kind, fields in result.changes:
            self._observer.emit(kind, **fields)
        self.changelog.add(entry.index, result.changes)
        return result

    def _applied(self, entry: Entry) -> Result:
        try:
            return self.state.apply(entry.index, entry.term, entry.data)
        except CommandTooNew:
            raise
        except Exception as error:  # the same on every replica, so refusing keeps them alike
            self._log.error("a command tripped over the state", index=entry.index, error=repr(error), exc_info=True)
            self._observer.emit("inv", name="apply", ok=False, index=entry.index, why=repr(error))
            self.state.advance(entry.index, entry.term)
            return Result(index=entry.index, code="internal", message=f"applying it failed: {error!r}")
