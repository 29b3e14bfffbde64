"""Who is marked how: labels and taints, from the mark to the nodes.

Owns: the two indexes.  Must not know: what a mark means to placement (`scheduler.engine.marks`).
Derived from registrations; an index by mark answers a selector without looking at every node.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from typing import Protocol, TypeVar

from scheduler.model import Taint

M = TypeVar("M", bound=Hashable)


class Marked(Protocol):
    """A node with its labels and taints."""

    def all_labels(self) -> dict[str, str]:
        """Labels that selectors see."""
        ...

    def all_taints(self) -> tuple[Taint, ...]:
        """Taints that placement sees."""
        ...


class Marks:
    """Both indexes.  Slots are kept as dictionaries without values, in the order in which they came."""

    def __init__(self) -> None:
        self.labels: dict[tuple[str, str], dict[int, None]] = {}
        """(key, value) → slots."""
        self.taints: dict[Taint, dict[int, None]] = {}
        self.changes = 0
        """How often anything has changed."""
        self._of: dict[int, tuple[tuple[tuple[str, str], ...], tuple[Taint, ...]]] = {}

    def put(self, slot: int, node: Marked) -> None:
        """Replace what is known of the node of `slot`."""
        labels, taints = tuple(node.all_labels().items()), node.all_taints()
        old_labels, old_taints = self._of.get(slot, ((), ()))
        if (labels, taints) == (old_labels, old_taints):
            return
        self._of[slot] = (labels, taints)
        self.changes += 1
        _move(self.labels, slot, old_labels, labels)
        _move(self.taints, slot, old_taints, taints)


def _move(index: dict[M, dict[int, None]], slot: int, old: Iterable[M], new: Iterable[M]) -> None:
    for mark in old:
        holders = index[mark]
        del holders[slot]
        if not holders:
            del index[mark]
    for mark in new:
        index.setdefault(mark, {})[slot] = None
