"""One member of the explored cluster: its core, its disk, its writes in flight, and what it has promised.

Owns: what one event does to one member, and what must hold of a member alone.  Must not know: the other
members' states, how messages travel, or which states are visited.

A crash loses the writes in flight, and what waited for them.  Being down is not a state: nothing reaches a member
that is down, so a crash and its restart are one event, and what should arrive between is delivered later or never.
"""

from __future__ import annotations

from msgspec import Struct
from msgspec.structs import replace

from chaos.exhaustive.timeless import NAMES, SELF, STORES, T_NS, Frozen, LongestDice, clone, freeze, rest
from raft.core import Core, CoreConfig, Recovered
from raft.effects import Committed, Effect, Persist, Role, RoleChanged, Send
from raft.errors import ProtocolViolation
from raft.events import Event, HandOver, Persisted, Proposal, Proposed, Received, Tick
from raft.log import Log
from raft.messages import (
    CONFIGURATION,
    AppendReply,
    Configuration,
    Entry,
    HardState,
    Message,
    VoteReply,
    VoteRequest,
    encode_configuration,
)

CONFIG = CoreConfig(
    id=SELF, store_id=STORES[SELF], peers=NAMES, election_timeout_ns=T_NS, max_message_bytes=1, max_inflight_messages=2
)
"""One entry a message, so that each step of replication is an event of its own."""

FIRST = Entry(1, 1, CONFIGURATION, encode_configuration(Configuration("c" * 32, 1, STORES)))


class Violated(Exception):
    """An invariant does not hold."""

    def __init__(self, invariant: str, text: str) -> None:
        super().__init__(f"{invariant}: {text}")
        self.invariant = invariant
        self.text = text


class Remembered(Struct, frozen=True):
    """What the rest of the world has seen of a member; no crash takes it back.

    Attributes:
        term: the highest term it spoke of.
        voted: the last vote it gave away: (term, candidate).
        led: the terms it was elected in.
        committed: prefix hashes of all it ever took for committed, from index 1.
        counted: what it committed as a leader: (its term, last index, prefix hash there), the last of each term.
    """

    term: int = 1
    voted: tuple[int, str] = (0, "")
    led: tuple[int, ...] = ()
    committed: tuple[int, ...] = ()
    counted: tuple[tuple[int, int, int], ...] = ()


ELECTED = "a leader was elected"
OVERWRITTEN = "an entry was overwritten"
OVERWRITTEN_IN_FLIGHT = "an entry was overwritten with a write in flight"
LOST = "a crash lost what was not synced"
UNHEARD = "a crash hid that a write was done"
COMMITTED = "a commit index rose"
DEPOSED = "a leader stepped down"
REFUSED = "an Append was refused"


class Member:
    """A member between two events.  Changed by `act`, which is called on a copy."""

    def __init__(self) -> None:
        self.hard_state = HardState(1, None)
        self.disk: tuple[Entry, ...] = (FIRST,)
        self.writes: list[Persist] = []
        self.held: list[tuple[int, str, Message]] = []
        self.remembered = Remembered()
        self.core = self._recovered()
        self.sent: list[tuple[str, Message]] = []
        self.facts: list[str] = []

    def copy(self) -> Member:
        """Another member in the same state."""
        twin = Member.__new__(Member)
        twin.hard_state, twin.disk, twin.remembered = self.hard_state, self.disk, self.remembered
        twin.writes, twin.held = self.writes[:], self.held[:]
        twin.core = clone(self.core)
        twin.sent, twin.facts = [], []
        return twin

    def frozen(self) -> Frozen:
        """Everything on which the future depends, and what the invariants remember."""
        writes = [(write.write, write.hard_state, write.entries) for write in self.writes]
        remembered = self.remembered
        seen = (remembered.term, remembered.voted, remembered.led, remembered.committed, remembered.counted)
        return freeze((self.core, self.hard_state, self.disk, writes, self.held, seen))

    # -- events --------------------------------------------------------------------------------

    def receive(self, sender: str, message: Message) -> None:
        """A message arrives."""
        self._step(Received(0, sender, message, STORES[sender]))

    def timeout(self) -> None:
        """The leader was silent for the election timeout."""
        self._step(Tick(2 * T_NS))

    def silence(self) -> None:
        """The leader was silent long enough for somebody else's candidacy, and not for an own one."""
        self._step(Tick(T_NS))

    def announce(self) -> None:
        """A commit that no message carried is told."""
        self._step(Tick(T_NS // 16))

    def beat(self) -> None:
        """The leader's heartbeat is due."""
        self._step(Tick(T_NS // 4))

    def resign(self) -> None:
        """No majority answered the leader for an election timeout."""
        self._step(Tick(T_NS))

    def propose(self) -> None:
        """Somebody wants a command replicated."""
        self._step(Proposed(0, (Proposal(1, b"x"),)))

    def hand_over(self, to: str) -> None:
        """Somebody wants another member to lead."""
        self._step(HandOver(0, 1, to))

    def persist(self) -> None:
        """The oldest write in flight is durable, and the core hears of it."""
        write = self._write()
        last = self.disk[-1]
        ready = [(to, message) for number, to, message in self.held if number <= write.write]
        self.held = [each for each in self.held if each[0] > write.write]
        self._step(Persisted(0, write.write, last.term, last.index))
        for to, message in ready:
            self._release(to, message)

    def crash(self, *, written: bool = False) -> None:
        """The power goes and comes back; `written`: the oldest write had reached the disk, and nobody heard of it."""
        if written:
            self._write()
            self.facts.append(UNHEARD)
        if self.writes:
            self.facts.append(LOST)
        self.writes, self.held = [], []
        self.core = self._recovered()
        if self.core.term < self.remembered.term:
            raise Violated("term-persistence", f"it spoke of term {self.remembered.term}, and is in {self.core.term}")

    def _recovered(self) -> Core:
        core = Core(CONFIG, Recovered(self.hard_state, self.disk), LongestDice(), 0)
        rest(core, CONFIG)
        return core

    def _write(self) -> Persist:
        write = self.writes.pop(0)
        if write.hard_state is not None:
            self.hard_state = write.hard_state
        if write.entries:
            self.disk = self.disk[: write.entries[0].index - 1] + write.entries
        return write

    # -- effects -------------------------------------------------------------------------------

    def _step(self, event: Event) -> None:
        core = self.core
        led = core.role is Role.LEADER and core.term
        before = core.last_index
        try:
            effects = core.step(event)
        except ProtocolViolation as error:
            raise Violated("no-peer-is-wrong", str(error)) from error
        except AssertionError as error:
            raise Violated("assertion", str(error)) from error
        for effect in effects:
            self._carry_out(effect, before, led)
        rest(core, CONFIG)
        self._renumber()

    def _renumber(self) -> None:
        """Number the writes in flight from 1, as `rest` did in the core."""
        if self.writes and (done := self.writes[0].write - 1):
            self.writes = [replace(write, write=write.write - done) for write in self.writes]
            self.held = [(number - done, to, message) for number, to, message in self.held]

    def _carry_out(self, effect: Effect, before: int, led: int) -> None:
        match effect:
            case Persist():
                if effect.entries and effect.entries[0].index <= before:
                    self.facts.append(OVERWRITTEN_IN_FLIGHT if self.writes else OVERWRITTEN)
                self.writes.append(effect)
            case Send(to=to, message=message, after_persist=waits):
                if waits and self.writes:
                    self.held.append((self.writes[-1].write, to, message))
                else:
                    self._release(to, message)
            case RoleChanged(role=role, term=term):
                self._role_changed(role, term, led)
            case Committed():
                self._committed(effect)
            case _:
                pass

    def _role_changed(self, role: Role, term: int, led: int) -> None:
        if role is Role.LEADER:
            self.facts.append(ELECTED)
            self.remembered = replace(self.remembered, led=(*self.remembered.led, term))
        elif led:
            self.facts.append(DEPOSED)

    def _committed(self, rise: Committed) -> None:
        core, known = self.core, self.remembered
        self.facts.append(COMMITTED)
        told = tuple([core.log.hash_at(index) for index in range(1, rise.last + 1)])
        length = min(len(told), len(known.committed))
        if told[:length] != known.committed[:length]:
            raise Violated("state-machine-safety", f"another entry is committed here up to {rise.last} than before")
        if core.role is Role.LEADER:
            if core.log.term_at(rise.last) != core.term:
                raise Violated("commit-own-term", f"entry {rise.last} was committed by counting, and is of an old term")
            counted = tuple([each for each in known.counted if each[0] != core.term])
            known = replace(known, counted=(*counted, (core.term, rise.last, told[-1])))
        self.remembered = replace(known, committed=max(told, known.committed, key=len))

    # -- promises ------------------------------------------------------------------------------

    def _release(self, to: str, message: Message) -> None:
        """A message leaves: what it promises must be on disk (Figure 2: persistent state)."""
        self.sent.append((to, message))
        match message:
            case VoteRequest(pre=True) | VoteReply(pre=True):
                return
            case VoteRequest(term=term):
                self._promise(term, SELF)
            case VoteReply(term=term, granted=True):
                self._promise(term, to)
            case AppendReply(accepted=True):
                self._acknowledge(message)
            case _:
                pass
        term = getattr(message, "term", 0)
        if term > self.hard_state.term:
            raise Violated("term-persistence", f"it speaks of term {term}; on disk is {self.hard_state.term}")
        if term > self.remembered.term:
            self.remembered = replace(self.remembered, term=term)
        if isinstance(message, AppendReply) and not message.accepted:
            self.facts.append(REFUSED)

    def _promise(self, term: int, candidate: str) -> None:
        before, voted = self.remembered.voted
        if before == term and voted != candidate:
            raise Violated("vote-once", f"it votes for two candidates in term {term}")
        if self.hard_state != HardState(term, candidate) and self.hard_state.term <= term:
            raise Violated("vote-persistence", f"its vote of term {term} leaves before it is on disk")
        if term > before:
            self.remembered = replace(self.remembered, voted=(term, candidate))

    def _acknowledge(self, reply: AppendReply) -> None:
        """An answer of an earlier term may leave when a newer leader's entry is in memory already, but not on disk."""
        match, log, disk = reply.match_index, self.core.log, self.disk
        current = reply.term == self.core.term and 0 < match <= log.last_index
        if match > len(disk) or (current and disk[match - 1] != log.entry(match)):
            raise Violated("acknowledged-durably", f"it acknowledges {match} before it is on disk")


def durable_hashes(member: Member) -> tuple[int, ...]:
    """Prefix hashes of what the disk holds, from index 1."""
    log = Log(member.disk)
    return tuple([log.hash_at(index) for index in range(1, log.last_index + 1)])
