"""The follower's side of log replication (§5.3).

Owns: accepting, refusing and truncating.  Must not know: what the leader does with the answer.

Invariants: Log Matching, an Append is accepted only where the entry before it is the same here; entries are
removed only by a real conflict, never because a message was old or short; committed ones never.
"""

from __future__ import annotations

import msgspec

from raft.effects import Role
from raft.errors import ProtocolViolation
from raft.messages import CONFIGURATION, Append, AppendReply, Entry, decode_configuration
from raft.replication import commit
from raft.state import State


def check(message: Append) -> None:
    """Refuse what no leader sends, before anything changes.  Raises ProtocolViolation."""
    entries = message.entries
    if message.term < 1 or message.prev_term > message.term:
        raise ProtocolViolation("an Append whose terms cannot be", term=message.term, prev_term=message.prev_term)
    if not entries:
        return
    first = message.prev_index + 1
    if [entry.index for entry in entries] != list(range(first, first + len(entries))):
        raise ProtocolViolation("an Append whose indexes have gaps", first=first, count=len(entries))
    terms = [entry.term for entry in entries]
    if terms[0] < message.prev_term or terms[-1] > message.term or terms != sorted(terms):
        raise ProtocolViolation("an Append whose entries' terms fall or exceed its own", first=first)
    for entry in [entry for entry in entries if entry.kind == CONFIGURATION]:
        try:
            decode_configuration(entry.data)
        except msgspec.MsgspecError as error:
            raise ProtocolViolation(f"an Append with a configuration of another kind: {error}", first=first) from None


def on_append(state: State, sender: str, message: Append) -> None:
    """Answer one Append of the current or an earlier term (a later one was adopted before)."""
    if message.term < state.term:
        state.send(sender, _refusal(state, message, 0, state.log.last_index + 1))  # tells a deposed leader so
        return
    follow(state, sender, message.term)
    if message.prev_index < state.log.base_index:
        message = _behind_base(state, message)
    if not state.log.matches(message.prev_index, message.prev_term):
        state.send(sender, _conflict(state, message))
        return
    last = message.prev_index + len(message.entries)
    if message.entries:
        _take(state, message.entries)
        match = last
    else:
        match = min(last, state.durability.index)
    # With entries: promised only when all earlier writes are on disk.  Without: only what is there already,
    # at once, so that a slow disk does not look like a lost follower.
    reply = AppendReply(state.term, True, match, 0, 0, message.sequence)
    state.send(sender, reply, after_persist=match > state.durability.index)
    if min(message.commit_index, last) > state.commit_index:
        commit(state, min(message.commit_index, last))


def follow(state: State, sender: str, term: int) -> None:
    """The leader of the current term was heard (§5.2).  Raises ProtocolViolation when there are two."""
    if state.role is Role.LEADER or state.leader not in (None, sender):
        raise ProtocolViolation("a second leader in one term", term=term, sender=sender, leader=state.leader)
    state.become(Role.FOLLOWER, sender, f"{sender} leads this term")
    state.leader_heard_ns = state.now_ns
    state.arm_election()


def _behind_base(state: State, message: Append) -> Append:
    """The same Append without what is compacted here: that is committed, so the leader's log has it too (§7)."""
    base = state.log.base
    last = message.prev_index + len(message.entries)
    if (
        last >= base.index > message.prev_index
        and message.entries[base.index - message.prev_index - 1].term != base.term
    ):
        raise ProtocolViolation("an Append that contradicts a committed entry", index=base.index)
    entries = message.entries[base.index - message.prev_index :]
    return Append(message.term, base.index, base.term, message.commit_index, message.sequence, entries)


def _take(state: State, entries: tuple[Entry, ...]) -> None:
    """Append what is new; remove our suffix only from the first entry that really conflicts."""
    log = state.log
    end = entries[-1]
    if entries[0].index > log.last_index:
        state.append(entries)
        return
    if log.matches(end.index, end.term):
        return  # a repeated message: by Log Matching all of it is here
    offset = 0
    while offset < len(entries) and log.matches(entries[offset].index, entries[offset].term):
        offset += 1
    conflict = entries[offset].index
    if conflict <= state.commit_index:
        raise ProtocolViolation("an Append that contradicts a committed entry", index=conflict)
    if conflict <= log.last_index:
        state.truncate(conflict)
    state.append(entries[offset:])


def _conflict(state: State, message: Append) -> AppendReply:
    """Say where the logs may agree: the conflicting term's first index, or the end of ours (§5.3)."""
    log = state.log
    if message.prev_index > log.last_index:
        return _refusal(state, message, 0, log.last_index + 1)
    term = log.term_at(message.prev_index)
    return _refusal(state, message, term, log.first_index_of_term(message.prev_index))


def _refusal(state: State, message: Append, hint_term: int, hint_index: int) -> AppendReply:
    return AppendReply(state.term, False, message.prev_index, hint_term, hint_index, message.sequence)
