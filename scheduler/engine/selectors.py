"""Selectors: which labels a requirement wants, for one set of labels and for all nodes at once.

Owns: the six operators and what makes a requirement meaningless.
Must not know: who selects whom, or why.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from scheduler.model import LABEL_KEY_PATTERN, LABEL_VALUE_PATTERN, Requirement
from scheduler.units import whole_number

Flags = NDArray[np.bool_]
Int64s = NDArray[np.int64]
Holders = Mapping[int, object]
"""Node slots that have a mark."""
LabelIndex = Mapping[tuple[str, str], Holders]
"""(key, value) → nodes with that label."""

NODE_NAME: Final = "metadata.name"
_KEY: Final = re.compile(LABEL_KEY_PATTERN)
_VALUE: Final = re.compile(LABEL_VALUE_PATTERN)


def fault(requirement: Requirement) -> str:
    """Why a requirement means nothing, "" when it does mean something."""
    key, operator, values = requirement.key, requirement.operator, requirement.values
    if not _KEY.fullmatch(key):
        return f'Invalid value: "{key}"'
    if operator in ("In", "NotIn") and not values:
        return f"{operator} needs at least one value"
    if operator in ("Exists", "DoesNotExist") and values:
        return f"{operator} takes no values"
    if operator in ("Gt", "Lt") and (len(values) != 1 or whole_number(values[0]) is None):
        return f"{operator} needs one whole number"
    if operator not in ("In", "NotIn", "Exists", "DoesNotExist", "Gt", "Lt"):
        return f"{operator} is no operator"
    wrong = [value for value in values if not _VALUE.fullmatch(value)]
    return f'Invalid value: "{wrong[0]}"' if wrong else ""


def first_fault(requirements: Sequence[Requirement]) -> str:
    """The fault of the first requirement that has one."""
    return next((why for requirement in requirements if (why := fault(requirement))), "")


def accepts(requirement: Requirement, value: str | None) -> bool:
    """Whether a label's value, None where it is missing, is what the requirement wants."""
    operator, values = requirement.operator, requirement.values
    if operator == "In":
        return value is not None and value in values
    if operator == "NotIn":
        return value is None or value not in values
    if operator == "Exists":
        return value is not None
    if operator == "DoesNotExist":
        return value is None
    have = None if value is None else whole_number(value)
    bound = whole_number(values[0]) if values else None
    if have is None or bound is None:
        return False
    return have > bound if operator == "Gt" else have < bound


def matches(requirements: Sequence[Requirement] | None, labels: Mapping[str, str]) -> bool:
    """Whether one set of labels meets all requirements; no selector (None) selects nothing, an empty one everything."""
    if requirements is None:
        return False
    return all(accepts(requirement, labels.get(requirement.key)) for requirement in requirements)


def flags_of(holders: Holders, count: int) -> Flags:
    """Slots as flags over `count` nodes."""
    flags = np.zeros(count, dtype=bool)
    if holders:
        flags[np.fromiter(holders, dtype=np.int64, count=len(holders))] = True
    return flags


def nodes_accepted(requirement: Requirement, labels: LabelIndex, count: int) -> Flags:
    """Which of `count` nodes have a label that the requirement wants."""
    chosen = np.full(count, accepts(requirement, None))
    for value, holders in _values(requirement, labels):
        chosen[np.fromiter(holders, dtype=np.int64, count=len(holders))] = accepts(requirement, value)
    return chosen


class Topology:
    """Which domain each node is in, by label key; worked out once a key while no label changes."""

    def __init__(self, labels: LabelIndex, count: int) -> None:
        self.labels = labels
        self._count = count
        self._places: dict[str, Int64s] = {}

    def __len__(self) -> int:
        return self._count

    def domains(self, key: str) -> Int64s:
        """The domain of each node by the value of its label `key`, numbered from 0; -1 where it has none."""
        place = self._places.get(key)
        if place is None:
            place = self._places[key] = domains(self.labels, key, self._count)
        return place


def domains(labels: LabelIndex, key: str, count: int) -> Int64s:
    """See `Topology.domains`."""
    slots: list[int] = []
    numbers: list[int] = []
    for number, holders in enumerate(holders for (name, _), holders in labels.items() if name == key):
        slots.extend(holders)
        numbers.extend([number] * len(holders))
    found = np.full(count, -1, dtype=np.int64)
    found[slots] = numbers
    return found


def _values(requirement: Requirement, labels: LabelIndex) -> Iterator[tuple[str, Holders]]:
    """Values of the requirement's key for which its answer may differ from that for a missing label."""
    if requirement.operator in ("In", "NotIn"):
        for value in dict.fromkeys(requirement.values):
            yield value, labels.get((requirement.key, value), {})
        return
    for (key, value), holders in labels.items():
        if key == requirement.key:
            yield value, holders
