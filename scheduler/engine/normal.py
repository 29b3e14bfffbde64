"""Raw scores on one scale, so that they can be weighed against each other.

Owns: the two ways to bring the scores of the candidate nodes to 0..unit.
Must not know: what a score is about.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from scheduler.engine.selectors import Flags, Int64s

SCALE: Final = 100
"""Kubernetes' scale; the placer uses a finer one."""


def by_highest(raw: Int64s, unit: int = SCALE, *, reverse: bool = False) -> Int64s:
    """Shares of the highest raw score, rounded down; with `reverse` what is missing to `unit`.

    Where no node has any score they are all equally good: 0, or `unit` with `reverse`.
    """
    highest = int(raw.max(initial=0))
    scaled = np.zeros(len(raw), dtype=np.int64) if highest == 0 else raw * unit // highest
    return unit - scaled if reverse else scaled


def by_range(raw: Int64s, unit: int = SCALE) -> Int64s:
    """From 0 for the lowest to `unit` for the highest, rounded down; 0 where all are alike."""
    if not len(raw) or (low := int(raw.min())) == (high := int(raw.max())):
        return np.zeros(len(raw), dtype=np.int64)
    return (raw - low) * unit // (high - low)


def by_absence(raw: Int64s, counted: Flags, unit: int = SCALE) -> Int64s:
    """Best where there is least: ``unit·(highest + lowest - raw)/highest`` over the nodes `counted`, 0 for others."""
    of = raw[counted]
    if not len(of):
        return np.zeros(len(raw), dtype=np.int64)
    high, low = int(of.max()), int(of.min())
    scaled = np.full(len(raw), unit, dtype=np.int64) if high == 0 else unit * (high + low - raw) // high
    return np.where(counted, scaled, 0)
