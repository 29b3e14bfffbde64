"""Neighbours: workloads that want to be, or not to be, in the same domain as others.

Owns: Kubernetes' inter-pod affinity and anti-affinity, in both directions, over all nodes at once.
Must not know: nodes other than by their labels, or what is done about a refusal.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

import numpy as np
from msgspec import Struct

from scheduler.engine.groups import Group, in_domains, of_domain, on_nodes
from scheduler.engine.selectors import Flags, Int64s, LabelIndex, domains, first_fault, matches
from scheduler.model import Neighbours, NeighbourTerm

NONE: Final = Neighbours()
Namespaces = Mapping[str, Mapping[str, str]]
"""Labels of each namespace that is known."""


class Newcomer(Struct, frozen=True):
    """The workload that is to be placed, as rules between workloads see it."""

    namespace: str
    labels: Mapping[str, str]
    rules: Neighbours = Neighbours()


class Neighbourhood(Struct, frozen=True):
    """What is there: nodes by their labels, workloads, namespaces."""

    labels: LabelIndex
    count: int
    groups: Sequence[Group]
    namespaces: Namespaces = {}


def fault(rules: Neighbours) -> str:
    """Why the rules cannot be understood, "" when they can."""
    weighted = (each.pod_affinity_term for each in (*rules.rather_near, *rules.rather_apart))
    for term in (*rules.near, *rules.apart, *weighted):
        for selector in (term.label_selector, term.namespace_selector):
            if selector is not None and (why := first_fault(selector.requirements())):
                return why
    return ""


def means(term: NeighbourTerm, owner: str, namespace: str, labels: Mapping[str, str], known: Namespaces) -> bool:
    """Whether a term of a workload in namespace `owner` is about one in `namespace` with `labels`."""
    if term.label_selector is None or not matches(term.label_selector.requirements(), labels):
        return False
    if not term.namespaces and term.namespace_selector is None:
        return namespace == owner
    if namespace in term.namespaces:
        return True
    chosen = term.namespace_selector
    return chosen is not None and matches(chosen.requirements(), known.get(namespace, {}))


def near(new: Newcomer, here: Neighbourhood) -> Flags:
    """Where all workloads that the newcomer has to be near are found.

    It needs one workload that every term means, in its domain.  The first of its kind, which no
    one can be near to yet, may go wherever there are domains, if it would be near itself.
    """
    terms = new.rules.near
    passes = np.ones(here.count, dtype=bool)
    if not terms:
        return passes
    meant = on_nodes((group for group in here.groups if _all_mean(terms, new, group, here.namespaces)), here.count)
    anyone = False
    for term in terms:
        place = domains(here.labels, term.topology_key, here.count)
        sums = in_domains(meant, place)
        anyone = anyone or bool((sums > 0).any())
        passes &= of_domain(sums, place) > 0
    itself = Group(new.namespace, new.labels, {})
    if not anyone and _all_mean(terms, new, itself, here.namespaces):
        return _in_all_domains(terms, here)
    return passes


def apart(new: Newcomer, here: Neighbourhood) -> Flags:
    """Where none of the workloads is found that the newcomer has to be apart from."""
    passes = np.ones(here.count, dtype=bool)
    for term in new.rules.apart:
        meant = (
            group for group in here.groups if means(term, new.namespace, group.namespace, group.labels, here.namespaces)
        )
        passes &= _nearby(term, meant, here) == 0
    return passes


def unopposed(new: Newcomer, here: Neighbourhood) -> Flags:
    """Where no workload is found that has to be apart from the newcomer."""
    passes = np.ones(here.count, dtype=bool)
    for group in here.groups:
        for term in group.rules.apart:
            if means(term, group.namespace, new.namespace, new.labels, here.namespaces):
                passes &= _nearby(term, (group,), here) == 0
    return passes


def liking(new: Newcomer, here: Neighbourhood, required_weight: int = 1) -> Int64s:
    """How much newcomer and neighbours prefer each node: weights of what is liked less those of what is not.

    Args:
        new: the newcomer.
        here: what is there.
        required_weight: of what neighbours require of those near them, and which a newcomer may please.
    """
    total = np.zeros(here.count, dtype=np.int64)
    for group in here.groups:
        for weight, term in _wishes(new, group, here.namespaces, required_weight):
            total += weight * _nearby(term, (group,), here)
    return total


def _wishes(
    new: Newcomer, group: Group, known: Namespaces, required_weight: int
) -> Iterable[tuple[int, NeighbourTerm]]:
    """Terms of the newcomer that mean the group and terms of the group that mean the newcomer, with signed weights."""
    own, theirs = new.rules, group.rules
    for sign, terms in ((1, own.rather_near), (-1, own.rather_apart)):
        for each in terms:
            if means(each.pod_affinity_term, new.namespace, group.namespace, group.labels, known):
                yield sign * each.weight, each.pod_affinity_term
    for sign, terms in ((1, theirs.rather_near), (-1, theirs.rather_apart)):
        for each in terms:
            if means(each.pod_affinity_term, group.namespace, new.namespace, new.labels, known):
                yield sign * each.weight, each.pod_affinity_term
    for term in theirs.near if required_weight else ():
        if means(term, group.namespace, new.namespace, new.labels, known):
            yield required_weight, term


def _all_mean(terms: Sequence[NeighbourTerm], new: Newcomer, group: Group, known: Namespaces) -> bool:
    return all(means(term, new.namespace, group.namespace, group.labels, known) for term in terms)


def _nearby(term: NeighbourTerm, groups: Iterable[Group], here: Neighbourhood) -> Int64s:
    """How many workloads of the groups are in each node's domain of the term's key."""
    place = domains(here.labels, term.topology_key, here.count)
    return of_domain(in_domains(on_nodes(groups, here.count), place), place)


def _in_all_domains(terms: Sequence[NeighbourTerm], here: Neighbourhood) -> Flags:
    inside = np.ones(here.count, dtype=bool)
    for term in terms:
        inside &= domains(here.labels, term.topology_key, here.count) >= 0
    return inside
