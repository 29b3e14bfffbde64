"""Comparing the replicas' states, and what follows when one differs.

Owns: who tells whom which digest, when a state counts as diverged, when writes halt.
Must not know: what a digest is of, how a state is fetched anew (refetch), or what applying does.

Every replica works out a digest of its state at the same indexes and tells the others (`DigestReport`).  What a store's
state was at an index is a fact that does not change, so everybody judges for itself by what it has heard, and two
judges never contradict each other: they only know more or less.

    a majority of the voters agrees with us   all is well
    a majority agrees, on another digest      we diverged: a leader hands over to one of them, then refetches its state
    voters differ, and no majority agrees     nobody knows who is right: the leader takes no proposals

Judging needs nothing of the state itself, so one that is wrong cannot judge wrongly.  Digests are of one way of working
them out each (`messages.Digest`): other versions of the program are not compared.
"""

from __future__ import annotations

from raft.effects import Diverged, Role, Split, TakeDigest
from raft.events import Digested
from raft.messages import DigestReport
from raft.quorum import jointly_won
from raft.state import NEVER_NS, State
from raft.transfer import Transfer

KEPT = 8
"""Digests remembered of each store: those of the highest indexes."""
_ASK_TIMEOUTS = 8
"""Who has not said its digest is asked again after so many election timeouts."""


class Digests:
    """What is known of the states of all replicas.

    `ask_deadline_ns`: when those are asked again that did not answer; `NEVER_NS` while all did.
    """

    def __init__(self, state: State, transfer: Transfer) -> None:
        self._state = state
        self._transfer = transfer
        self._told: dict[str, dict[int, str]] = {}
        self._judged = 0
        self._split = False
        self._holders: tuple[str, ...] = ()
        self.ask_deadline_ns = NEVER_NS

    @property
    def newest(self) -> tuple[int, str]:
        """Index and digest of the own state when it was last worked out; (0, "") before."""
        own = self._told.get(self._state.config.store_id)
        return max(own.items()) if own else (0, "")

    @property
    def split(self) -> bool:
        """Whether voters differ and no majority agrees, as far as is known here."""
        return self._split

    def restored(self) -> None:
        """The own state is another one now: what was said of the one before is void."""
        self._told.pop(self._state.config.store_id, None)
        self._holders = ()

    # -- telling -------------------------------------------------------------------------------

    def on_digested(self, event: Digested) -> None:
        """Our own digest: tell everybody, and ask for theirs."""
        state = self._state
        if state.diverged:
            return  # of a state that is given up
        self._note(state.config.store_id, event.index, event.digest)
        self._tell(list(state.peers), event.index, event.digest)
        self._judge(event.index)

    def on_report(self, sender: str, store: str, report: DigestReport) -> None:
        """Somebody's digest: compare it, and answer with ours."""
        state = self._state
        if state.members.get(sender) != store:
            return
        self._note(store, report.index, report.digest)
        mine = self._told.get(state.config.store_id, {}).get(report.index)
        if report.asks and mine is not None:
            state.send(sender, DigestReport(report.index, mine, asks=False))
        elif report.asks and state.applied_index == report.index and not state.diverged:
            state.effects.append(TakeDigest(report.index))  # a restored state passed over it
        self._judge(report.index)

    def ask_again(self) -> None:
        """Tell our newest digest once more to those whose own is not known: messages may be lost.

        While no majority agrees, what is applied now is compared as well: nothing is written, so everybody gets there,
        also who has no digest of the earlier index because it restarted or installed a snapshot since.
        """
        state, (index, digest) = self._state, self.newest
        self.ask_deadline_ns = NEVER_NS
        missing = [peer for peer in state.peers if index not in self._told.get(state.members[peer], {})]
        if index and missing:
            self._tell(missing, index, digest)
        if self._split:
            self._judge(self._judged)  # the voters may be others by now
        if self._split and index < state.applied_index and not state.diverged:
            state.effects.append(TakeDigest(state.applied_index))

    def _tell(self, peers: list[str], index: int, digest: str) -> None:
        state = self._state
        for peer in peers:
            state.send(peer, DigestReport(index, digest, asks=True))
        if peers:
            self.ask_deadline_ns = state.now_ns + _ASK_TIMEOUTS * state.config.election_timeout_ns

    def _note(self, store: str, index: int, digest: str) -> None:
        known = self._told.setdefault(store, {})
        known[index] = digest
        while len(known) > KEPT:
            del known[min(known)]
        if len(self._told) > 2 * len(self._state.members):
            members = [self._state.config.store_id, *self._state.members.values()]
            self._told = {each: told for each, told in self._told.items() if each in members}

    # -- judging -------------------------------------------------------------------------------

    def _judge(self, index: int) -> None:
        """Compare what is known of the states at `index`."""
        state = self._state
        voters = {store: self._name(store) for half in state.halves for store in half}
        told = {store: self._told.get(store, {}).get(index, "") for store in sorted(voters)}
        agreed = next((one for one in sorted(dict.fromkeys(told.values())) if one and self._wins(one, told)), "")
        mine = self._told.get(state.config.store_id, {}).get(index, "")
        if agreed and comparable(mine, agreed) and mine != agreed and not state.diverged:
            self._holders = tuple(name for store, name in voters.items() if told[store] == agreed)
            state.diverged = True
            state.effects.append(Diverged(index, mine, agreed, self._holders))
        split = not agreed and _differ(list(told.values()))
        news = index > self._judged and (split or agreed)  # one digest alone says nothing
        if news or index == self._judged:
            self._note_split(index, split, {voters[store]: one for store, one in told.items() if one})

    def _wins(self, digest: str, told: dict[str, str]) -> bool:
        return jointly_won(self._state.halves, {store: one == digest for store, one in told.items()})

    def _name(self, store: str) -> str:
        return next((name for name, each in self._state.members.items() if each == store), store[:8])

    def _note_split(self, index: int, split: bool, digests: dict[str, str]) -> None:
        self._judged = index
        if split:
            self.ask_deadline_ns = self._state.now_ns + _ASK_TIMEOUTS * self._state.config.election_timeout_ns
            self._state.effects.append(Split(index, tuple(sorted(digests.items()))))
        elif self._split:
            self._state.effects.append(Split(index, ()))
        self._split = split

    # -- acting --------------------------------------------------------------------------------

    @property
    def refuses(self) -> str:
        """The code with which a leader refuses proposals now, "" while it takes them."""
        if self._state.diverged:
            return "handing-over"
        return "state-diverged" if self._split else ""

    def advance(self) -> None:
        """A leader whose state diverged hands over to a voter whose state is the agreed one."""
        state = self._state
        if state.diverged and state.role is Role.LEADER:
            self._transfer.prefer(self._holders or None)


def comparable(one: str, other: str) -> bool:
    """Whether two digests were worked out in the same way; "" stands for none."""
    return bool(one) and bool(other) and one.partition(":")[0] == other.partition(":")[0]


def _differ(digests: list[str]) -> bool:
    """Whether any two of them can be compared and are not the same."""
    ways: dict[str, str] = {}
    return any(one and ways.setdefault(one.partition(":")[0], one) != one for one in digests)
