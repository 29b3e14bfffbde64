"""Majorities: how many replicas must agree, and on what (§5.2, §5.3, §6).

Owns: the arithmetic.  Must not know: terms, logs or time.

Invariant: two majorities of the same voters share a voter; every safety argument rests on it.  While a
configuration is joint, the old voters and the new ones must agree *each by a majority of their own* (§6): then any
two quorums of neighbouring configurations share a voter too.  A majority of the union of both would not do.

Voters are named by their store ids: a replica that comes back with another disk is another voter.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

Halves = tuple[tuple[str, ...], ...]
"""The sets of voters that must each agree: one, or two while a configuration is joint; none of them empty."""


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


def jointly_agreed(halves: Halves, reached: Mapping[str, int]) -> int:
    """The highest value that a majority of every half reached; a voter without a value has reached 0."""
    assert halves, "a quorum of nobody"
    return min([agreed([reached.get(voter, 0) for voter in half]) for half in halves])


def jointly_won(halves: Halves, answers: Mapping[str, bool]) -> bool:
    """Whether the voters that said yes are a majority of every half."""
    return all(won(sum([answers.get(voter, False) for voter in half]), len(half)) for half in halves)


def jointly_lost(halves: Halves, answers: Mapping[str, bool]) -> bool:
    """Whether some half can no longer come to a majority."""
    return any(lost(sum([not answers.get(voter, True) for voter in half]), len(half)) for half in halves)
