"""Deliberate bugs of elections, of the office of a leader, and of what makes a voter (raft.election, raft.store)."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b

from msgspec.structs import replace

from raft.election import Elections
from raft.messages import Base, Entry, HardState, VoteReply, VoteRequest
from raft.protocols import Dice
from raft.replication import Replication
from raft.store.identity import Identity, new_identity
from raft.store.log_store import LogStore

_answer_vote = Elections.answer_vote
_lead = Elections.lead
_append_frame = LogStore._append_frame
_new_identity = new_identity


def answer_vote(self: Elections, sender: str, request: VoteRequest) -> None:
    """`double-vote`: whoever asks in the present term gets a vote, also the second one."""
    state = self._state
    second = request.term == state.term and state.voted_for not in (None, sender)
    if second and self._is_up_to_date(request.last_term, request.last_index):
        state.send(sender, VoteReply(state.term, granted=True, pre=False))
        return
    _answer_vote(self, sender, request)


def append_frame(self: LogStore, hard_state: HardState, entries: Sequence[Entry], base: Base | None) -> int:
    """`vote-not-persisted`: the term is written, and the vote is not."""
    return _append_frame(self, HardState(hard_state.term, None), entries, base)


def timeout(self: Elections) -> None:
    """`no-pre-vote`: the term rises before anybody has said that this replica could win."""
    state = self._state
    state.arm_election()
    if state.votes and not state.disk_stalls():
        self._campaign("no leader was heard within the election timeout", transfer=False)


def lead_from_the_known(self: Elections) -> None:
    """`truncate-committed`: a new leader drops what it does not know to be committed."""
    state = self._state
    known = max(state.commit_index, state.configurations.index, state.log.base_index)
    if state.log.last_index > known:
        state.truncate(known + 1)
    _lead(self)


def check_office(self: Replication) -> None:
    """`no-check-quorum`: a leader whom nobody answers goes on leading."""
    self._office_deadline_ns = self._quorum_deadline_ns()
    if self._state.now_ns >= self._office_deadline_ns:
        self._office_deadline_ns = self._state.now_ns + self._state.config.election_timeout_ns


def identity_of_the_node(*, node: str, cluster: str, inode: str, dice: Dice, replaces: str = "") -> Identity:
    """`wiped-replica-votes`: an empty disk gets the id that the lost one had, so it counts as the voter it was."""
    fresh = _new_identity(node=node, cluster=cluster, inode=inode, dice=dice, replaces=replaces)
    return _sealed(fresh, blake2b(node.encode(), digest_size=16).hexdigest())


def _sealed(identity: Identity, store: str) -> Identity:
    changed = replace(identity, store=store)
    return replace(changed, crc32c=changed.seal())
