"""Which links a fault hits, and what several faults on one link come to.

Owns: from a fault and the roles of the moment to directed links, and combining effects.
Must not know: the simulated network, or time.

Faults overlap freely, so no fault undoes another's work: each link holds the effects in force by
fault, and shows their sum.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from typing import Final

from msgspec import Struct

from chaos.sim.swarm.kinds import Fault

Pair = tuple[str, str]
"""(from, to): the direction in which bytes travel."""


class Effect(Struct, frozen=True):
    """What a link does to what travels over it, beyond its usual self; `bytes_per_s` 0 = no bound."""

    cut: bool = False
    latency_us: int = 0
    jitter_us: int = 0
    loss_permille: int = 0
    bytes_per_s: int = 0


CUT: Final = Effect(cut=True)
NONE: Final = Effect()


class Matrix:
    """Effects in force, by link and fault."""

    def __init__(self) -> None:
        self._in_force: dict[Pair, dict[int, Effect]] = {}

    def put(self, fault: int, pairs: Sequence[Pair], effect: Effect) -> dict[Pair, Effect]:
        """Put a fault's effect on links; what each of them does now."""
        for pair in pairs:
            self._in_force.setdefault(pair, {})[fault] = effect
        return {pair: self.effect(pair) for pair in pairs}

    def take(self, fault: int) -> dict[Pair, Effect]:
        """Take a fault's effects away; what each link that had one does now."""
        freed = [pair for pair, effects in self._in_force.items() if fault in effects]
        for pair in freed:
            del self._in_force[pair][fault]
        return {pair: self.effect(pair) for pair in freed}

    def effect(self, pair: Pair) -> Effect:
        """What a link does now."""
        return combined(list(self._in_force.get(pair, {}).values()))


def combined(effects: Sequence[Effect]) -> Effect:
    """Any cut cuts, delays add up, the highest loss and the lowest bandwidth count."""
    if not effects:
        return NONE
    bounds = [effect.bytes_per_s for effect in effects if effect.bytes_per_s]
    return Effect(
        cut=any(effect.cut for effect in effects),
        latency_us=sum(effect.latency_us for effect in effects),
        jitter_us=sum(effect.jitter_us for effect in effects),
        loss_permille=max(effect.loss_permille for effect in effects),
        bytes_per_s=min(bounds, default=0),
    )


def effect_of(fault: Fault) -> Effect:
    """What a network fault does to each link that it hits."""
    match fault.kind:
        case "delay":
            return Effect(latency_us=fault.amount, jitter_us=fault.amount // 2)
        case "loss":
            return Effect(loss_permille=fault.amount)
        case "throttle":
            return Effect(bytes_per_s=fault.amount)
    return CUT


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
        case "isolate" | "delay" | "loss" | "throttle":
            inside = [(a, b) for a in fault.nodes for b in fault.nodes if a != b and fault.kind != "isolate"]
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
