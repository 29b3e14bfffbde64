"""Workloads that are there already, as rules between workloads see them.

Owns: counting them by node and by domain.
Must not know: which rule counts, or where they are recorded.

Work that no rule can tell apart (a job's attempts, mostly) is one *group* with a count by node, so a rule
costs as much as there are groups and nodes, not workloads.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping
from typing import Final

import numpy as np
from msgspec import Struct

from scheduler.engine.selectors import Int64s
from scheduler.model import Neighbours

NO_NEIGHBOURS: Final = Neighbours()


class Group(Struct, frozen=True):
    """Workloads alike in all that rules look at."""

    namespace: str
    labels: Mapping[str, str]
    counts: Mapping[int, int]
    """Node slot → how many run there."""
    rules: Neighbours = Neighbours()
    ending: bool = False
    """They are being stopped: spreading no longer counts them."""


Weigh = Callable[[Group], int]
"""How much each workload of a group counts for a rule; 0: not at all."""


class Crowd:
    """All groups, with the counts by node that rules ask for: each is worked out once and then kept up.

    Args:
        groups: by job; what they count is not changed here.
        count: of the nodes.
    """

    def __init__(self, groups: Mapping[str, Group], count: int) -> None:
        self._groups = dict(groups)
        self._count = count
        self._added: dict[str, dict[int, int]] = {}
        self._totals: dict[Hashable, tuple[object, Weigh, Int64s]] = {}
        self._ruled = {job: group for job, group in self._groups.items() if group.rules != NO_NEIGHBOURS}

    def ruled(self) -> Iterable[Group]:
        """Groups with rules of their own."""
        return self._ruled.values()

    def total(self, rule: Hashable, about: object, weigh: Weigh) -> Int64s:
        """By node, its workloads as `weigh` counts them.

        Args:
            rule: names the question; the same question always weighs alike.
            about: what `rule` names by identity, to be kept as long as the answer.
            weigh: of each group; not asked again once there is an answer, but for what is added.
        """
        known = self._totals.get(rule)
        if known is not None:
            return known[2]
        total = np.zeros(self._count, dtype=np.int64)
        for job, group in self._groups.items():
            weight = weigh(group)
            if weight:
                for counts in (group.counts, self._added.get(job, {})):
                    for slot, number in counts.items():
                        total[slot] += weight * number
        self._totals[rule] = (about, weigh, total)
        return total

    def add(self, job: str, kind: Group, slot: int) -> None:
        """One more workload of a job on a node; `kind` says what it is like, should there be none yet."""
        counts = self._added.setdefault(job, {})
        counts[slot] = counts.get(slot, 0) + 1
        self.grew(job, kind, slot)

    def grew(self, job: str, kind: Group, slot: int) -> None:
        """The same where the group itself has counted it already."""
        group = self._groups.setdefault(job, kind)
        if group.rules != NO_NEIGHBOURS:
            self._ruled[job] = group
        for _, weigh, total in self._totals.values():
            total[slot] += weigh(group)


def in_domains(values: Int64s, domains: Int64s) -> Int64s:
    """Sums of `values` by domain, as many as there are domains; nodes in none (-1) are left out."""
    # Counted in doubles, which are exact far beyond any number of workloads.
    sums = np.bincount(domains + 1, weights=values, minlength=1)
    return sums[1:].astype(np.int64)


def of_domain(sums: Int64s, domains: Int64s) -> Int64s:
    """Each node's share of sums by domain: its own domain's, 0 where it is in none."""
    if not len(sums):
        return np.zeros(len(domains), dtype=np.int64)
    return np.where(domains >= 0, sums[domains], 0)
