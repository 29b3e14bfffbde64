"""Scores: how good a node is, in integers.

Owns: the weights and the fixed-point arithmetic.  Must not know: filters or ties.

Every part is a share of `UNIT`; the weights are shares of `WEIGHT_TOTAL`, so
score = Σ wᵢ·Pᵢ with Σ wᵢ = 1.  Integers only: a float sum depends on its order, and then two
replicas could decide differently (DESIGN.md §7).

Parts:
  cpu-free, memory-free   share that stays free after the placement (least allocated first);
  job-spread              1/(1 + live attempts of the same job on the node);
  untainted               1/(1 + PreferNoSchedule taints of the node that are not tolerated);
  node-preference, neighbour-preference, even-spread
                          what the request prefers (`engine.between.preferences`), where it does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np

from scheduler.engine import marks, resources
from scheduler.engine.world import Int64s, PlacementRequest, World, needs
from scheduler.model import TaintEffect

UNIT: Final = 1 << 16
WEIGHTS: Final = {"cpu-free": 40, "memory-free": 40, "job-spread": 80, "untainted": 96}
WEIGHT_TOTAL: Final = 256
PREFERENCE_WEIGHT: Final = 256
"""Of each kind of preference that a request has; one without preferences is scored as if there were none."""
NOTHING: Final[Mapping[str, Int64s]] = {}
assert sum(WEIGHTS.values()) == WEIGHT_TOTAL, "weights sum to one"


def free_share_of(capacity: int, used: int, need: int) -> int:
    """`resources.free_share` for one node."""
    whole = min(capacity, resources.AMOUNT_MAX)
    left = min(max(whole - used - need, 0), whole)
    return (left * UNIT) // max(whole, 1)


def spread_share(peers: int) -> int:
    """1/(1 + peers) in fixed point."""
    return UNIT // (1 + peers)


def reluctance(world: World, request: PlacementRequest) -> Int64s | None:
    """PreferNoSchedule taints that are not tolerated, by node; None where no node has one."""
    if not any(taint.effect is TaintEffect.PREFER_NO_SCHEDULE for taint in world.taints):
        return None
    return marks.reluctance(request.tolerations, world.taints, len(world))


def parts(world: World, request: PlacementRequest, used: Sequence[Int64s]) -> dict[str, Int64s]:
    """Each part's value for every node."""
    spread = np.full(len(world), UNIT, dtype=np.int64)
    if request.peers:
        slots = np.fromiter(request.peers.keys(), dtype=np.int64, count=len(request.peers))
        peers = np.fromiter(request.peers.values(), dtype=np.int64, count=len(request.peers))
        spread[slots] = UNIT // (1 + peers)
    cpu, memory, _ = needs(request.need)
    reluctant = reluctance(world, request)
    return {
        "cpu-free": resources.free_share(world.capacity[0], used[0], cpu, UNIT),
        "memory-free": resources.free_share(world.capacity[1], used[1], memory, UNIT),
        "job-spread": spread,
        "untainted": np.full(len(world), UNIT, dtype=np.int64) if reluctant is None else UNIT // (1 + reluctant),
    }


def weighted(world: World, request: PlacementRequest, used: Sequence[Int64s]) -> Int64s:
    """The sum of every node's weighted parts, preferences left out."""
    total = np.zeros(len(world), dtype=np.int64)
    for name, values in parts(world, request, used).items():
        total += WEIGHTS[name] * values
    return total


def blended(total: Int64s, preferred: Mapping[str, Int64s] = NOTHING) -> Int64s:
    """The score of every node, 0..UNIT; `preferred` are parts that only requests with preferences have."""
    for values in preferred.values():
        total = total + PREFERENCE_WEIGHT * values
    return total // (WEIGHT_TOTAL + PREFERENCE_WEIGHT * len(preferred))


def scores(
    world: World, request: PlacementRequest, used: Sequence[Int64s], preferred: Mapping[str, Int64s] = NOTHING
) -> Int64s:
    """`weighted` and `blended`."""
    return blended(weighted(world, request, used), preferred)


def blended_of(total: int, slot: int, preferred: Mapping[str, Int64s]) -> int:
    """`blended` for one node."""
    total += PREFERENCE_WEIGHT * sum(int(values[slot]) for values in preferred.values())
    return total // (WEIGHT_TOTAL + PREFERENCE_WEIGHT * len(preferred))


def weighted_of(
    world: World, request: PlacementRequest, used: Sequence[Int64s], slot: int, peers: int, reluctant: int = 0
) -> int:
    """`weighted` for one node."""
    cpu, memory, _ = needs(request.need)
    return (
        WEIGHTS["cpu-free"] * free_share_of(int(world.capacity[0][slot]), int(used[0][slot]), cpu)
        + WEIGHTS["memory-free"] * free_share_of(int(world.capacity[1][slot]), int(used[1][slot]), memory)
        + WEIGHTS["job-spread"] * spread_share(peers)
        + WEIGHTS["untainted"] * spread_share(reluctant)
    )
