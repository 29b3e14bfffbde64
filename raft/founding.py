"""How a cluster begins, and how a replica without a log comes in (DESIGN.md §3, Identity).

Owns: who may write entry 1, when, and how the others get it; what an empty or replaced replica asks for.
Must not know: elections beyond asking for one, or how the leader answers a request to join (membership).

Invariants: at most one entry 1 exists for the stores it names.  Only the first of the initial voters writes it,
and only after every other one answered, to the store that it has now, that it is empty.  An empty
replica takes no part in votes, and in replication only when somebody said that a configuration names its very
store: a wiped disk has forgotten its votes (§5.2) and its acknowledgements (§5.3), so it comes back under a store id
of its own, and learns before it votes.
"""

from __future__ import annotations

import msgspec

from raft.configuration import Standing
from raft.effects import Role
from raft.messages import (
    CONFIGURATION,
    Admission,
    AppendReply,
    Configuration,
    Entry,
    Founding,
    FoundingAnswer,
    FoundingQuestion,
    JoinRequest,
    decode_configuration,
    encode_configuration,
)
from raft.quorum import jointly_won
from raft.state import NEVER_NS, State

FIRST_TERM = 1
FIRST_GENERATION = 1


class Foundings:
    """The rules of entry 1, for empty and for formed replicas."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._stores: dict[str, str] = {}
        self._formed: dict[str, bool] = {}
        self._holders: dict[str, bool] | None = None
        self._ask_at_ns = state.now_ns

    @property
    def ask_deadline_ns(self) -> int:
        """When to ask again; never for a store that a configuration names, or has named."""
        state = self._state
        configuration = state.configuration
        if configuration is None:
            return self._ask_at_ns
        if state.standing is not Standing.OUTSIDE or state.config.store_id in configuration.retired:
            return NEVER_NS
        return self._ask_at_ns

    @property
    def joining(self) -> bool:
        """Whether this replica found others that are a cluster, and waits for them to take it in."""
        state = self._state
        return state.standing is Standing.OUTSIDE or (state.standing is Standing.EMPTY and bool(self._formed))

    def ask(self) -> None:
        """Ask every peer: one that is empty too for its store, one that is formed to be taken in."""
        state = self._state
        self._ask_at_ns = state.now_ns + state.config.beat_ns
        store = state.config.store_id
        for peer in state.peers:
            joins = state.configuration is not None or peer in self._formed or not state.config.founds
            state.send(peer, JoinRequest(store) if joins else FoundingQuestion(store))
        self._found_if_all_are_empty()

    def on_question(self, sender: str, question: FoundingQuestion | JoinRequest) -> bool:
        """Answer a peer without a log; returns whether it is for the leader to take it in."""
        state = self._state
        store, configuration = question.store_id, state.configuration
        if configuration is None:
            state.send(sender, FoundingAnswer(state.config.store_id, state.config.founds, store))
            return False
        if state.members.get(sender) == store:
            state.send(sender, self._first_entry_for(sender, store) or Admission(store))
            return False
        state.send(sender, FoundingAnswer(state.config.store_id, False, store))
        return isinstance(question, JoinRequest)

    def on_answer(self, sender: str, answer: FoundingAnswer) -> None:
        """Note whether a peer is empty; one that is not forbids founding until it says otherwise.

        That it is empty counts only as an answer to the store that is here now: a word to the one that was here before
        may have been on its way while the cluster was founded, and this disk lost.
        """
        state = self._state
        if state.configuration is not None:
            return
        if answer.empty:
            if answer.asker != state.config.store_id:
                return
            self._formed.pop(sender, None)
            self._stores[sender] = answer.store_id
            self._found_if_all_are_empty()
        else:
            self._stores.pop(sender, None)
            self._formed[sender] = True

    def on_admission(self, admission: Admission) -> None:
        """A configuration names this store: the log may come, from its first entry or from a snapshot."""
        if admission.store_id == self._state.config.store_id:
            self._state.invited = True

    def on_offer(self, sender: str, offer: Founding) -> None:
        """Take entry 1 if it is one, names this store, and nothing is here yet; acknowledge it once durable."""
        state = self._state
        if state.configuration is None:
            if not self._is_for_us(sender, offer.entry):
                return
            self._adopt(offer.entry)
        elif state.log.first_index > 1 or state.log.entry(1) != offer.entry:
            return
        state.send(sender, AppendReply(FIRST_TERM, True, 1, 0, 0, 0), after_persist=True)

    def on_holder(self, store: str) -> bool:
        """The founder learns which store holds entry 1; returns whether it should stand for election now.

        With a majority able to vote there is no leader to wait for: the first election need not
        wait for a time-out.
        """
        state = self._state
        if self._holders is None or state.durability.index < 1:
            return False
        self._holders[store] = True
        if not jointly_won(state.halves, self._holders):
            return False
        self._holders = None
        return state.role is Role.FOLLOWER and state.leader is None and state.term == FIRST_TERM

    def _first_entry_for(self, sender: str, store: str) -> Founding | None:
        """Entry 1, if it is still here and names that very store."""
        log = self._state.log
        if log.first_index > 1 or not len(log):
            return None
        entry = log.entry(1)
        return Founding(entry) if decode_configuration(entry.data).voters.get(sender) == store else None

    def _found_if_all_are_empty(self) -> None:
        state = self._state
        peers = state.config.peers
        if state.configuration is not None or not state.config.founds:
            return
        if state.id != peers[0] or len(self._stores) < len(peers) - 1:
            return
        stores = {**self._stores, state.id: state.config.store_id}
        voters = {peer: stores[peer] for peer in peers}
        configuration = Configuration(state.dice.token(16).hex(), FIRST_GENERATION, voters)
        entry = Entry(FIRST_TERM, 1, CONFIGURATION, encode_configuration(configuration))
        self._adopt(entry)
        self._holders = {}
        for peer in state.peers:
            state.send(peer, Founding(entry), after_persist=True)

    def _adopt(self, entry: Entry) -> None:
        state = self._state
        state.become(Role.FOLLOWER, None, "entry 1 founds the cluster", term=max(state.term, FIRST_TERM))
        state.append((entry,))

    def _is_for_us(self, sender: str, entry: Entry) -> bool:
        if (entry.term, entry.index, entry.kind) != (FIRST_TERM, 1, CONFIGURATION):
            return False
        try:
            configuration = decode_configuration(entry.data)
        except msgspec.MsgspecError:
            return False
        ours = configuration.voters.get(self._state.id)
        return sender in configuration.voters and ours == self._state.config.store_id
