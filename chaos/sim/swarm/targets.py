"""Which links a fault hits.

Owns: from a network fault, its roles resolved, to directed links.
Must not know: the simulated network, what an impairment is, or time.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

import msgspec

from chaos.sim.swarm.kinds import Fault

Pair = tuple[str, str]
"""(from, to): the direction in which bytes travel."""
LEADER = "leader"


def resolved(fault: Fault, leader: str | None, replicas: Sequence[str]) -> Fault:
    """The fault with names in place of roles; without a leader the first replica stands for it."""
    stands = leader if leader is not None else replicas[0]
    nodes = tuple(dict.fromkeys(stands if name == LEADER else name for name in fault.nodes))
    return msgspec.structs.replace(fault, nodes=nodes)


def links_of(fault: Fault, replicas: Sequence[str], agents: Sequence[str]) -> tuple[Pair, ...]:
    """The links that a network fault hits; its roles must be resolved.

    Args:
        fault: names machines only.
        replicas: all of them, in order.
        agents: all of them, in order.
    """
    everybody = (*replicas, *agents)
    rest = [name for name in everybody if name not in fault.nodes]
    match fault.kind:
        case "partition" | "flap" | "bridge":
            return both_ways(fault.nodes, fault.others)
        case "one-way-partition" | "cut":
            return towards(fault.nodes, fault.others)
        case "ring":
            return _ring(fault.nodes)
        case "isolate" | "reset" | "refuse":
            return both_ways(fault.nodes, rest)
        case "delay" | "loss" | "throttle":
            inside = [(a, b) for a in fault.nodes for b in fault.nodes if a != b]
            return (*both_ways(fault.nodes, rest), *inside)
        case "deaf":
            return towards(rest, fault.nodes)
        case "mute":
            return towards(fault.nodes, rest)
        case "herd":
            return both_ways(agents, replicas)
    return ()


def towards(sources: Sequence[str], targets: Sequence[str]) -> tuple[Pair, ...]:
    """Every link from one of `sources` to one of `targets`."""
    return tuple(product(sources, targets))


def both_ways(left: Sequence[str], right: Sequence[str]) -> tuple[Pair, ...]:
    """Every link between the two."""
    return (*towards(left, right), *towards(right, left))


def _ring(order: Sequence[str]) -> tuple[Pair, ...]:
    """All links but those between neighbours."""
    size = len(order)
    distances = {(a, b): abs(i - j) for i, a in enumerate(order) for j, b in enumerate(order) if a != b}
    return tuple(pair for pair, distance in distances.items() if distance not in (1, size - 1))
