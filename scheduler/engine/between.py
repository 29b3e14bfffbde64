"""Rules of nodes' labels and between workloads, as placement and apply ask them of one request.

Owns: which of the rule modules a request needs, and in which order they refuse.
Must not know: what a rule means (`affinity`, `spread`, `neighbours`), or where groups are kept.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from msgspec import Struct

from scheduler.engine import affinity, marks, neighbours, normal, spread
from scheduler.engine.groups import NO_NEIGHBOURS, Crowd
from scheduler.engine.neighbours import Neighbourhood
from scheduler.engine.selectors import Flags, Int64s, Topology
from scheduler.engine.world import PlacementRequest
from scheduler.model import Rules, Taint

NAMESPACE_NAME = "kubernetes.io/metadata.name"
"""The one label of a namespace: its own name."""


class Ground(Struct, frozen=True):
    """The nodes by their marks; a part of the world that apply has too."""

    names: Sequence[str]
    topology: Topology
    taints: Mapping[Taint, Mapping[int, object]]

    def __len__(self) -> int:
        return len(self.names)


def crosses(rules: Rules) -> bool:
    """Whether the rules are about other workloads, so that each placement may change what they say."""
    return bool(rules.spread) or rules.neighbours != NO_NEIGHBOURS


def prefers(rules: Rules) -> bool:
    """Whether nodes differ by the rules in more than being allowed."""
    return crosses(rules) or bool(rules.node_preferences)


def wanted(ground: Ground, request: PlacementRequest) -> Flags:
    """Nodes that the request's required node affinity admits."""
    return affinity.required(request.rules.node_terms, ground.names, ground.topology.labels)


def evenly(ground: Ground, request: PlacementRequest, crowd: Crowd) -> Flags:
    """Nodes that no hard spread constraint refuses."""
    constraints = spread.hard(request.rules.spread)
    if not constraints:
        return np.ones(len(ground), dtype=bool)
    new = request.newcomer
    found = spread.verdicts(constraints, new.namespace, new.labels, crowd, _nodes(ground, request))
    return np.equal(found, spread.WITHIN)


def near(ground: Ground, request: PlacementRequest, crowd: Crowd) -> Flags:
    """Nodes near all that the request has to be near."""
    return neighbours.near(request.newcomer, _around(ground, crowd))


def apart(ground: Ground, request: PlacementRequest, crowd: Crowd) -> Flags:
    """Nodes apart from all that the request has to be apart from, and that have to be apart from it."""
    around = _around(ground, crowd)
    return neighbours.apart(request.newcomer, around) & neighbours.unopposed(request.newcomer, around)


def preferences(ground: Ground, request: PlacementRequest, crowd: Crowd, fits: Flags, unit: int) -> dict[str, Int64s]:
    """What a request prefers, as shares of `unit` for every node; only what it does prefer is there.

    Neighbours' own preferences for the request count beside its own, but do not by themselves draw it.

    Args:
        ground: the nodes.
        request: what is to be placed.
        crowd: what is there.
        fits: nodes that passed every filter; scales reach from the worst to the best of them.
        unit: the best score.
    """
    rules = request.rules
    found = {}
    if rules.node_preferences:
        raw = affinity.preferred(rules.node_preferences, ground.names, ground.topology.labels)
        found["node-preference"] = raw * unit // sum(each.weight for each in rules.node_preferences)
    if rules.neighbours.rather_near or rules.neighbours.rather_apart:
        raw = neighbours.liking(request.newcomer, _around(ground, crowd))
        found["neighbour-preference"] = _among(raw, fits, unit)
    if spread.soft(rules.spread):
        nodes, namespace = _nodes(ground, request), request.newcomer.namespace
        raw, counted = spread.crowding(rules.spread, namespace, crowd, nodes, fits)
        found["even-spread"] = normal.by_absence(raw, counted, unit)
    return found


def _among(raw: Int64s, fits: Flags, unit: int) -> Int64s:
    scaled = np.zeros(len(raw), dtype=np.int64)
    scaled[fits] = normal.by_range(raw[fits], unit)
    return scaled


def _nodes(ground: Ground, request: PlacementRequest) -> spread.Nodes:
    count = len(ground)
    chosen = wanted(ground, request) & marks.selected(request.selector, ground.topology.labels, count)
    return spread.Nodes(ground.topology, chosen, marks.admitted(request.tolerations, ground.taints, count))


def _around(ground: Ground, crowd: Crowd) -> Neighbourhood:
    return Neighbourhood(ground.topology, crowd, lambda name: {NAMESPACE_NAME: name})
