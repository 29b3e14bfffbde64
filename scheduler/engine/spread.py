"""Spreading: workloads of a kind evenly over the domains of a topology.

Owns: Kubernetes' topology spread constraints: hard ones as a filter, soft ones as a score.
Must not know: which nodes other filters leave, other than by what it is given.

*Skew* of a domain: the workloads it would have with the newcomer, less those of the domain that has the fewest.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Context, Decimal
from functools import lru_cache
from typing import Final

import numpy as np
from msgspec import Struct
from msgspec.structs import replace
from numpy.typing import NDArray

from scheduler.engine.groups import Crowd, in_domains, of_domain
from scheduler.engine.selectors import Flags, Int64s, Topology, matches
from scheduler.model import LabelSelector, SpreadConstraint

HOSTNAME: Final = "kubernetes.io/hostname"
ZONE: Final = "topology.kubernetes.io/zone"
WITHIN, SKEWED, UNLABELLED = 0, 1, 2
"""What a node's verdict can be: admitted; too many there; not in a domain at all."""
_FIXED: Final = 1 << 32


class Nodes(Struct, frozen=True):
    """The nodes as spreading sees them."""

    topology: Topology
    wanted: Flags
    """In the newcomer's required node affinity."""
    tolerable: Flags
    """Without hard taints that the newcomer does not tolerate."""


def defaults(selector: LabelSelector) -> tuple[SpreadConstraint, ...]:
    """What holds for the workloads of a service that say nothing of spreading."""
    return (
        SpreadConstraint(HOSTNAME, max_skew=3, when_unsatisfiable="ScheduleAnyway", label_selector=selector),
        SpreadConstraint(ZONE, max_skew=5, when_unsatisfiable="ScheduleAnyway", label_selector=selector),
    )


def selecting(constraints: Sequence[SpreadConstraint], selector: LabelSelector) -> tuple[SpreadConstraint, ...]:
    """The same constraints about the workloads of `selector`."""
    return tuple(replace(each, label_selector=selector) for each in constraints)


def hard(constraints: Sequence[SpreadConstraint]) -> tuple[SpreadConstraint, ...]:
    """Those that must hold."""
    return tuple(each for each in constraints if each.when_unsatisfiable == "DoNotSchedule")


def soft(constraints: Sequence[SpreadConstraint]) -> tuple[SpreadConstraint, ...]:
    """Those that should."""
    return tuple(each for each in constraints if each.when_unsatisfiable == "ScheduleAnyway")


def verdicts(
    constraints: Sequence[SpreadConstraint],
    namespace: str,
    labels: Mapping[str, str],
    crowd: Crowd,
    nodes: Nodes,
) -> NDArray[np.uint8]:
    """What the first hard constraint that a node breaks says of it; `WITHIN` where none is broken."""
    constraints = hard(constraints)
    found = np.full(len(nodes.topology), WITHIN, dtype=np.uint8)
    places = [nodes.topology.domains(each.topology_key) for each in constraints]
    labelled = _everywhere(places, len(nodes.topology))
    for each, place in reversed(list(zip(constraints, places, strict=True))):
        counted = _eligible(each, nodes) & labelled
        alike = _alike(each, namespace, crowd)
        sums = in_domains(np.where(counted, alike, 0), place)
        itself = int(_selects(each, labels))
        skew = of_domain(sums, place) + itself - _fewest(each, sums, place[counted])
        found[skew > each.max_skew] = SKEWED
        found[place < 0] = UNLABELLED
    return found


def crowding(
    constraints: Sequence[SpreadConstraint],
    namespace: str,
    crowd: Crowd,
    nodes: Nodes,
    candidates: Flags,
    *,
    demanding: bool = True,
) -> tuple[Int64s, Flags]:
    """How crowded each candidate is with its like, and which candidates count at all.

    Constraints over many domains weigh more: ln(domains + 2), since each domain then has fewer.

    Args:
        constraints: the soft ones are looked at.
        namespace: of the newcomer.
        crowd: what is there.
        nodes: all nodes.
        candidates: those that passed the filters.
        demanding: a node that is in no domain of some constraint does not count; else it is only not scored for it.
    """
    constraints = soft(constraints)
    places = [nodes.topology.domains(each.topology_key) for each in constraints]
    inside = _everywhere(places, len(nodes.topology)) if demanding else np.ones(len(nodes.topology), dtype=bool)
    scored = candidates & inside
    total = np.zeros(len(nodes.topology), dtype=np.int64)
    for each, place in zip(constraints, places, strict=True):
        alike = _alike(each, namespace, crowd)
        if each.topology_key == HOSTNAME:
            near, size = alike, int(scored.sum())
        else:
            counted = _eligible(each, nodes) & inside
            near = of_domain(in_domains(np.where(counted, alike, 0), place), place)
            size = int(np.count_nonzero(np.bincount(place[scored] + 1)))
        total += np.where(place >= 0, near * _weight(size) + (each.max_skew - 1) * _FIXED, 0)
    return total // _FIXED, scored


@lru_cache(maxsize=1024)
def _weight(size: int) -> int:
    """ln(size + 2) in fixed point; `decimal` gives the same digits on every machine."""
    return int(Decimal(size + 2).ln(Context(prec=30)) * _FIXED)


def _fewest(constraint: SpreadConstraint, sums: Int64s, places: Int64s) -> int:
    """The least that a domain has; 0 while there are fewer domains than there should be."""
    present = np.bincount(places + 1, minlength=len(sums) + 1)[1:] > 0
    if int(present.sum()) < (constraint.min_domains or 1):
        return 0
    return int(sums[present].min())


def _everywhere(places: Sequence[Int64s], count: int) -> Flags:
    """Nodes that are in a domain of every constraint."""
    inside = np.ones(count, dtype=bool)
    for place in places:
        inside &= place >= 0
    return inside


def _eligible(constraint: SpreadConstraint, nodes: Nodes) -> Flags:
    """Nodes whose workloads and domains count."""
    counted = np.ones(len(nodes.topology), dtype=bool)
    if constraint.node_affinity_policy == "Honor":
        counted &= nodes.wanted
    if constraint.node_taints_policy == "Honor":
        counted &= nodes.tolerable
    return counted


def _selects(constraint: SpreadConstraint, labels: Mapping[str, str]) -> bool:
    selector = constraint.label_selector
    return selector is not None and matches(selector.requirements(), labels)


def _alike(constraint: SpreadConstraint, namespace: str, crowd: Crowd) -> Int64s:
    """By node, the workloads that the constraint is about."""
    return crowd.total(
        ("spread", id(constraint), namespace),
        constraint,
        lambda group: int(group.namespace == namespace and not group.ending and _selects(constraint, group.labels)),
    )
