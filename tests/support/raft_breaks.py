"""Deliberate bugs of consensus: each replaces one rule, and a campaign of schedules must find it.

They prove that the checks can fail.  Never imported by production code.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from raft.core import Core
from raft.durability import Durability
from raft.effects import Apply
from raft.election import Elections
from raft.log import Log
from raft.messages import Entry, HardState
from raft.progress import Progress
from raft.quorum import agreed
from raft.reads import Reads
from raft.replication import Replication, commit
from raft.state import Recovered, State
from raft.store.log_store import LogStore


def double_vote(patch: pytest.MonkeyPatch) -> None:
    """A voter forgets that it voted in this term."""
    original = Elections.answer_vote

    def answer_vote(self: Elections, sender: str, request: Any) -> None:
        if self._state.role != "leader":
            self._state.voted_for = None
        original(self, sender, request)

    patch.setattr(Elections, "answer_vote", answer_vote)
    patch.setattr(LogStore, "_check", lambda self, hard_state, entries: None)


def forgotten_vote(patch: pytest.MonkeyPatch) -> None:
    """A restart keeps the term and loses the vote."""
    original = Core.__init__

    def init(self: Core, config: Any, recovered: Recovered, dice: Any, now_ns: int) -> None:
        forgotten = HardState(recovered.hard_state.term, None)
        original(self, config, Recovered(forgotten, recovered.entries), dice, now_ns)

    patch.setattr(Core, "__init__", init)
    patch.setattr(LogStore, "_check", lambda self, hard_state, entries: None)


def commit_of_an_earlier_term(patch: pytest.MonkeyPatch) -> None:
    """Figure 8: an entry of an earlier term is committed by counting copies."""

    def advance_commit(self: Replication) -> None:
        state = self._state
        held = [progress.match for progress in state.progress.values()]
        index = agreed([*held, state.durability.index])
        if index > state.commit_index:
            commit(state, index)

    patch.setattr(Replication, "advance_commit", advance_commit)


def acknowledgement_before_the_write(patch: pytest.MonkeyPatch) -> None:
    """Nothing waits for the disk."""
    original = State.send

    def send(self: State, to: str, message: Any, *, after_persist: bool = False) -> None:
        original(self, to, message)
        effect = self.effects[-1]
        self.effects[-1] = type(effect)(effect.to, effect.message, False)

    patch.setattr(State, "send", send)


def own_write_counted_at_once(patch: pytest.MonkeyPatch) -> None:
    """The leader counts its own copy when it is in memory."""
    original = Durability.begin

    def begin(self: Durability, last_index: int, with_hard_state: bool, now_ns: int) -> int:
        self.index = last_index
        return original(self, last_index, with_hard_state, now_ns)

    patch.setattr(Durability, "begin", begin)


def overwritten_suffix_still_counts(patch: pytest.MonkeyPatch) -> None:
    """The ABA race: the completion of an overwritten write counts for what replaced it."""

    def completed(self: Durability, number: int, last_term: int, last_index: int, log: Log) -> None:
        while self._inflight and self._inflight[0].number <= number:
            self._hard_state_writes -= self._inflight.popleft().with_hard_state
        self.index = max(self.index, min(last_index, log.last_index))

    patch.setattr(Durability, "completed", completed)
    patch.setattr(Durability, "overwritten", lambda self, from_index: None)


def no_log_matching_check(patch: pytest.MonkeyPatch) -> None:
    """Entries are taken without comparing the one before them."""

    def matches(self: Log, index: int, term: int) -> bool:
        return index <= self.last_index

    patch.setattr(Log, "matches", matches)


def truncation_by_any_message(patch: pytest.MonkeyPatch) -> None:
    """A follower cuts its log at every Append, even at an old and short one."""

    def take(state: State, entries: tuple[Entry, ...]) -> None:
        first = entries[0].index
        if state.commit_index < first <= state.log.last_index:
            state.truncate(first)
        state.append([entry for entry in entries if entry.index > state.log.last_index])

    patch.setattr("raft.follower._take", take)


def votes_for_a_shorter_log(patch: pytest.MonkeyPatch) -> None:
    """§5.4.1 is left out: anyone's candidacy is good enough."""
    patch.setattr(Elections, "_is_up_to_date", lambda self, last_term, last_index: True)


def read_without_a_round(patch: pytest.MonkeyPatch) -> None:
    """A leader answers reads without asking whether it still leads."""
    original = Reads._release

    def release(self: Reads) -> None:
        for progress in self._state.progress.values():
            progress.sequence_acked = self._replication.sequence
        original(self)

    patch.setattr(Reads, "_release", release)


def read_before_the_own_term_commits(patch: pytest.MonkeyPatch) -> None:
    """A new leader reads at its commit index before it can know what was committed."""
    patch.setattr(Reads, "_knows_all_commits", lambda self: True)


def refusals_ignored(patch: pytest.MonkeyPatch) -> None:
    """A leader never backs up to where a follower's log agrees with its own."""
    patch.setattr(Progress, "is_stale_refusal", lambda self, prev_index: True)


def entries_applied_twice(patch: pytest.MonkeyPatch) -> None:
    """A leader's commit hands the last entry out again."""
    original = Replication.advance_commit

    def advance_commit(self: Replication) -> None:
        before = self._state.commit_index
        original(self)
        if self._state.commit_index > before > 0:
            self._state.effects.append(Apply(self._state.log.slice(before, before)))

    patch.setattr(Replication, "advance_commit", advance_commit)


def sync_left_out(patch: pytest.MonkeyPatch) -> None:
    """The disk answers before anything is safe."""
    from chaos.disk import ForgettingDisk

    original = ForgettingDisk.__init__

    def init(self: ForgettingDisk, *args: Any, **kwargs: Any) -> None:
        original(self, *args, **{**kwargs, "lying": True})

    patch.setattr(ForgettingDisk, "__init__", init)


#: Bug → invariants that may name it, whichever is broken first.
BREAKS: dict[Callable[[pytest.MonkeyPatch], None], tuple[str, ...]] = {
    double_vote: ("one-vote", "election-safety", "vote-persistence"),
    forgotten_vote: ("one-vote", "election-safety", "vote-persistence"),
    commit_of_an_earlier_term: ("commit-own-term", "leader-completeness", "state-machine-safety"),
    acknowledgement_before_the_write: ("acknowledged-durably", "term-persistence", "vote-persistence"),
    own_write_counted_at_once: ("commit-by-quorum", "acknowledged-durably"),
    overwritten_suffix_still_counts: ("commit-by-quorum", "acknowledged-durably"),
    no_log_matching_check: ("log-matching", "commit-by-quorum", "acknowledged-durably"),
    truncation_by_any_message: ("leader-completeness", "acknowledged-durably", "commit-by-quorum"),
    votes_for_a_shorter_log: ("leader-completeness", "state-machine-safety"),
    read_without_a_round: ("read-linearizable",),
    read_before_the_own_term_commits: ("read-linearizable",),
    refusals_ignored: ("liveness",),
    entries_applied_twice: ("apply-order",),
    sync_left_out: ("disk-durability",),
}
