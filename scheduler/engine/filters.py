"""Filters: which nodes can take a request, and the first reason why not.

Owns: the filters' names, their order, and what each compares.
Must not know: scores, or how a decision is shown.

A node's *verdict* is the position of the first filter it fails in `FILTERS`, or `FITS`.
The hard rules are the ones that apply checks again (`scheduler.state.planning`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from scheduler.engine import between, marks, resources, spread
from scheduler.engine import ports as host_ports
from scheduler.engine.between import Ground
from scheduler.engine.groups import Crowd
from scheduler.engine.ports import HostPort
from scheduler.engine.selectors import Topology
from scheduler.engine.world import RESOURCES, Flags, Int64s, PlacementRequest, World, needs
from scheduler.model import NeighbourTerm, NodeTerm, Requirement, SpreadConstraint, Taint
from scheduler.taints import spelled

BETWEEN: Final = ("topology-spread", "affinity", "anti-affinity")
FILTERS: Final = (
    *("node-ready", "node-connected", "node-selector", "node-affinity", "taints"),
    *RESOURCES,
    "ports",
    *BETWEEN,
)
FITS: Final = len(FILTERS)
_RESOURCE_FIRST: Final = FILTERS.index(RESOURCES[0])

Verdicts = NDArray[np.uint8]


def port_free(world: World, ports: Sequence[int], extra: Sequence[tuple[int, int]] = ()) -> Flags:
    """Where every port is free; `extra` are (port, slot) pairs taken besides."""
    wanted = dict.fromkeys(ports)
    held = {HostPort(port): holders for port in wanted if (holders := world.ports.get(port))}
    free = host_ports.free([HostPort(port) for port in wanted], held, len(world))
    for port, slot in extra:
        if port in wanted:
            free[slot] = False
    return free


def ground(world: World) -> Ground:
    """What rules of labels and neighbours look at."""
    return Ground(world.names, world.topology or Topology(world.labels, len(world)), world.taints)


def crowd(world: World) -> Crowd | None:
    """What rules between workloads look at, None while no job has such rules."""
    return None if world.groups is None else Crowd(world.groups, len(world))


def verdicts(
    world: World,
    request: PlacementRequest,
    used: Sequence[Int64s],
    extra_ports: Sequence[tuple[int, int]] = (),
    there: Crowd | None = None,
) -> Verdicts:
    """The first failing filter of every node, `FITS` where there is none.

    Args:
        world: the nodes.
        request: what is to be placed.
        used: booked amounts by resource, instead of the world's own.
        extra_ports: (port, slot) pairs taken besides the world's own.
        there: workloads, instead of the world's own.
    """
    passes = [*of_nodes(world, request, used, extra_ports), *between_workloads(world, request, there)]
    found = np.full(len(world), FITS, dtype=np.uint8)
    for position in range(len(passes) - 1, -1, -1):
        found[~passes[position]] = position
    return found


def of_nodes(
    world: World, request: PlacementRequest, used: Sequence[Int64s], extra_ports: Sequence[tuple[int, int]] = ()
) -> list[Flags]:
    """What each filter before those of `BETWEEN` lets pass; arguments as for `verdicts`."""
    passes: list[Flags] = [
        world.ready,
        world.present,
        marks.selected(request.selector, world.labels, len(world)),
        between.wanted(ground(world), request),
        marks.admitted(request.tolerations, world.taints, len(world)),
    ]
    for capacity, booked, need in zip(world.capacity, used, needs(request.need), strict=True):
        passes.append(resources.room(capacity, booked, need))
    passes.append(port_free(world, request.ports, extra_ports))
    return passes


def between_workloads(world: World, request: PlacementRequest, there: Crowd | None = None) -> list[Flags]:
    """What each filter of `BETWEEN` lets pass; nothing to ask while no job has such rules."""
    there = there or crowd(world)
    if there is None and not between.crosses(request.rules):
        return [np.ones(len(world), dtype=bool)] * len(BETWEEN)
    nodes, there = ground(world), there or Crowd({}, len(world))
    return [rule(nodes, request, there) for rule in (between.evenly, between.near, between.apart)]


def need_and_have(world: World, request: PlacementRequest, slot: int, verdict: int) -> tuple[int | str, int | str]:
    """What the filter wanted and what the node had: numbers for resources, else words."""
    name = FILTERS[verdict]
    if name in RESOURCES:
        resource = verdict - _RESOURCE_FIRST
        free = int(world.capacity[resource][slot]) - int(world.used[resource][slot])
        return needs(request.need)[resource], max(0, free)
    if name == "node-ready":
        return "ready", "cordoned"
    if name == "node-connected":
        return "a live session", "none"
    if name == "node-selector":
        return f"labels {labels_listed(request.selector)}", _labels_had(world, request.selector, slot)
    if name == "node-affinity":
        terms = request.rules.node_terms or ()
        keys = [row.key for term in terms for row in term.match_expressions]
        return f"one of: {'; '.join(map(term_spelled, terms))}", _labels_with(world, keys, slot)
    if name == "topology-spread":
        return "; ".join(map(spread_spelled, spread.hard(request.rules.spread))), "too many of its kind in its domain"
    if name == "affinity":
        return f"near {'; '.join(map(neighbour_spelled, request.rules.neighbours.near))}", "none there"
    if name == "anti-affinity":
        rules = "; ".join(map(neighbour_spelled, request.rules.neighbours.apart))
        return f"apart from {rules}" if rules else "nothing there that has to be apart from it", "such work is there"
    if name == "taints":
        repelling = [spelled(taint) for taint in repelled_by(world, request, slot)]
        return f"a toleration of {', '.join(repelling)}", f"tainted {', '.join(repelling)}"
    taken = [port for port in request.ports if slot in world.ports.get(port, ())]
    return f"ports {_listed(request.ports)}", f"taken: {_listed(taken)}"


def repelled_by(world: World, request: PlacementRequest, slot: int) -> list[Taint]:
    """Hard taints of a node that the request does not tolerate."""
    return [taint for taint in marks.untolerated(request.tolerations, world.taints) if slot in world.taints[taint]]


def labels_missing(world: World, request: PlacementRequest, slot: int) -> list[tuple[str, str]]:
    """Labels of the selector that a node does not have."""
    return [label for label in request.selector if slot not in world.labels.get(label, {})]


def requirement_spelled(row: Requirement) -> str:
    """``disk In ssd,nvme``."""
    return f"{row.key} {row.operator} {','.join(row.values)}".rstrip()


def term_spelled(term: NodeTerm) -> str:
    """A term of node affinity, in one line."""
    return " and ".join(map(requirement_spelled, (*term.match_expressions, *term.match_fields)))


def neighbour_spelled(term: NeighbourTerm) -> str:
    """A term about neighbours, in one line."""
    rows = () if term.label_selector is None else term.label_selector.requirements()
    return f"{' and '.join(map(requirement_spelled, rows)) or 'any work'} in its {term.topology_key}"


def spread_spelled(constraint: SpreadConstraint) -> str:
    """A spread constraint, in one line."""
    return f"a skew of at most {constraint.max_skew} over {constraint.topology_key}"


def labels_listed(labels: Sequence[tuple[str, str]]) -> str:
    """``key=value, key=value``."""
    return ", ".join(f"{key}={value}" for key, value in labels)


def _labels_had(world: World, selector: Sequence[tuple[str, str]], slot: int) -> str:
    return _labels_with(world, [key for key, _ in selector], slot)


def _labels_with(world: World, keys: Sequence[str], slot: int) -> str:
    had = [label for label, holders in world.labels.items() if label[0] in keys and slot in holders]
    return labels_listed(sorted(had)) or "none of these keys"


def _listed(ports: Sequence[int]) -> str:
    return ", ".join(str(port) for port in ports)
