"""Snapshots on the side that has them: what is compacted, and how a leader sends one (§7; dissertation §5.1).

Owns: where the log is cut, when a follower gets a snapshot instead of entries, one piece after another.
Must not know: files, what a snapshot holds, or what the receiver does with a piece.

A follower whose next entry is compacted is in the state SNAPSHOT: it goes on getting heartbeats, which also carry
quorum rounds, and one piece of the snapshot at a time.  A question (a piece without data) comes first and after
every silence; the answer says where to go on, so a lost link, a restarted receiver or a piece that came twice cost
nothing else.  Pieces shrink while they take long: heartbeats share their link.

Invariants: only entries that a durable snapshot stands for leave the log; the log always begins at or before the
newest snapshot.
"""

from __future__ import annotations

from raft.effects import Role, SendChunk
from raft.events import SnapshotTaken
from raft.messages import SnapshotChunk, SnapshotHeader, SnapshotId, SnapshotReply, encode_configuration
from raft.progress import Pace, Progress
from raft.state import State

CHUNK_BYTES_MIN = 4096
_SLOW_SHARE, _QUICK_SHARE = 4, 16
_PATIENCE_MAX = 16
_ACTIVE = 8
_PIN_SHARE = 4
_ASKED_TIMEOUTS = 4


def describe(state: State, index: int) -> SnapshotHeader:
    """What a snapshot of the state at `index`, which is applied and in the log, will say of itself."""
    log = state.log
    assert log.base_index <= index <= state.commit_index, "only what is committed is frozen"
    held = state.configurations.at(index)
    assert held is not None, "a formed replica has a configuration"
    tail = max(log.base_index, index - state.config.keep_tail_entries)
    return SnapshotHeader(log.base_at(index), log.base_at(tail), held[0], encode_configuration(held[1]))


def on_taken(state: State, event: SnapshotTaken) -> None:
    """An own snapshot is durable: forget the entries that it stands for, but for a tail (§7)."""
    snapshot = event.snapshot
    if state.snapshot is not None and snapshot.index <= state.snapshot.index:
        return  # an installed one overtook it
    assert snapshot.index <= state.applied_index, "a snapshot of what was not applied"
    state.snapshot = snapshot
    compact(state, max(snapshot.header.tail.index, state.log.base_index))


def compact(state: State, index: int) -> None:
    """Cut the log at `index`, or earlier for followers that are at work on what would go.

    A follower that needs more than four snapshots' worth of log holds nothing back: it gets a snapshot.
    """
    log, config = state.log, state.config
    for progress in state.progress.values():
        needed = progress.match
        if progress.pace is Pace.SNAPSHOT and progress.snapshot is not None:
            needed = progress.snapshot.index
        if progress.pace is Pace.PROBE or not log.base_index <= needed < index:
            continue  # of one that is probed it is not known what it needs
        active = state.now_ns - progress.heard_ns < _ACTIVE * config.election_timeout_ns
        cheap = (
            log.bytes_between(needed, log.last_index) <= _PIN_SHARE * config.snapshot_log_bytes
            and log.last_index - needed <= _PIN_SHARE * config.snapshot_entries
        )
        if active and cheap:
            index = needed
    if index > log.base_index:
        log.compact(index)


class Transfers:
    """How a leader brings snapshots to its followers; what is under way is in their `Progress`."""

    def __init__(self, state: State) -> None:
        self._state = state

    def begin(self, peer: str, progress: Progress) -> None:
        """The follower's next entry is compacted: send the newest snapshot."""
        state = self._state
        assert state.snapshot is not None, "a compacted log has a snapshot"
        progress.begin_snapshot(state.snapshot.id, state.config.election_timeout_ns)
        self._begin(peer, progress)

    def begin_beside(self, peer: str, progress: Progress) -> None:
        """The follower has given its state up, and goes on taking entries: send the newest snapshot beside them."""
        state = self._state
        assert state.snapshot is not None, "there is one to send"
        progress.snapshot, progress.patience_ns = state.snapshot.id, state.config.election_timeout_ns
        self._begin(peer, progress)

    def _begin(self, peer: str, progress: Progress) -> None:
        if not progress.chunk_bytes:
            progress.chunk_bytes = max(1, self._state.config.snapshot_chunk_bytes // 4)
        self._ask(peer, progress)

    def beat(self, peer: str, progress: Progress) -> None:
        """Ask again where the last piece went unanswered; begin anew where the log has moved on too far.

        One that goes beside the entries ends when it is not asked for any more.
        """
        state = self._state
        assert progress.snapshot is not None, "a snapshot is under way"
        beside = progress.pace is not Pace.SNAPSHOT
        if beside and state.now_ns - progress.refetch_ns > _ASKED_TIMEOUTS * state.config.election_timeout_ns:
            progress.snapshot = None
        elif not beside and progress.snapshot.index < state.log.base_index:
            self.begin(peer, progress)
        elif state.now_ns - progress.chunk_sent_ns >= progress.patience_ns:
            progress.patience_ns = min(2 * progress.patience_ns, _PATIENCE_MAX * state.config.election_timeout_ns)
            self._ask(peer, progress)

    def heard(self, peer: str, progress: Progress) -> None:
        """A follower that was silent is back: it is asked at once, however long the patience had grown."""
        state = self._state
        if state.now_ns - progress.heard_ns > state.config.election_timeout_ns:
            progress.patience_ns = state.config.election_timeout_ns
            self._ask(peer, progress)

    def lost(self, snapshot: SnapshotId) -> None:
        """That file cannot be read any more: its transfers take the newest, if that is another one."""
        state = self._state
        if state.role is not Role.LEADER or state.snapshot is None or state.snapshot.id == snapshot:
            return
        for peer, progress in state.progress.items():
            if progress.snapshot == snapshot and progress.pace is Pace.SNAPSHOT:
                self.begin(peer, progress)
            elif progress.snapshot == snapshot:
                progress.snapshot = None  # it will ask again

    def on_reply(self, sender: str, progress: Progress, reply: SnapshotReply) -> None:
        """The receiver says how much it has: send what follows, unless that is on its way."""
        state = self._state
        if progress.snapshot != reply.snapshot or reply.offset > reply.snapshot.size_bytes:
            return
        if progress.chunk_offset is not None:
            if reply.offset <= progress.chunk_offset:
                return  # the answer to an earlier piece, late or repeated; silence will ask again
            self._adapt(progress, state.now_ns - progress.chunk_sent_ns)
        progress.patience_ns = state.config.election_timeout_ns
        progress.chunk_sent_ns = state.now_ns
        progress.chunk_offset = reply.offset
        if reply.offset < reply.snapshot.size_bytes:
            state.effects.append(SendChunk(sender, state.term, reply.snapshot, reply.offset, progress.chunk_bytes))

    def _ask(self, peer: str, progress: Progress) -> None:
        state = self._state
        assert progress.snapshot is not None, "a snapshot is under way"
        progress.chunk_sent_ns, progress.chunk_offset = state.now_ns, None
        state.send(peer, SnapshotChunk(state.term, progress.snapshot, 0, b""))

    def _adapt(self, progress: Progress, took_ns: int) -> None:
        """Keep a piece well below a heartbeat, so that the link's heartbeats come in time."""
        config = self._state.config
        largest = config.snapshot_chunk_bytes
        if took_ns > config.election_timeout_ns // _SLOW_SHARE:
            progress.chunk_bytes = max(min(CHUNK_BYTES_MIN, largest), progress.chunk_bytes // 2)
        elif took_ns < config.election_timeout_ns // _QUICK_SHARE:
            progress.chunk_bytes = min(largest, progress.chunk_bytes * 2)


def in_transfer(state: State, snapshot: SnapshotId) -> bool:
    """Whether a follower is being sent this snapshot: its file must stay."""
    return any(progress.snapshot == snapshot for progress in state.progress.values())
