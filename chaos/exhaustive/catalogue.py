"""Members' states by number; each local transition is computed once.

Owns: which states are the same, and what each event makes of each.  Must not know: the other members.

A step of a core takes a hundred times longer than looking it up, and three members come to a million states together
by few thousand of their own.  A state and its mirror image share one core: what is not known of one is
worked out on the other.
"""

from __future__ import annotations

from msgspec import Struct

from chaos.exhaustive.invariants import View, view_of
from chaos.exhaustive.member import Member, Violated
from chaos.exhaustive.scopes import Scope
from chaos.exhaustive.timeless import BEFORE, NEXT, Frozen, mirrored
from raft.effects import Role
from raft.messages import COMMAND, Message
from raft.state import NEVER_NS

Event = tuple[str, int, int]
"""What happens to one member: its name; for `receive` how far the sender is on the ring, and the message's number."""

_WHO = {1: NEXT, 2: BEFORE}


class Outcome(Struct, frozen=True):
    """What an event leads to: the state, the messages to the next member and to the one before, what came about."""

    state: int
    to_next: tuple[int, ...]
    to_before: tuple[int, ...]
    facts: tuple[str, ...]
    violated: Violated | None = None


class Catalogue:
    """All members' states seen so far."""

    def __init__(self, scope: Scope) -> None:
        self._scope = scope
        self._numbers: dict[Frozen, int] = {}
        self._members: list[Member | None] = []
        self._twins: list[int] = []
        self._events: list[tuple[Event, ...] | None] = []
        self._outcomes: dict[tuple[int, Event], Outcome | None] = {}
        self._message_numbers: dict[Message, int] = {}
        self.messages: list[Message] = []
        self.views: list[View] = []
        self.steps = 0

    def __len__(self) -> int:
        return len(self._numbers)

    def add(self, member: Member) -> int:
        """The number of this state; a new one is kept."""
        frozen = member.frozen()
        known = self._numbers.get(frozen)
        if known is not None:
            return known
        image = mirrored(frozen)
        number = self._new(frozen, member, view_of(member))
        if image == frozen:
            self._twins.append(number)
        else:
            self._twins.append(number + 1)
            self._new(image, None, self.views[number])
            self._twins.append(number)
        return number

    def _new(self, frozen: Frozen, member: Member | None, view: View) -> int:
        number = self._numbers[frozen] = len(self._members)
        self._members.append(member)
        self._events.append(None)
        self.views.append(view)
        return number

    def twin(self, number: int) -> int:
        """The state's mirror image."""
        return self._twins[number]

    def events(self, number: int) -> tuple[Event, ...]:
        """What may happen to a member in this state by itself."""
        known = self._events[number]
        if known is None:
            member = self._members[number] or self._members[self._twins[number]]
            assert member is not None, "one of two images has a core"
            found: list[Event] = [(name, 0, 0) for name in _possible(member, self._scope)]
            if self._scope.hands_over and member.core.role is Role.LEADER and not member.core._transfer.closes_log:
                found += [("hand over", 1, 0), ("hand over", 2, 0)]
            known = self._events[number] = tuple(found)
        return known

    def outcome(self, number: int, event: Event) -> Outcome | None:
        """What the event makes of the state; None when that is outside the scope."""
        key = (number, event)
        if key in self._outcomes:
            return self._outcomes[key]
        if self._members[number] is None:
            name, sender, message = event
            found = self._mirrored(self.outcome(self._twins[number], (name, sender and 3 - sender, message)))
        else:
            found = self._work_out(number, event)
        self._outcomes[key] = found
        return found

    def _mirrored(self, outcome: Outcome | None) -> Outcome | None:
        if outcome is None:
            return None
        state = self._twins[outcome.state] if outcome.violated is None else outcome.state
        return Outcome(state, outcome.to_before, outcome.to_next, outcome.facts, outcome.violated)

    def _work_out(self, number: int, event: Event) -> Outcome | None:
        self.steps += 1
        held = self._members[number]
        assert held is not None, "a mirror image has no core"
        member = held.copy()
        violated = None
        try:
            self._happen(member, event)
        except Violated as error:
            violated = error
        if member.core.term > self._scope.terms_max:
            return None
        state = number if violated else self.add(member)
        to_next = tuple([self.number(message) for to, message in member.sent if to == NEXT])
        to_before = tuple([self.number(message) for to, message in member.sent if to == BEFORE])
        return Outcome(state, to_next, to_before, tuple(member.facts), violated)

    def _happen(self, member: Member, event: Event) -> None:
        name, sender, message = event
        if name == "receive":
            member.receive(_WHO[sender], self.messages[message])
        elif name == "hand over":
            member.hand_over(_WHO[sender])
        elif name == "crash after a write":
            member.crash(written=True)
        else:
            getattr(member, name)()

    def number(self, message: Message) -> int:
        """The number of a message's content."""
        known = self._message_numbers.get(message)
        if known is None:
            known = self._message_numbers[message] = len(self.messages)
            self.messages.append(message)
        return known


def _possible(member: Member, scope: Scope) -> list[str]:
    core = member.core
    found = []
    if member.writes:
        found += ["persist", "crash after a write"]
    found.append("crash")
    if core.role is not Role.LEADER:
        if core.term < scope.terms_max:
            found.append("timeout")
            if scope.silence and core._state.hears_leader():
                found.append("silence")
        return found
    found += ["resign", "beat"]
    if core._replication.commit_deadline_ns != NEVER_NS:
        found.append("announce")
    commands = [entry for entry in core.log.slice(1, core.last_index) if entry.kind == COMMAND]
    if len(commands) < scope.commands_max:
        found.append("propose")
    return found
