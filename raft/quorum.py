"""Majorities: how many replicas must agree, and on what (§5.2, §5.3).

Owns: the arithmetic.  Must not know: terms, logs or time.

Invariant: two majorities of the same voters share a voter; every safety argument rests on it.
"""

from __future__ import annotations

from collections.abc import Sequence


def majority(voters: int) -> int:
    """How many of `voters` make a majority."""
    return voters // 2 + 1


def agreed(values: Sequence[int]) -> int:
    """The highest value that a majority reached, each voter having reached its own of `values`.

    With match indexes this is the commit candidate; with times of last contact it is since when a
    majority has been in contact; with acknowledged rounds it is the last round a majority confirmed.
    """
    assert values, "a quorum of nobody"
    return sorted(values)[len(values) - majority(len(values))]


def won(granted: int, voters: int) -> bool:
    """Whether `granted` votes elect."""
    return granted >= majority(voters)


def lost(refused: int, voters: int) -> bool:
    """Whether, after `refused` refusals, the rest can no longer elect."""
    return voters - refused < majority(voters)
