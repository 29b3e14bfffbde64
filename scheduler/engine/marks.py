"""Labels and taints: which nodes a request may go to, and which it would rather not.

Owns: Kubernetes' rules of nodeSelector and of toleration, over all nodes at once.
Must not know: where labels and taints come from.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

import numpy as np

from scheduler.engine.selectors import Flags, Holders, Int64s, flags_of
from scheduler.model import Taint, TaintEffect, Toleration
from scheduler.units import whole_number

HARD: Final = (TaintEffect.NO_SCHEDULE, TaintEffect.NO_EXECUTE)
"""Effects that keep new work away altogether."""

CORDONED: Final = Taint("node.kubernetes.io/unschedulable", "", TaintEffect.NO_SCHEDULE)
"""What a cordon is to tolerations."""


def tolerates(toleration: Toleration, taint: Taint) -> bool:
    """Whether one toleration matches one taint.

    An empty effect matches every effect and an empty key every key; ``Exists`` matches every
    value, ``Equal`` the same one, ``Gt`` and ``Lt`` a whole number that is above or below.
    """
    if toleration.effect and toleration.effect != taint.effect:
        return False
    if toleration.key and toleration.key != taint.key:
        return False
    if toleration.operator in ("Gt", "Lt"):
        return _compares(toleration, taint.value)
    return toleration.operator == "Exists" or toleration.value == taint.value


def _compares(toleration: Toleration, text: str) -> bool:
    value, bound = whole_number(text), whole_number(toleration.value)
    if value is None or bound is None:
        return False
    return value > bound if toleration.operator == "Gt" else value < bound


def is_tolerated(tolerations: Sequence[Toleration], taint: Taint) -> bool:
    """Whether any toleration matches the taint."""
    return any(tolerates(toleration, taint) for toleration in tolerations)


def untolerated(
    tolerations: Sequence[Toleration], taints: Iterable[Taint], effects: Sequence[TaintEffect] = HARD
) -> list[Taint]:
    """Those of `taints` with one of `effects` that no toleration matches."""
    return [taint for taint in taints if taint.effect in effects and not is_tolerated(tolerations, taint)]


def schedulable(cordoned: Flags, tolerations: Sequence[Toleration]) -> Flags:
    """Which nodes take new work: those that are not cordoned, unless that is tolerated as a taint."""
    return np.ones(len(cordoned), dtype=bool) if is_tolerated(tolerations, CORDONED) else ~cordoned


def selected(selector: Sequence[tuple[str, str]], labels: Mapping[tuple[str, str], Holders], count: int) -> Flags:
    """Which of `count` nodes have every label of the selector."""
    chosen = np.ones(count, dtype=bool)
    for label in selector:
        chosen &= flags_of(labels.get(label, {}), count)
    return chosen


def admitted(tolerations: Sequence[Toleration], taints: Mapping[Taint, Holders], count: int) -> Flags:
    """Which of `count` nodes have no hard taint that keeps the request away."""
    open_ = np.ones(count, dtype=bool)
    for taint in untolerated(tolerations, taints):
        open_ &= ~flags_of(taints[taint], count)
    return open_


def reluctance(tolerations: Sequence[Toleration], taints: Mapping[Taint, Holders], count: int) -> Int64s:
    """How many PreferNoSchedule taints that are not tolerated each of `count` nodes has."""
    found = np.zeros(count, dtype=np.int64)
    for taint in untolerated(tolerations, taints, (TaintEffect.PREFER_NO_SCHEDULE,)):
        found += flags_of(taints[taint], count)
    return found
