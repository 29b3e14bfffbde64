"""Linearizable reads without writing to the log: ReadIndex (dissertation §6.4).

Owns: which reads wait, and for what.  Must not know: what is read.

Invariant: a read sees every write acknowledged before it was asked.  Its index is taken from a leader that
has committed an entry of its own term (so it knows all commits of earlier ones), and is released
only when a majority answered a round begun after the question: no newer leader existed then.
"""

from __future__ import annotations

from collections import deque

from raft.effects import ReadReady, ReadRefused, Role
from raft.quorum import jointly_agreed
from raft.replication import Replication
from raft.state import State

ROUNDS_MAX = 4
"""Rounds under way at once; later questions share the next one."""


class Reads:
    """Reads asked of this replica and not answered yet."""

    def __init__(self, state: State, replication: Replication) -> None:
        self._state = state
        self._replication = replication
        self._waiting: list[int] = []
        self._rounds: deque[tuple[int, int, list[int]]] = deque()

    def request(self, ids: tuple[int, ...]) -> None:
        """Queue reads, or refuse them when another replica leads; `advance` does the rest."""
        state = self._state
        if state.role is Role.LEADER and not state.diverged:
            self._waiting += ids
        else:
            state.effects += [ReadRefused(read, "not-leader", state.leader) for read in ids]

    def advance(self) -> None:
        """Release what a majority has confirmed, and begin the next round if there is one to begin."""
        state = self._state
        if state.role is not Role.LEADER or state.diverged:
            self._refuse_all()
            return
        self._release()
        if not self._waiting or len(self._rounds) >= ROUNDS_MAX or not self._knows_all_commits():
            return
        sequence = self._replication.begin_round()
        self._rounds.append((sequence, state.commit_index, self._waiting))
        self._waiting = []
        self._release()

    def _knows_all_commits(self) -> bool:
        state = self._state
        return state.log.term_at(state.commit_index) == state.term

    def _release(self) -> None:
        if not self._rounds:
            return
        state = self._state
        confirmed = {progress.store: progress.sequence_acked for progress in state.progress.values()}
        confirmed[state.config.store_id] = self._replication.sequence
        upto = jointly_agreed(state.halves, confirmed)
        while self._rounds and self._rounds[0][0] <= upto:
            _, index, ids = self._rounds.popleft()
            state.effects += [ReadReady(read, index) for read in ids]

    def _refuse_all(self) -> None:
        """Leadership ended while they waited, or the state turned out to be wrong."""
        if not self._waiting and not self._rounds:
            return
        code = "no-quorum" if self._state.leader is None else "not-leader"
        ids = [read for _, _, batch in self._rounds for read in batch] + self._waiting
        self._rounds.clear()
        self._waiting = []
        self._state.effects += [ReadRefused(read, code, self._state.leader) for read in ids]
