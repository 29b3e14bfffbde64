"""Shrinking a failure: the smallest part of a list that still fails.

Owns: delta debugging (Zeller and Hildebrandt, "Simplifying and isolating failure-inducing input",
2002), bounded by a number of trials.  Must not know: what is in the list, or how a trial is run.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

T = TypeVar("T")

TRIALS_MAX = 64


def shrink(items: Sequence[T], fails: Callable[[tuple[T, ...]], bool], trials_max: int = TRIALS_MAX) -> tuple[T, ...]:
    """A part of `items` that still fails and of which no single item could be left out, trials permitting.

    Args:
        items: fail as they are.
        fails: one trial; deterministic.
        trials_max: after so many, the smallest part found is returned.
    """
    return _Shrinking(fails, trials_max).run(tuple(items))


class _Shrinking:
    def __init__(self, fails: Callable[[tuple[T, ...]], bool], trials_max: int) -> None:
        self._fails: Callable[[tuple[object, ...]], bool] = fails  # type: ignore[assignment]
        self._left = trials_max

    def run(self, items: tuple[T, ...]) -> tuple[T, ...]:
        parts = 2
        if items and self._still_fails(()):
            return ()
        while len(items) >= 2 and self._left > 0:
            smaller = self._without_one_part(items, parts)
            if smaller is not None:
                items, parts = smaller, max(2, min(parts - 1, len(smaller)))
            elif parts >= len(items):
                break
            else:
                parts = min(len(items), parts * 2)
        return items

    def _without_one_part(self, items: tuple[T, ...], parts: int) -> tuple[T, ...] | None:
        """`items` without one of `parts` pieces, if that still fails."""
        size = len(items)
        for number in range(parts):
            first, last = number * size // parts, (number + 1) * size // parts
            smaller = items[:first] + items[last:]
            if first < last and smaller and self._still_fails(smaller):
                return smaller
        return None

    def _still_fails(self, items: tuple[T, ...]) -> bool:
        if self._left <= 0:
            return False
        self._left -= 1
        return self._fails(items)
