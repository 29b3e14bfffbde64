"""Deliberate bugs of consensus: each replaces one rule, and a campaign of schedules must find it.

They prove that the checks can fail.  Never imported by production code.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from msgspec.structs import replace

from chaos.breaks import BREAKS as ZOO
from chaos.breaks import place_of
from raft import quorum
from raft.configuration import halves
from raft.durability import Durability
from raft.effects import Apply, Role, TakeChunk
from raft.election import Elections
from raft.log import HASH_START, Log
from raft.messages import Configuration, Entry, SnapshotChunk, SnapshotHeader
from raft.progress import Progress
from raft.quorum import Halves
from raft.reads import Reads
from raft.replication import Replication
from raft.snapshots import describe
from raft.snapshotter import Snapshotter
from raft.state import State
from raft.store.segments import segment_name
from raft.store.snapshots import SnapshotStore


def from_the_zoo(name: str) -> Callable[[pytest.MonkeyPatch], None]:
    """A deliberate bug that whole simulated clusters are run with, too (`chaos.breaks`)."""

    def put_in_force(patch: pytest.MonkeyPatch) -> None:
        owner, function = place_of(ZOO[name])
        patch.setattr(owner, function, ZOO[name].replacement)

    put_in_force.__name__ = name.replace("-", "_")
    return put_in_force


double_vote = from_the_zoo("double-vote")
vote_not_persisted = from_the_zoo("vote-not-persisted")
commit_of_an_earlier_term = from_the_zoo("commit-earlier-term-by-count")
acknowledgement_before_the_write = from_the_zoo("ack-before-sync")
snapshot_without_its_configuration = from_the_zoo("snapshot-without-configuration")


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


def wiped_replica_votes_at_once(patch: pytest.MonkeyPatch) -> None:
    """A replica answers candidates whatever its store has been through."""
    patch.setattr(State, "votes", property(lambda self: True))
    patch.setattr(State, "admitted", property(lambda self: True))


def joint_quorum_counted_as_a_union(patch: pytest.MonkeyPatch) -> None:
    """While a configuration is joint, a majority of everybody in it is thought to be enough."""

    def union(halves: Halves) -> Halves:
        return (tuple(dict.fromkeys(voter for half in halves for voter in half)),)

    original = quorum.jointly_agreed, quorum.jointly_won, quorum.jointly_lost
    for name, function in zip(("jointly_agreed", "jointly_won", "jointly_lost"), original, strict=True):
        for module in ("raft.replication", "raft.election", "raft.reads"):
            patch.setattr(f"{module}.{name}", partial(_with, function, union), raising=False)


def _with(function: Callable[..., Any], change: Callable[[Halves], Halves], halves: Halves, values: Any) -> Any:
    return function(change(halves), values)


def learner_counted(patch: pytest.MonkeyPatch) -> None:
    """A learner is one of those of whom a majority is needed."""

    def counted(configuration: Configuration) -> Halves:
        learners = tuple(configuration.learners.values())
        return tuple((*half, *learners) for half in halves(configuration))

    patch.setattr("raft.state.halves", counted)


def sync_left_out(patch: pytest.MonkeyPatch) -> None:
    """The disk answers before anything is safe."""
    from chaos.disk import ForgettingDisk

    original = ForgettingDisk.__init__

    def init(self: ForgettingDisk, *args: Any, **kwargs: Any) -> None:
        original(self, *args, **{**kwargs, "lying": True})

    patch.setattr(ForgettingDisk, "__init__", init)


def _header(patch: pytest.MonkeyPatch, **changed: Any) -> None:
    original = describe

    def broken(state: State, index: int) -> SnapshotHeader:
        header = original(state, index)
        return replace(header, **{name: change(header) for name, change in changed.items()})

    patch.setattr("raft.core.describe", broken)


def snapshot_without_its_hash(patch: pytest.MonkeyPatch) -> None:
    """A snapshot forgets the prefix hash of the log it stands for."""
    _header(patch, base=lambda header: replace(header.base, prefix_hash=HASH_START))


def log_cut_before_the_snapshot_is_durable(patch: pytest.MonkeyPatch) -> None:
    """The log's segments go as soon as a snapshot of them is begun."""
    original = Snapshotter.consider

    def consider(self: Snapshotter) -> None:
        before = self._frozen
        original(self)
        if before is None and self._frozen is not None:
            while (number := self._store._unneeded(self._applier.index)) is not None:
                self._store._disk.remove(segment_name(number))
            self._store._disk.sync_directory()

    patch.setattr(Snapshotter, "consider", consider)


def _without_assertions(patch: pytest.MonkeyPatch) -> None:
    """Whatever the rules said, `State.replace_log` does it."""
    original = State.replace_log

    def replace_log(self: State, snapshot: Any) -> None:
        self.commit_index = 0
        matches, self.log.matches = self.log.matches, lambda index, term: False  # type: ignore[method-assign]
        original(self, snapshot)
        self.log.matches = matches  # type: ignore[method-assign]

    patch.setattr(State, "replace_log", replace_log)


def old_snapshot_installed(patch: pytest.MonkeyPatch) -> None:
    """A snapshot is installed however far the replica got meanwhile."""
    _without_assertions(patch)
    patch.setattr("raft.install._is_here", lambda state, index, term: False)


def piece_in_the_wrong_place(patch: pytest.MonkeyPatch) -> None:
    """A piece that came twice is taken for the next one."""
    original = SnapshotStore.take

    def take(self: SnapshotStore, chunk: SnapshotChunk) -> Any:
        if self._incoming is not None and self._incoming.snapshot == chunk.snapshot and chunk.data:
            rest = chunk.snapshot.size_bytes - self._incoming.offset
            chunk = SnapshotChunk(chunk.term, chunk.snapshot, self._incoming.offset, chunk.data[:rest])
        return original(self, chunk)

    patch.setattr(SnapshotStore, "take", take)


def piece_of_a_deposed_leader(patch: pytest.MonkeyPatch) -> None:
    """Whoever sends a piece of a snapshot is followed, in whatever term it says."""

    def on_chunk(state: State, sender: str, chunk: SnapshotChunk) -> None:
        state.become(Role.FOLLOWER, sender, "it sends a snapshot")
        state.effects.append(TakeChunk(chunk))

    patch.setattr("raft.core.on_chunk", on_chunk)


#: Bug → invariants that may name it, whichever is broken first.
BREAKS: dict[Callable[[pytest.MonkeyPatch], None], tuple[str, ...]] = {
    double_vote: ("one-vote", "election-safety", "vote-persistence"),
    vote_not_persisted: ("one-vote", "election-safety", "vote-persistence", "disk-durability"),
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
    snapshot_without_its_hash: ("snapshot-prefix", "disk-durability"),
    snapshot_without_its_configuration: ("snapshot-configuration",),
    log_cut_before_the_snapshot_is_durable: ("disk-durability",),
    old_snapshot_installed: ("commit-monotonic",),
    piece_in_the_wrong_place: ("snapshot-intact",),
    piece_of_a_deposed_leader: ("election-safety",),
    wiped_replica_votes_at_once: ("voter-eligibility",),
    joint_quorum_counted_as_a_union: ("commit-by-quorum", "leader-completeness", "election-safety"),
    learner_counted: ("commit-by-quorum", "leader-completeness"),
}
