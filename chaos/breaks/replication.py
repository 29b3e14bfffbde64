"""Deliberate bugs of replication, snapshots and applying (raft.replication, raft.follower, raft.state)."""

from __future__ import annotations

from msgspec.structs import replace

from raft.core import Core
from raft.effects import Send
from raft.messages import Append, AppendReply, Configuration, Message, SnapshotHeader, encode_configuration
from raft.quorum import jointly_agreed
from raft.replication import Replication, commit
from raft.state import State

_send = State.send
_describe = Core.describe_snapshot


def advance_commit(self: Replication) -> None:
    """`commit-earlier-term-by-count`: copies are counted, whatever term the entry is of (Figure 8)."""
    state = self._state
    held = {progress.store: progress.match for progress in state.progress.values()}
    held[state.config.store_id] = state.durability.index
    index = jointly_agreed(state.halves, held)
    if index > state.commit_index:
        commit(state, index)
        self.commit_deadline_ns = min(self.commit_deadline_ns, state.now_ns + state.config.beat_ns // 4)


def send(self: State, to: str, message: Message, *, after_persist: bool = False) -> None:
    """`ack-before-sync`: nothing waits for the disk."""
    _send(self, to, message, after_persist=after_persist)
    self.effects[-1] = Send(to, message, after_persist=False)


def conflict_without_hint(state: State, message: Append) -> AppendReply:
    """`lost-conflict-hint`: the refusal names no term, so the leader goes back one entry at a time."""
    return AppendReply(state.term, False, message.prev_index, 0, message.prev_index, message.sequence)


def describe_without_voters(self: Core, index: int) -> SnapshotHeader:
    """`snapshot-without-configuration`: who votes is not in the snapshot."""
    header = _describe(self, index)
    configuration = self.configuration
    assert configuration is not None, "who has applied something has a configuration"
    nobody = Configuration(configuration.cluster_id, configuration.generation, {"n0": "0" * 32})
    return replace(header, configuration=encode_configuration(nobody))
