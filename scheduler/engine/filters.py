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

from scheduler.engine import marks, resources
from scheduler.engine import ports as host_ports
from scheduler.engine.ports import HostPort
from scheduler.engine.world import RESOURCES, Flags, Int64s, PlacementRequest, World, needs
from scheduler.model import Taint
from scheduler.taints import spelled

FILTERS: Final = ("node-ready", "node-connected", "node-selector", "taints", *RESOURCES, "ports")
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


def verdicts(
    world: World, request: PlacementRequest, used: Sequence[Int64s], extra_ports: Sequence[tuple[int, int]] = ()
) -> Verdicts:
    """The first failing filter of every node, `FITS` where there is none.

    Args:
        world: the nodes.
        request: what is to be placed.
        used: booked amounts by resource, instead of the world's own.
        extra_ports: (port, slot) pairs taken besides the world's own.
    """
    passes: list[Flags] = [
        world.ready,
        world.present,
        marks.selected(request.selector, world.labels, len(world)),
        marks.admitted(request.tolerations, world.taints, len(world)),
    ]
    for capacity, booked, need in zip(world.capacity, used, needs(request.need), strict=True):
        passes.append(resources.room(capacity, booked, need))
    passes.append(port_free(world, request.ports, extra_ports))
    found = np.full(len(world), FITS, dtype=np.uint8)
    for position in range(len(passes) - 1, -1, -1):
        found[~passes[position]] = position
    return found


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


def labels_listed(labels: Sequence[tuple[str, str]]) -> str:
    """``key=value, key=value``."""
    return ", ".join(f"{key}={value}" for key, value in labels)


def _labels_had(world: World, selector: Sequence[tuple[str, str]], slot: int) -> str:
    keys = [key for key, _ in selector]
    had = [label for label, holders in world.labels.items() if label[0] in keys and slot in holders]
    return labels_listed(sorted(had)) or "none of these keys"


def _listed(ports: Sequence[int]) -> str:
    return ", ".join(str(port) for port in ports)
