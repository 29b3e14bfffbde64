"""Labels and taints: which nodes a request may go to, and which it would rather not.

Owns: Kubernetes' rules of nodeSelector and of toleration, over all nodes at once.
Must not know: where labels and taints come from.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from scheduler.model import Taint, TaintEffect, Toleration

Flags = NDArray[np.bool_]
Int64s = NDArray[np.int64]
Holders = Mapping[int, object]
"""Node slots that have a mark."""

HARD: Final = (TaintEffect.NO_SCHEDULE, TaintEffect.NO_EXECUTE)
"""Effects that keep new work away altogether."""


def tolerates(toleration: Toleration, taint: Taint) -> bool:
    """Whether one toleration matches one taint.

    An empty effect matches every effect and an empty key every key; ``Exists`` matches every
    value, ``Equal`` the same one.
    """
    if toleration.effect and toleration.effect != taint.effect:
        return False
    if toleration.key and toleration.key != taint.key:
        return False
    return toleration.operator == "Exists" or toleration.value == taint.value


def is_tolerated(tolerations: Sequence[Toleration], taint: Taint) -> bool:
    """Whether any toleration matches the taint."""
    return any(tolerates(toleration, taint) for toleration in tolerations)


def untolerated(
    tolerations: Sequence[Toleration], taints: Iterable[Taint], effects: Sequence[TaintEffect] = HARD
) -> list[Taint]:
    """Those of `taints` with one of `effects` that no toleration matches."""
    return [taint for taint in taints if taint.effect in effects and not is_tolerated(tolerations, taint)]


def selected(selector: Sequence[tuple[str, str]], labels: Mapping[tuple[str, str], Holders], count: int) -> Flags:
    """Which of `count` nodes have every label of the selector."""
    chosen = np.ones(count, dtype=bool)
    for label in selector:
        chosen &= _flags(labels.get(label, {}), count)
    return chosen


def admitted(tolerations: Sequence[Toleration], taints: Mapping[Taint, Holders], count: int) -> Flags:
    """Which of `count` nodes have no hard taint that keeps the request away."""
    open_ = np.ones(count, dtype=bool)
    for taint in untolerated(tolerations, taints):
        open_ &= ~_flags(taints[taint], count)
    return open_


def reluctance(tolerations: Sequence[Toleration], taints: Mapping[Taint, Holders], count: int) -> Int64s:
    """How many PreferNoSchedule taints that are not tolerated each of `count` nodes has."""
    found = np.zeros(count, dtype=np.int64)
    for taint in untolerated(tolerations, taints, (TaintEffect.PREFER_NO_SCHEDULE,)):
        found += _flags(taints[taint], count)
    return found


def _flags(holders: Holders, count: int) -> Flags:
    flags = np.zeros(count, dtype=bool)
    if holders:
        flags[np.fromiter(holders, dtype=np.int64, count=len(holders))] = True
    return flags
