"""Leader election: pre-vote, votes, stickiness (§5.2, §5.4.1; dissertation §4.2.3, §6.2, §9.6).

Owns: when a replica campaigns, whom it votes for, when it leads.  Must not know: what a leader then
sends (replication), or how reads are confirmed.

Invariants: Election Safety, at most one leader a term (one durable vote a voter and term, and majorities
intersect); Leader Completeness, only a log as up to date as a majority's is elected.
"""

from __future__ import annotations

from raft.effects import Role
from raft.messages import TimeoutNow, VoteReply, VoteRequest
from raft.quorum import jointly_lost, jointly_won, majority
from raft.state import State


class Ballot:
    """The answers to one candidacy or trial candidacy: store → granted."""

    def __init__(self) -> None:
        self.answers: dict[str, bool] = {}


class Elections:
    """The rules of becoming leader; the methods that may decide an election return whether it is won."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._ballot = Ballot()

    def timeout(self) -> None:
        """The leader was silent for the election timeout: try, without disturbing anyone (pre-vote, §9.6).

        A trial candidacy raises no term, so a replica that cannot win (cut off, or behind) deposes
        nobody when it returns.
        """
        state = self._state
        state.arm_election()
        if not state.votes:  # it follows whoever leads, and stands for nothing (dissertation §4.2.1)
            state.become(Role.FOLLOWER, None, "no leader was heard within the election timeout")
            return
        if state.disk_stalls():
            return  # its vote could not be kept, and a term it cannot write only stands in the way
        state.become(Role.PRE_CANDIDATE, None, "no leader was heard within the election timeout")
        self._ballot = Ballot()
        self._ballot.answers[state.config.store_id] = True
        self._ask(state.term + 1, pre=True)
        self._count()

    def stand_in(self, sender: str, message: TimeoutNow) -> None:
        """The leader hands over to this replica: stand at once and without a trial (dissertation §3.10).

        A repeated or late message finds another term, or this replica a candidate already.
        """
        state = self._state
        mine = message.term == state.term and state.role is Role.FOLLOWER and state.leader in (None, sender)
        if mine and state.votes and not state.disk_stalls():
            self._campaign(f"{sender} hands its leadership over", transfer=True)

    def _campaign(self, why: str, *, transfer: bool) -> None:
        """Stand for election in a new term, with the own vote first on disk (§5.2)."""
        state = self._state
        state.become(Role.CANDIDATE, None, why, term=state.term + 1, vote=state.id)
        state.arm_election()
        self._ballot = Ballot()
        self._ask(state.term, pre=False, transfer=transfer)

    def _ask(self, term: int, *, pre: bool, transfer: bool = False) -> None:
        log = self._state.log
        request = VoteRequest(term, log.last_index, log.last_term, pre, transfer)
        for peer in self._state.peers:
            self._state.send(peer, request, after_persist=not pre)

    def own_vote_durable(self) -> bool:
        """Count the candidate's own vote, now that a crash cannot undo it; returns whether that elects it."""
        state = self._state
        if state.role is not Role.CANDIDATE or not state.durability.hard_state_durable:
            return False
        self._ballot.answers[state.config.store_id] = True
        return self._count()

    def answer_pre_vote(self, sender: str, request: VoteRequest) -> None:
        """Would this replica vote for the sender in that term?  Changes nothing here (§9.6)."""
        state = self._state
        granted = (
            request.term > state.term
            and not self._sticks(request)
            and self._is_up_to_date(request.last_term, request.last_index)
        )
        term = request.term if granted else state.term
        state.send(sender, VoteReply(term, granted, pre=True))

    def answer_vote(self, sender: str, request: VoteRequest) -> None:
        """Grant or refuse this replica's vote of that term (§5.2, §5.4.1)."""
        state = self._state
        if request.term > state.term and self._sticks(request):
            state.send(sender, VoteReply(state.term, granted=False, pre=False))
            return
        if request.term > state.term:
            state.become(Role.FOLLOWER, None, f"{sender} stands for election in a newer term", term=request.term)
        granted = (
            request.term == state.term
            and state.voted_for in (None, sender)
            and self._is_up_to_date(request.last_term, request.last_index)
        )
        if granted:
            assert state.role is not Role.LEADER, "a leader voted for itself and for nobody else"
            state.vote(sender)
            state.arm_election()
        state.send(sender, VoteReply(state.term, granted, pre=False), after_persist=True)

    def count_reply(self, store: str, reply: VoteReply) -> bool:
        """Count one store's answer, once; returns whether this replica is elected by it."""
        state = self._state
        awaited = Role.PRE_CANDIDATE if reply.pre else Role.CANDIDATE
        asked_term = state.term + 1 if reply.pre else state.term
        if state.role is not awaited or (reply.granted and reply.term != asked_term):
            return False
        answers = self._ballot.answers
        answers[store] = answers.get(store, False) or reply.granted  # an older ballot's late refusal undoes nothing
        return self._count()

    def _count(self) -> bool:
        state, answers = self._state, self._ballot.answers
        if jointly_won(state.halves, answers):
            if state.role is Role.CANDIDATE:
                return True
            self._campaign("a majority would vote for it", transfer=False)
        elif jointly_lost(state.halves, answers):
            state.become(Role.FOLLOWER, state.leader, "a majority refused its vote")
        return False

    def _sticks(self, request: VoteRequest) -> bool:
        """Stickiness: while a leader is heard, nobody helps to depose it (§6; dissertation §4.2.3).

        Protects liveness: a replica that hears others but not the leader cannot disturb a majority that does.
        """
        return not request.transfer and (self._state.role is Role.LEADER or self._state.hears_leader())

    def _is_up_to_date(self, last_term: int, last_index: int) -> bool:
        """§5.4.1: the candidate's log ends in a later term, or in the same term and is at least as long."""
        log = self._state.log
        return (last_term, last_index) >= (log.last_term, log.last_index)

    def lead(self) -> None:
        """Take office; `core` opens the term with a no-op (§8)."""
        state = self._state
        assert state.durability.hard_state_durable, "a leader's term is durable before it leads"
        why = " and ".join([self._counted(half) for half in state.halves])
        state.become(Role.LEADER, state.id, f"elected by {why}")

    def _counted(self, half: tuple[str, ...]) -> str:
        granted = sum([self._ballot.answers.get(store, False) for store in half])
        return f"{granted} of {len(half)} voters (a majority is {majority(len(half))})"
