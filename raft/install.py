"""Snapshots on the side that gets one (§7, Figure 13; dissertation §5.1).

Owns: when a piece is wanted, what a complete snapshot replaces, and what is kept.  Must not know: files, or how a
snapshot is cut into pieces.

Invariants: what is committed here is never taken back by an older snapshot; a log that holds the snapshot's last
entry keeps all its entries, which may be promised to a leader (§7: "retain log entries following it").
"""

from __future__ import annotations

from raft.effects import Role, TakeChunk
from raft.errors import ProtocolViolation
from raft.events import ChunkTaken, SnapshotReceived
from raft.follower import follow
from raft.messages import AppendReply, SnapshotChunk, SnapshotReply
from raft.refetch import take_back, wanted
from raft.replication import commit
from raft.state import State


def check(chunk: SnapshotChunk) -> None:
    """Refuse what no leader sends, before anything changes.  Raises ProtocolViolation."""
    snapshot = chunk.snapshot
    if chunk.term < 1 or snapshot.index < 1 or not 1 <= snapshot.term <= chunk.term:
        raise ProtocolViolation("a snapshot whose position cannot be", index=snapshot.index, term=snapshot.term)
    if chunk.offset + len(chunk.data) > snapshot.size_bytes:
        raise ProtocolViolation("a piece behind the end of its snapshot", offset=chunk.offset)


def on_chunk(state: State, sender: str, chunk: SnapshotChunk) -> None:
    """Answer one piece of the current or an earlier term (a later one was adopted before)."""
    if chunk.term < state.term:
        state.send(sender, SnapshotReply(state.term, chunk.snapshot, 0))  # tells a deposed leader so
        return
    follow(state, sender, chunk.term)
    if wanted(state, chunk.snapshot.index) or not _is_here(state, chunk.snapshot.index, chunk.snapshot.term):
        state.effects.append(TakeChunk(chunk))


def on_chunk_taken(state: State, event: ChunkTaken) -> None:
    """A piece is written down, or was not wanted: tell the leader where to go on."""
    if state.role is Role.FOLLOWER and state.leader is not None:
        state.send(state.leader, SnapshotReply(state.term, event.snapshot, event.offset))


def on_received(state: State, event: SnapshotReceived) -> bool:
    """A whole snapshot is here: what it stands for is committed, whoever leads by now.

    Returns whether the state machine's state is replaced by it.
    """
    snapshot = event.snapshot
    if take_back(state, snapshot):
        return True
    if _is_here(state, snapshot.index, snapshot.term):
        return False
    assert state.role is not Role.LEADER, "a leader holds every committed entry (Leader Completeness)"
    state.become(Role.FOLLOWER, state.leader if state.role is Role.FOLLOWER else None, "a snapshot was installed")
    state.replace_log(snapshot)
    _acknowledge(state, snapshot.index)
    return True


def _is_here(state: State, index: int, term: int) -> bool:
    """Whether the log holds what a snapshot stands for; it is committed then, and the leader told."""
    if index > state.commit_index:
        if not state.log.matches(index, term):
            return False
        commit(state, index)
    _acknowledge(state, state.commit_index)
    return True


def _acknowledge(state: State, index: int) -> None:
    """By Leader Completeness the leader has all that is committed here: it may send entries from there on."""
    if state.role is Role.FOLLOWER and state.leader is not None:
        reply = AppendReply(state.term, True, index, 0, 0, 0)
        state.send(state.leader, reply, after_persist=index > state.durability.index)
