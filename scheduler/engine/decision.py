"""Filter → score → tie: one decision at a time, remembered between like requests.

Owns: the decision and the bookings assumed since the world was read.
Must not know: jobs, commands or time.

Requests that need the same (amounts, ports, job) form a *class*: its row of scores, with
`NO_FIT` where a filter fails, is computed once over all nodes; after each placement only the
chosen node's entry is written anew, in every class.  So placing the k-th like request costs
one arg-max.  `place` without a class table decides exactly the same (tested).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import numpy as np
from msgspec import Struct
from msgspec.structs import replace

from scheduler.engine import filters
from scheduler.engine.scores import score_of, scores
from scheduler.engine.ties import pick
from scheduler.engine.world import Int64s, PlacementRequest, World, needs

NO_FIT: Final = -1
CLASSES_MAX: Final = 256
"""Rows kept; beyond, the oldest is dropped and would be computed anew."""

Key = tuple[tuple[int, int, int], tuple[int, ...], str]


class Decision(Struct, frozen=True):
    """Where to; `slot` and `node` are None when no node fits."""

    slot: int | None
    node: str | None
    score: int


class _Class(Struct):
    """One row of the class table; `request.peers` is this class's own and kept current."""

    request: PlacementRequest
    row: Int64s
    peers: dict[int, int]


class Table:
    """A world with bookings on top, and the rows of the classes seen."""

    def __init__(self, world: World) -> None:
        self.world = world
        self._used = tuple(used.copy() for used in world.used)
        self._ports: dict[tuple[int, int], None] = {}
        self._peers: dict[str, dict[int, int]] = {}
        """job → slot → attempts booked here on top of the world."""
        self._classes: dict[Key, _Class] = {}

    def place(self, job: str, request: PlacementRequest) -> Decision:
        """The best node for `request`; books nothing."""
        kind = self._class(job, request)
        return decide(self.world, kind.row, request.allocation)

    def book(self, job: str, request: PlacementRequest, slot: int) -> None:
        """Assume that `request` runs on `slot`."""
        for used, need in zip(self._used, needs(request.need), strict=True):
            used[slot] += need
        for port in request.ports:
            self._ports[port, slot] = None
        booked = self._peers.setdefault(job, {})
        booked[slot] = booked.get(slot, 0) + 1
        for key, kind in self._classes.items():
            if key[2] == job:
                kind.peers[slot] = kind.peers.get(slot, 0) + 1
            kind.row[slot] = self._entry(kind, slot)

    def verdicts(self, request: PlacementRequest) -> filters.Verdicts:
        """First failing filter by node, assumed bookings included."""
        return filters.verdicts(self.world, request, self._used, tuple(self._ports))

    def _class(self, job: str, request: PlacementRequest) -> _Class:
        key = (needs(request.need), request.ports, job)
        kind = self._classes.get(key)
        if kind is None:
            peers = dict(request.peers)
            for slot, count in self._peers.get(job, {}).items():
                peers[slot] = peers.get(slot, 0) + count
            own = replace(request, peers=peers)
            row = np.where(self.verdicts(own) == filters.FITS, scores(self.world, own, self._used), np.int64(NO_FIT))
            kind = self._classes[key] = _Class(own, row, peers)
            if len(self._classes) > CLASSES_MAX:
                del self._classes[next(iter(self._classes))]
        return kind

    def _entry(self, kind: _Class, slot: int) -> int:
        """What a node's entry in a class is now."""
        world, request = self.world, kind.request
        if kind.row[slot] == NO_FIT:
            return NO_FIT
        for capacity, used, need in zip(world.capacity, self._used, needs(request.need), strict=True):
            if need > 0 and capacity[slot] - used[slot] < need:
                return NO_FIT
        if any((port, slot) in self._ports for port in request.ports):
            return NO_FIT
        return score_of(world, request, self._used, slot, kind.peers.get(slot, 0))


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
    return decide(world, np.where(fits, scores(world, request, world.used), np.int64(NO_FIT)), request.allocation)


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
