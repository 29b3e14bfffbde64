"""How a cluster begins: entry 1, written once (DESIGN.md §3, Identity).

Owns: who may write entry 1, when, and how the others get it.  Must not know: elections beyond asking for one.

Invariant: at most one entry 1 exists for the stores it names.  Only the first of the initial voters writes it,
and only after every other one said in this process's life that its store is empty.  An empty
replica takes no part in votes or replication, so a wiped disk cannot forget a vote (§5.2) or an
acknowledged entry: it comes back under a store id that no configuration names.
"""

from __future__ import annotations

import msgspec

from raft.effects import Role
from raft.messages import (
    CONFIGURATION,
    AppendReply,
    Configuration,
    Entry,
    Founding,
    FoundingAnswer,
    FoundingQuestion,
    decode_configuration,
    encode_configuration,
)
from raft.quorum import won
from raft.state import NEVER_NS, State

FIRST_TERM = 1
FIRST_GENERATION = 1


class Foundings:
    """The rules of entry 1, for empty and for formed replicas."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._stores: dict[str, str] = {}
        self._holders: dict[str, bool] | None = None
        self.ask_deadline_ns = NEVER_NS if state.configuration else state.now_ns

    def ask(self) -> None:
        """Empty: ask every peer; a formed one answers with entry 1, an empty one with its store id."""
        state = self._state
        self.ask_deadline_ns = state.now_ns + state.config.beat_ns
        for peer in state.peers:
            state.send(peer, FoundingQuestion(state.config.store_id))
        self._found_if_all_are_empty()

    def on_question(self, sender: str, question: FoundingQuestion) -> None:
        """Answer an empty peer: with entry 1 if it names that very store, else with what we are."""
        state = self._state
        configuration = state.configuration
        if configuration is not None and configuration.voters.get(sender) == question.store_id:
            state.send(sender, Founding(state.log.entry(1)))
            return
        state.send(sender, FoundingAnswer(state.config.store_id, empty=configuration is None))
        if configuration is None:
            self._is_empty(sender, question.store_id)

    def on_answer(self, sender: str, answer: FoundingAnswer) -> None:
        """Note whether a peer is empty; one that is not forbids founding until it says otherwise."""
        if self._state.configuration is not None:
            return
        if answer.empty:
            self._is_empty(sender, answer.store_id)
        else:
            self._stores.pop(sender, None)

    def on_offer(self, sender: str, offer: Founding) -> None:
        """Take entry 1 if it is one, names this store, and nothing is here yet; acknowledge it once durable."""
        state = self._state
        if state.configuration is None:
            if not self._is_for_us(sender, offer.entry):
                return
            self._adopt(offer.entry)
        elif state.log.entry(1) != offer.entry:
            return
        state.send(sender, AppendReply(FIRST_TERM, True, 1, 0, 0, 0), after_persist=True)

    def on_holder(self, sender: str) -> bool:
        """The founder learns who holds entry 1; returns whether it should stand for election now.

        With a majority able to vote there is no leader to wait for: the first election need not
        wait for a time-out.
        """
        state = self._state
        if self._holders is None or state.durability.index < 1:
            return False
        self._holders[sender] = True
        if not won(len(self._holders), len(state.voters)):
            return False
        self._holders = None
        return state.role is Role.FOLLOWER and state.leader is None and state.term == FIRST_TERM

    def _is_empty(self, sender: str, store_id: str) -> None:
        self._stores[sender] = store_id
        self._found_if_all_are_empty()

    def _found_if_all_are_empty(self) -> None:
        state = self._state
        peers = state.config.peers
        if state.configuration is not None or state.id != peers[0] or len(self._stores) < len(peers) - 1:
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
        state.adopt_configuration(entry)
        self.ask_deadline_ns = NEVER_NS

    def _is_for_us(self, sender: str, entry: Entry) -> bool:
        if (entry.term, entry.index, entry.kind) != (FIRST_TERM, 1, CONFIGURATION):
            return False
        try:
            configuration = decode_configuration(entry.data)
        except msgspec.MsgspecError:
            return False
        ours = configuration.voters.get(self._state.id)
        return sender in configuration.voters and ours == self._state.config.store_id
