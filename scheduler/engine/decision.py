"""Filter → score → tie: one decision at a time, remembered between like requests.

Owns: the decision and the bookings assumed since the world was read.
Must not know: jobs, commands or time.

Requests that need the same (amounts, ports, labels, tolerations; and one job, so one set of rules) form a
*class*: its row of scores, with `NO_FIT` where a filter fails, is computed once over all nodes; after each
placement only the chosen node's entry is written anew, in every class.  So placing the k-th like request
costs one arg-max.  Where a booking changes what rules between workloads say, the whole row is computed
anew.  `place` without a class table decides exactly the same (tested).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import numpy as np
from msgspec import Struct
from msgspec.structs import replace

from scheduler.engine import between, filters
from scheduler.engine.groups import NO_NEIGHBOURS, Crowd, Group
from scheduler.engine.scores import UNIT, blended, blended_of, reluctance, scores, weighted, weighted_of
from scheduler.engine.selectors import Topology
from scheduler.engine.ties import pick
from scheduler.engine.world import Flags, Int64s, PlacementRequest, World, needs
from scheduler.model import Toleration

NO_FIT: Final = -1
CLASSES_MAX: Final = 256
"""Rows kept; beyond, the oldest is dropped and would be computed anew."""

Key = tuple[tuple[int, int, int], tuple[int, ...], tuple[tuple[str, str], ...], tuple[Toleration, ...], str]


class Decision(Struct, frozen=True):
    """Where to; `slot` and `node` are None when no node fits."""

    slot: int | None
    node: str | None
    score: int


class _Class(Struct):
    """One row of the class table; `request.peers` is this class's own and kept current."""

    request: PlacementRequest
    alone: Int64s
    """Weighted parts by node, without preferences; `NO_FIT` where a filter of the node itself fails."""
    row: Int64s
    own: Int64s | None
    """`row` with `NO_FIT` on the arcs of others; None when all nodes are alike."""
    peers: dict[int, int]
    reluctant: Int64s | None
    """PreferNoSchedule taints that are not tolerated, by node."""
    preferred: dict[str, Int64s]
    stale: bool = True
    """Rules between workloads are to be asked: at first, and after bookings that change what they say."""

    def drawbacks(self, slot: int) -> tuple[int, int]:
        """What makes a node undesirable for this class, whatever room it has."""
        return 0 if self.reluctant is None else int(self.reluctant[slot]), self.peers.get(slot, 0)


class Table:
    """A world with bookings on top, and the rows of the classes seen."""

    def __init__(self, world: World) -> None:
        self.world = world if world.topology else replace(world, topology=Topology(world.labels, len(world)))
        self._used = tuple(used.copy() for used in world.used)
        self._ports: dict[tuple[int, int], None] = {}
        self._peers: dict[str, dict[int, int]] = {}
        """job → slot → attempts booked here on top of the world."""
        self._crowd = filters.crowd(world)
        self._classes: dict[Key, _Class] = {}

    def place(self, job: str, request: PlacementRequest) -> Decision:
        """The best node for `request`; books nothing."""
        kind = self._class(job, request)
        if kind.own is None:
            return decide(self.world, kind.row, request.allocation)
        return self._near_first(kind, kind.own, request.allocation)

    def _near_first(self, kind: _Class, own: Int64s, allocation: str) -> Decision:
        """On our own arcs, unless nothing fits there or another arc has a node that the job would share with fewer.

        That a job spreads and keeps off reluctant nodes are rules across nodes: they are decided with
        all of them in view (DESIGN.md §5).
        """
        near = decide(self.world, own, allocation)
        if near.slot is not None and kind.drawbacks(near.slot) == (0, 0):
            return near
        wide = decide(self.world, kind.row, allocation)
        if near.slot is None or wide.slot is None:
            return wide
        return near if kind.drawbacks(near.slot) <= kind.drawbacks(wide.slot) else wide

    def book(self, job: str, request: PlacementRequest, slot: int) -> None:
        """Assume that `request` runs on `slot`."""
        for used, need in zip(self._used, needs(request.need), strict=True):
            used[slot] += need
        for port in request.ports:
            self._ports[port, slot] = None
        booked = self._peers.setdefault(job, {})
        booked[slot] = booked.get(slot, 0) + 1
        self._join(job, request, slot)
        concerns_all = request.rules.neighbours != NO_NEIGHBOURS
        for key, kind in self._classes.items():
            if key[-1] == job:
                kind.peers[slot] = kind.peers.get(slot, 0) + 1
            kind.alone[slot] = self._entry(kind, slot)
            if concerns_all or between.crosses(kind.request.rules):
                kind.stale = True
                continue
            kind.row[slot] = self._blended(kind, slot)
            if kind.own is not None and self.world.own is not None and self.world.own[slot]:
                kind.own[slot] = kind.row[slot]

    def _join(self, job: str, request: PlacementRequest, slot: int) -> None:
        """Count the booking among the workloads that rules look at."""
        if self._crowd is None:
            if not between.crosses(request.rules):
                return
            self._crowd = Crowd({}, len(self.world))
        new = request.newcomer
        self._crowd.add(job, Group(new.namespace, new.labels, {}, new.rules), slot)

    def verdicts(self, request: PlacementRequest) -> filters.Verdicts:
        """First failing filter by node, assumed bookings included."""
        return filters.verdicts(self.world, request, self._used, tuple(self._ports), self._crowd)

    def _class(self, job: str, request: PlacementRequest) -> _Class:
        key = (needs(request.need), request.ports, request.selector, request.tolerations, job)
        kind = self._classes.get(key)
        if kind is None:
            kind = self._classes[key] = self._computed(job, request)
            if len(self._classes) > CLASSES_MAX:
                del self._classes[next(iter(self._classes))]
        if kind.stale:
            self._look_around(kind)
        return kind

    def _computed(self, job: str, request: PlacementRequest) -> _Class:
        peers = dict(request.peers)
        for slot, count in self._peers.get(job, {}).items():
            peers[slot] = peers.get(slot, 0) + count
        own = replace(request, peers=peers)
        fits = np.ones(len(self.world), dtype=bool)
        for passes in filters.of_nodes(self.world, own, self._used, tuple(self._ports)):
            fits &= passes
        alone = np.where(fits, weighted(self.world, own, self._used), np.int64(NO_FIT))
        return _Class(own, alone, alone, None, peers, reluctance(self.world, own), {})

    def _look_around(self, kind: _Class) -> None:
        """Work the row out from what the node itself says and from what others on it do."""
        request, fits = kind.request, kind.alone != NO_FIT
        for passes in filters.between_workloads(self.world, request, self._crowd):
            fits &= passes
        kind.preferred = preferences(self.world, request, fits, self._crowd)
        kind.row = np.where(fits, blended(kind.alone, kind.preferred), np.int64(NO_FIT))
        arcs = None if between.prefers(request.rules) else self.world.own
        kind.own = None if arcs is None else np.where(arcs, kind.row, np.int64(NO_FIT))
        kind.stale = False

    def _blended(self, kind: _Class, slot: int) -> int:
        """What a node's entry in a class is now that it has another booking."""
        if kind.row[slot] == NO_FIT or kind.alone[slot] == NO_FIT:
            return NO_FIT
        return blended_of(int(kind.alone[slot]), slot, kind.preferred)

    def _entry(self, kind: _Class, slot: int) -> int:
        """What the node itself says now: whether there is room, and its weighted parts."""
        world, request = self.world, kind.request
        if kind.alone[slot] == NO_FIT:
            return NO_FIT
        for capacity, used, need in zip(world.capacity, self._used, needs(request.need), strict=True):
            if need > 0 and capacity[slot] - used[slot] < need:
                return NO_FIT
        if any((port, slot) in self._ports for port in request.ports):
            return NO_FIT
        reluctant = 0 if kind.reluctant is None else int(kind.reluctant[slot])
        return weighted_of(world, request, self._used, slot, kind.peers.get(slot, 0), reluctant)


def decide(world: World, row: Int64s, allocation: str) -> Decision:
    """The best entry of a row of scores, ties by the allocation's hash."""
    if not len(row):
        return Decision(None, None, NO_FIT)
    best = int(row.max())
    if best == NO_FIT:
        return Decision(None, None, NO_FIT)
    slot = pick(np.flatnonzero(row == best), world.hashes, allocation)
    return Decision(slot, world.names[slot], best)


def place(world: World, request: PlacementRequest) -> Decision:
    """The best node for one request, without a class table."""
    fits = filters.verdicts(world, request, world.used) == filters.FITS
    total = scores(world, request, world.used, preferences(world, request, fits))
    return decide(world, np.where(fits, total, np.int64(NO_FIT)), request.allocation)


def preferences(world: World, request: PlacementRequest, fits: Flags, there: Crowd | None = None) -> dict[str, Int64s]:
    """What the request prefers; nothing for most."""
    if not between.prefers(request.rules):
        return {}
    there = there or filters.crowd(world) or Crowd({}, len(world))
    return between.preferences(filters.ground(world), request, there, fits, UNIT)


def place_all(world: World, requests: Iterable[tuple[str, PlacementRequest]]) -> list[Decision]:
    """Decide (job, request) pairs in order, each seeing the bookings of those before."""
    table = Table(world)
    made = []
    for job, request in requests:
        decision = table.place(job, request)
        if decision.slot is not None:
            table.book(job, request, decision.slot)
        made.append(decision)
    return made
