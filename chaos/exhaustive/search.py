"""Breadth first through every state, with the shortest way to a violation.

Owns: the order of visiting, what is counted, the report.  Must not know: what a state is made of.
"""

from __future__ import annotations

import gc
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from msgspec import Struct, field

from chaos.exhaustive.catalogue import Outcome
from chaos.exhaustive.invariants import View, check
from chaos.exhaustive.member import ELECTED, Violated
from chaos.exhaustive.scopes import SCOPES, Scope
from chaos.exhaustive.table import Move, Ring, Spent, Table
from chaos.exhaustive.words import told

NAMES = ("n1", "n2", "n3")
REELECTED = "another leader was elected"


class Report(Struct, kw_only=True):
    """What an exploration came to.

    Attributes:
        scope, bounds: what was explored.
        depth: events from there to the last states visited.
        states: different states, up to the members' names.  `complete`: no new one is left within the bounds.
        transitions: successors computed, to new states or known ones.
        member_states, core_steps: different states of one member, and steps of the production core they took.
        reached: states entered by an event of each kind.
        violated, path: the first invariant that does not hold, and the events that lead there, the fewest possible.
    """

    scope: str
    bounds: Scope
    depth: int = 0
    states: int = 0
    complete: bool = False
    transitions: int = 0
    member_states: int = 0
    core_steps: int = 0
    wall_s: float = 0.0
    reached: Counter[str] = field(default_factory=Counter)
    violated: str | None = None
    why: str = ""
    path: list[str] = []


class Explored(Struct, kw_only=True):
    """Several explorations; each state and transition of each is counted, `depth` is that of the deepest."""

    states: int
    transitions: int
    depth: int
    wall_s: float
    violated: list[str]
    scopes: list[Report]


def explored(names: Sequence[str], states_max: int) -> Explored:
    """Explore the scopes of these names, one after another."""
    reports = [explore(name, SCOPES[name], states_max) for name in names]
    return Explored(
        states=sum([report.states for report in reports]),
        transitions=sum([report.transitions for report in reports]),
        depth=max([report.depth for report in reports]),
        wall_s=round(sum([report.wall_s for report in reports]), 2),
        violated=[report.violated for report in reports if report.violated],
        scopes=reports,
    )


def explore(name: str, scope: Scope, states_max: int) -> Report:
    """Every state of a scope, or the first `states_max` and the rest of their level."""
    search = Search(name, scope)
    search.begin_with(scope.begins_with)
    return search.run(states_max)


class Search:
    """One exploration."""

    def __init__(self, name: str, scope: Scope) -> None:
        self.table = Table(scope)
        self._start, self._spent = self.table.first
        self._parents: dict[int, int] = {}
        self._checked: set[tuple[View, ...]] = set()
        self.report = Report(scope=name, bounds=scope)

    def begin_with(self, script: tuple[str, ...]) -> None:
        """Begin where these moves lead, each told in the words of `told`; every one must be possible.

        They use nothing of the scope up.
        """
        for line in script:
            with self.table.without_bounds():
                possible = {self.told(move): ring for move, _, ring, _ in self.table.moves(self._start, 0)}
            if line not in possible:
                raise ValueError(f"{line!r} is not possible; possible are: {sorted(possible)}")
            self._start = possible[line]

    def moves(self) -> Iterator[tuple[Move, Outcome, Ring, Spent]]:
        """What may happen first."""
        return self.table.moves(self._start, self._spent)

    def run(self, states_max: int) -> Report:
        """Visit level after level until nothing is left, an invariant is violated, or there are enough states."""
        report, began = self.report, time.perf_counter()
        first = self.table.key(self._start, self._spent)
        self._parents[first] = -1
        frontier = [first]
        with _without_collector():
            while frontier and report.violated is None and len(self._parents) < states_max:
                frontier = self._level(frontier)
                report.depth += 1
        report.states = len(self._parents)
        report.complete = not frontier and report.violated is None
        report.member_states, report.core_steps = len(self.table.catalogue), self.table.catalogue.steps
        report.wall_s = round(time.perf_counter() - began, 2)
        return report

    def _level(self, frontier: list[int]) -> list[int]:
        table, parents, report = self.table, self._parents, self.report
        found = []
        for key in frontier:
            ring, spent = table.state(key)
            for move, outcome, after, used in table.moves(ring, spent):
                report.transitions += 1
                if outcome.violated is not None:
                    self._violated(outcome.violated, key, move)
                    return []
                child = table.key(after, used)
                if child in parents:
                    continue
                parents[child] = key
                found.append(child)
                self._count(ring, outcome)
                try:
                    self._check(after)
                except Violated as error:
                    self._violated(error, key, move)
                    return []
        return found

    def _check(self, ring: Ring) -> None:
        """The invariants; what they look at is the same in most states."""
        places, views = self.table.places, self.table.catalogue.views
        seen = (views[places[ring[0]][0]], views[places[ring[1]][0]], views[places[ring[2]][0]])
        if seen not in self._checked:
            check(seen)
            self._checked.add(seen)

    def _count(self, ring: Ring, outcome: Outcome) -> None:
        facts, reached = outcome.facts, self.report.reached
        for name in facts:
            reached[name] += 1
        if ELECTED in facts:
            places, views = self.table.places, self.table.catalogue.views
            if any(views[places[place][0]].led for place in ring):
                reached[REELECTED] += 1

    # -- the way to a state --------------------------------------------------------------------

    def _violated(self, error: Violated, key: int, move: Move) -> None:
        self.report.violated, self.report.why = error.invariant, error.text
        keys = [key]
        while (parent := self._parents[keys[-1]]) >= 0:
            keys.append(parent)
        self.report.path = self._path(keys[::-1], error)

    def _path(self, keys: list[int], error: Violated) -> list[str]:
        """The way again, now with the members' names: from each state to one that stands for the next."""
        table = self.table
        ring, spent = self._start, self._spent
        told = []
        for key in keys[1:]:
            for move, _, after, used in table.moves(ring, spent):
                if table.key(after, used) == key:
                    told.append(self.told(move))
                    ring, spent = after, used
                    break
        for move, outcome, after, _ in table.moves(ring, spent):
            if self._breaks(outcome, after, error):
                return [*told, self.told(move)]
        raise AssertionError("a violation was found once and not again")

    def _breaks(self, outcome: Outcome, after: Ring, error: Violated) -> bool:
        if outcome.violated is not None:
            return outcome.violated.invariant == error.invariant
        places, views = self.table.places, self.table.catalogue.views
        try:
            check(tuple([views[places[place][0]] for place in after]))
        except Violated as again:
            return again.invariant == error.invariant
        return False

    def told(self, move: Move) -> str:
        """A move in words."""
        who, fate, (name, far, message) = move
        if name == "hand over":
            return f"hand over {NAMES[who]} to {NAMES[(who + far) % 3]}"
        if name != "receive":
            return f"{name} {NAMES[who]}"
        content = told(self.table.catalogue.messages[message])
        verb = "lose" if fate == "lost" else "deliver"
        line = f"{verb} {NAMES[(who + far) % 3]}->{NAMES[who]} {content}"
        return f"{line}, and keep it" if fate == "kept" else line


@contextmanager
def _without_collector() -> Iterator[None]:
    """Nothing here is garbage, and looking for it among millions of objects takes most of the time."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
