"""Amounts: what a workload needs, what a node has left, and how good a fit that is.

Owns: the arithmetic of requests, the fit, and the strategies that score what is allocated.
Must not know: which resources there are; a mapping by name is given.

Strategies give 0..`SCALE` with Kubernetes' rounding: each resource rounded down, then their weighted mean.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from itertools import pairwise
from typing import Final

import numpy as np

from scheduler.engine.normal import SCALE
from scheduler.engine.selectors import Flags, Int64s

Amounts = Mapping[str, int]
Columns = Mapping[str, Int64s]
Shape = Sequence[tuple[int, int]]
"""(utilisation in percent, score 0..`SCALE`), by rising utilisation."""

ASSUMED: Final[Amounts] = {"cpu": 100, "memory": 200 << 20}
"""What counts for work that does not say, so that many such do not all go to one node."""
AMOUNT_MAX: Final = 1 << 46
"""Largest amount whose product with any unit of scores fits int64; larger ones are scored as this."""
WEIGHT_MAX: Final = 100
_FRACTION: Final = 1 << 26
_HALVED_FROM: Final = 1 << 35
_HAIR: Final = 64
"""Of `_FRACTION`: less than this is rounding, not a difference."""


def requested(containers: Sequence[Amounts], first: Sequence[Amounts] = (), overhead: Amounts | None = None) -> Amounts:
    """What all of it needs at most at a time: containers together, or one that runs before them; and overhead."""
    total: dict[str, int] = {}
    for amounts in containers:
        for name, amount in amounts.items():
            total[name] = total.get(name, 0) + amount
    for amounts in first:
        for name, amount in amounts.items():
            total[name] = max(total.get(name, 0), amount)
    for name, amount in (overhead or {}).items():
        total[name] = total.get(name, 0) + amount
    return total


def with_assumed(container: Amounts) -> Amounts:
    """A container's request with what is assumed where it says nothing."""
    return {**ASSUMED, **container}


def room(capacity: Int64s, used: Int64s, need: int) -> Flags:
    """Where `need` more fits.  Needing nothing always fits, also on a node that is over."""
    if need <= 0:
        return np.ones(len(capacity), dtype=bool)
    return capacity - used >= need


def short_of(capacity: Columns, used: Columns, need: Amounts, ignored: Collection[str] = ()) -> dict[str, Flags]:
    """By resource that is needed and not `ignored`, where there is too little of it."""
    count = len(next(iter(capacity.values()), ()))
    nothing = np.zeros(count, dtype=np.int64)
    return {
        name: ~room(capacity.get(name, nothing), used.get(name, nothing), amount)
        for name, amount in need.items()
        if name not in ignored
    }


def free_share(capacity: Int64s, used: Int64s, need: int, unit: int) -> Int64s:
    """Share of each node's capacity that stays free, 0..unit; 0 where there is no capacity."""
    whole = np.minimum(capacity, AMOUNT_MAX)
    left = np.clip(whole - used - need, 0, whole)
    return (left * unit) // np.maximum(whole, 1)


def used_share(capacity: Int64s, used: Int64s, need: int, unit: int) -> Int64s:
    """Share of each node's capacity that is taken, 0..unit; 0 where there is no capacity."""
    whole = np.minimum(capacity, AMOUNT_MAX)
    taken = np.clip(used + need, 0, whole)
    return (taken * unit) // np.maximum(whole, 1)


def least_allocated(capacity: Columns, used: Columns, need: Amounts, weights: Amounts) -> Int64s:
    """Best where most stays free."""
    return _mean(capacity, used, need, weights, lambda whole, taken, more: free_share(whole, taken, more, SCALE))


def most_allocated(capacity: Columns, used: Columns, need: Amounts, weights: Amounts) -> Int64s:
    """Best where least stays free: few nodes are filled, others stay empty."""
    return _mean(capacity, used, need, weights, lambda whole, taken, more: used_share(whole, taken, more, SCALE))


def requested_to_capacity(capacity: Columns, used: Columns, need: Amounts, weights: Amounts, shape: Shape) -> Int64s:
    """A score of one's own by utilisation; what scores nothing does not count in the mean, which is rounded."""
    total = np.zeros(_count(capacity), dtype=np.int64)
    weight = np.zeros(len(total), dtype=np.int64)
    for name, (whole, taken, more) in _counted(capacity, used, need, weights).items():
        over = taken + more > whole
        percent = np.where(over, SCALE, used_share(whole, taken, more, SCALE))
        score = broken_line(percent, shape)
        counts = (whole > 0) & (score > 0)
        total += np.where(counts, score * weights[name], 0)
        weight += np.where(counts, weights[name], 0)
    return np.where(weight == 0, 0, (2 * total + weight) // np.maximum(2 * weight, 1))


def balanced(capacity: Columns, used: Columns, need: Amounts, weights: Amounts) -> Int64s:
    """Best where all resources are used to the same share: `SCALE` less the standard deviation of the shares.

    With n shares f the deviation is √(n·Σf² − (Σf)²)/n, which is worked out in integers.
    """
    parts = _counted(capacity, used, need, weights)
    total, squares, number = (np.zeros(_count(capacity), dtype=np.int64) for _ in range(3))
    for whole, taken, more in parts.values():
        share = np.where(whole > 0, _nearest_share(whole, taken + more), 0)
        total += share
        squares += share * share
        number += whole > 0
    spread = _root(np.maximum(number * squares - total * total, 0))
    scale = np.maximum(number, 1) * _FRACTION
    score: Int64s = (SCALE * (scale - spread) + SCALE * _HAIR) // scale
    return score


def broken_line(percent: Int64s, shape: Shape) -> Int64s:
    """The score at each utilisation, on straight lines between the points of `shape`; divisions cut towards zero."""
    found = np.full(len(percent), shape[-1][1], dtype=np.int64)
    for (left, low), (right, high) in reversed(list(pairwise(shape))):
        rise = (high - low) * (percent - left)
        step = np.sign(rise) * (np.abs(rise) // max(right - left, 1))
        found = np.where(percent <= right, low + step, found)
    return np.where(percent <= shape[0][0], shape[0][1], found)


def weight_faults(weights: Sequence[tuple[str, int]]) -> list[int]:
    """Positions of weights that are no weight."""
    return [place for place, (_, weight) in enumerate(weights) if not 1 <= weight <= WEIGHT_MAX]


Part = tuple[Int64s, Int64s, int]
"""Capacity, used and need of one resource."""


def _counted(capacity: Columns, used: Columns, need: Amounts, weights: Amounts) -> dict[str, Part]:
    """The resources that count: a scarce one that is not asked for says nothing about the fit."""
    nothing = np.zeros(_count(capacity), dtype=np.int64)
    return {
        name: (capacity[name], used.get(name, nothing), need.get(name, 0))
        for name in weights
        if name in capacity and (need.get(name, 0) > 0 or not is_scalar(name))
    }


def is_scalar(name: str) -> bool:
    """Whether a resource is one that only some work uses, unlike cpu, memory and storage."""
    return name not in ("cpu", "memory", "ephemeral-storage")


def is_extended(name: str) -> bool:
    """Whether a resource is an operator's own, such as ``example.com/gpu``."""
    return "/" in name and "kubernetes.io/" not in name


def _count(capacity: Columns) -> int:
    return len(next(iter(capacity.values()), ()))


def _mean(
    capacity: Columns, used: Columns, need: Amounts, weights: Amounts, score: Callable[[Int64s, Int64s, int], Int64s]
) -> Int64s:
    """The weighted mean of a score, over the resources that a node has."""
    total = np.zeros(_count(capacity), dtype=np.int64)
    weight = np.zeros(len(total), dtype=np.int64)
    for name, (whole, taken, more) in _counted(capacity, used, need, weights).items():
        total += weights[name] * score(whole, taken, more)
        weight += np.where(whole > 0, weights[name], 0)
    return total // np.maximum(weight, 1)


def _nearest_share(whole: Int64s, taken: Int64s) -> Int64s:
    """``taken/whole`` in parts of `_FRACTION`, to the nearest, at most all of it."""
    small, part = np.maximum(whole, 1), np.minimum(taken, whole)
    while (large := small >= _HALVED_FROM).any():  # until the product fits; that costs less than a part in 2³³
        small, part = np.where(large, small >> 1, small), np.where(large, part >> 1, part)
    share: Int64s = np.minimum((2 * part * _FRACTION + small) // (2 * small), _FRACTION)
    return share


def _root(square: Int64s) -> Int64s:
    """The whole part of each square root."""
    near: Int64s = np.sqrt(square.astype(np.float64)).astype(np.int64)
    low = np.where(near * near > square, near - 1, near)
    return np.where((low + 1) * (low + 1) <= square, low + 1, low)
