"""Three members and the messages between them as one number; symmetry; successors.

Owns: states of the whole cluster.  Must not know: what a core does (catalogue), or what is visited (search).

A place on the ring is a member's state with the messages it has on their way to the next member and to the one before.
A state is three numbers of places and what of the scope is used up, in one integer.  Of the six states that are the
same but for the members' names the smallest stands for all.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from chaos.exhaustive.catalogue import Catalogue, Event, Outcome
from chaos.exhaustive.member import Member
from chaos.exhaustive.scopes import Scope

Place = tuple[int, tuple[int, ...], tuple[int, ...]]
"""A member's state, and its messages on the way to the next one and to the one before, each sorted."""

Ring = tuple[int, int, int]
Spent = int
"""How much of each bound is used up, three bits for each of `_COUNTED`."""

Move = tuple[int, str, Event]
"""Whose event (0, 1 or 2), what becomes of its message, and the event.

The message may be `kept`, to arrive again, or `lost`: then the event does not happen.
"""

_BITS = 26
_COUNTED = ("crash", "kept", "lost", "timeout", "beat")
_SPENT_BITS = 3 * len(_COUNTED)
_ONE = {name: 1 << 3 * number for number, name in enumerate(_COUNTED)}
_COST = {**_ONE, "crash after a write": _ONE["crash"], "announce": _ONE["beat"]}
_NOTHING = Outcome(-1, (), (), ())


class Table:
    """The states of one scope."""

    def __init__(self, scope: Scope) -> None:
        self._bounds = bounds_of(scope)
        self._link_max = scope.link_max
        self.catalogue = Catalogue(scope)
        self._numbers: dict[Place, int] = {}
        self.places: list[Place] = []
        self._mirrors: list[int] = []
        first = self.place((self.catalogue.add(Member()), (), ()))
        self.first: tuple[Ring, Spent] = ((first, first, first), 0)

    @contextmanager
    def without_bounds(self) -> Iterator[None]:
        """Everything is affordable meanwhile."""
        bounds, self._bounds = self._bounds, (1 << _SPENT_BITS) - 1
        yield
        self._bounds = bounds

    def place(self, place: Place) -> int:
        """The number of this place."""
        known = self._numbers.get(place)
        if known is None:
            known = self._numbers[place] = len(self.places)
            self.places.append(place)
            self._mirrors.append(-1)
            assert known < 1 << _BITS, "more places than a state can name"
        return known

    def mirror(self, number: int) -> int:
        """The same place seen in the mirror."""
        known = self._mirrors[number]
        if known < 0:
            state, to_next, to_before = self.places[number]
            known = self.place((self.catalogue.twin(state), to_before, to_next))
            self._mirrors[number], self._mirrors[known] = known, number
        return known

    def key(self, ring: Ring, spent: Spent) -> int:
        """One integer for this state and for all that differ from it in the members' names alone."""
        one, two, three = ring
        mirrors = self._mirrors
        a, b, c = mirrors[one], mirrors[three], mirrors[two]
        if a < 0 or b < 0 or c < 0:
            a, b, c = self.mirror(one), self.mirror(three), self.mirror(two)
        x, y, z = min((one, two, three), (two, three, one), (three, one, two), (a, b, c), (b, c, a), (c, a, b))
        return ((((x << _BITS) | y) << _BITS | z) << _SPENT_BITS) | spent

    def state(self, key: int) -> tuple[Ring, Spent]:
        """The state that stands for a key."""
        spent = key & (1 << _SPENT_BITS) - 1
        key >>= _SPENT_BITS
        mask = (1 << _BITS) - 1
        return (key >> 2 * _BITS, key >> _BITS & mask, key & mask), spent

    def moves(self, ring: Ring, spent: Spent) -> Iterator[tuple[Move, Outcome, Ring, Spent]]:
        """Everything that may happen next, and where it leads."""
        catalogue, places = self.catalogue, self.places
        for who in range(3):
            state = places[ring[who]][0]
            for event in catalogue.events(state):
                cost = _COST.get(event[0], 0)
                if cost and not self._affords(spent, cost):
                    continue
                outcome = catalogue.outcome(state, event)
                if outcome is not None:
                    yield (who, "", event), outcome, self._after(ring, who, outcome), spent + cost
            for far in (1, 2):
                yield from self._arrivals(ring, spent, who, far)

    def _arrivals(self, ring: Ring, spent: Spent, who: int, far: int) -> Iterator[tuple[Move, Outcome, Ring, Spent]]:
        """Messages on the way to `who` from the member that is `far` places further on the ring."""
        catalogue, places = self.catalogue, self.places
        sender = (who + far) % 3
        sent = places[ring[sender]]
        link = sent[1] if far == 2 else sent[2]
        for message in link:
            event: Event = ("receive", far, message)
            outcome = catalogue.outcome(places[ring[who]][0], event)
            if outcome is None:
                continue
            rest = tuple([each for each in link if each != message])
            left = self.place((sent[0], rest, sent[2]) if far == 2 else (sent[0], sent[1], rest))
            without = _with(ring, sender, left)
            yield (who, "", event), outcome, self._after(without, who, outcome), spent
            if self._affords(spent, _ONE["kept"]):
                yield (who, "kept", event), outcome, self._after(ring, who, outcome), spent + _ONE["kept"]
            if self._affords(spent, _ONE["lost"]):
                yield (who, "lost", event), _NOTHING, without, spent + _ONE["lost"]

    def _affords(self, spent: Spent, cost: int) -> bool:
        """Whether one more of what costs this is within its bound."""
        mask = 7 * cost
        return spent & mask < self._bounds & mask

    def _after(self, ring: Ring, who: int, outcome: Outcome) -> Ring:
        _, to_next, to_before = self.places[ring[who]]
        if outcome.to_next:
            to_next = self._sent(to_next, outcome.to_next)
        if outcome.to_before:
            to_before = self._sent(to_before, outcome.to_before)
        return _with(ring, who, self.place((outcome.state, to_next, to_before)))

    def _sent(self, link: tuple[int, ...], more: tuple[int, ...]) -> tuple[int, ...]:
        """What is on a link after more was sent; what is on its way already is not sent twice."""
        found = list(link)
        for message in more:
            if message not in found and len(found) < self._link_max:
                found.append(message)
        return tuple(sorted(found))


def _with(ring: Ring, who: int, place: int) -> Ring:
    if who == 0:
        return (place, ring[1], ring[2])
    return (ring[0], place, ring[2]) if who == 1 else (ring[0], ring[1], place)


def bounds_of(scope: Scope) -> int:
    """What a scope allows, in the form of `Spent`."""
    allowed = (scope.crashes_max, scope.duplicates_max, scope.losses_max, scope.timeouts_max, scope.beats_max)
    assert max(allowed) <= 7, "three bits for each bound"
    return sum([each << 3 * number for number, each in enumerate(allowed)])
