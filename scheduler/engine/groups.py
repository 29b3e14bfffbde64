"""Workloads that are there already, as rules between workloads see them.

Owns: counting them by node and by domain.
Must not know: which rule counts, or where they are recorded.

Work that no rule can tell apart (a job's attempts, mostly) is one *group* with a count by node, so a rule
costs as much as there are groups and nodes, not workloads.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
from msgspec import Struct

from scheduler.engine.selectors import Int64s
from scheduler.model import Neighbours


class Group(Struct, frozen=True):
    """Workloads alike in all that rules look at."""

    namespace: str
    labels: Mapping[str, str]
    counts: Mapping[int, int]
    """Node slot → how many run there."""
    rules: Neighbours = Neighbours()
    ending: bool = False
    """They are being stopped: spreading no longer counts them."""


def on_nodes(groups: Iterable[Group], count: int) -> Int64s:
    """How many workloads of these groups each of `count` nodes has."""
    total = np.zeros(count, dtype=np.int64)
    for group in groups:
        for slot, number in group.counts.items():
            total[slot] += number
    return total


def in_domains(values: Int64s, domains: Int64s) -> Int64s:
    """Sums of `values` by domain, as many as there are domains; nodes in none (-1) are left out."""
    sums = np.zeros(int(domains.max(initial=-1)) + 1, dtype=np.int64)
    inside = domains >= 0
    np.add.at(sums, domains[inside], values[inside])
    return sums


def of_domain(sums: Int64s, domains: Int64s) -> Int64s:
    """Each node's share of sums by domain: its own domain's, 0 where it is in none."""
    if not len(sums):
        return np.zeros(len(domains), dtype=np.int64)
    return np.where(domains >= 0, sums[domains], 0)
