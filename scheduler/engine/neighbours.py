"""Neighbours: workloads that want to be, or not to be, in the same domain as others.

Owns: Kubernetes' inter-pod affinity and anti-affinity, in both directions, over all nodes at once.
Must not know: nodes other than by their labels, or what is done about a refusal.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np
from msgspec import Struct

from scheduler.engine.groups import Crowd, Group, Weigh, in_domains, of_domain
from scheduler.engine.selectors import Flags, Int64s, Topology, first_fault, matches
from scheduler.model import Neighbours, NeighbourTerm

Namespaces = Callable[[str], Mapping[str, str]]
"""The labels of a namespace."""


class Newcomer(Struct, frozen=True):
    """The workload that is to be placed, as rules between workloads see it."""

    namespace: str
    labels: Mapping[str, str]
    rules: Neighbours = Neighbours()


class Neighbourhood(Struct, frozen=True):
    """What is there: nodes by their domains, workloads, namespaces."""

    topology: Topology
    crowd: Crowd
    namespaces: Namespaces


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
    return chosen is not None and matches(chosen.requirements(), known(namespace))


def near(new: Newcomer, here: Neighbourhood) -> Flags:
    """Where all workloads that the newcomer has to be near are found.

    It needs one workload that every term means, in its domain.  The first of its kind, which no
    one can be near to yet, may go wherever there are domains, if it would be near itself.
    """
    terms = new.rules.near
    passes = np.ones(len(here.topology), dtype=bool)
    if not terms:
        return passes
    known = here.namespaces
    meant = here.crowd.total(("near", id(new)), new, lambda group: int(_all_mean(terms, new, group, known)))
    anyone = False
    inside = passes.copy()
    for term in terms:
        place = here.topology.domains(term.topology_key)
        inside &= place >= 0
        sums = in_domains(meant, place)
        anyone = anyone or bool((sums > 0).any())
        passes &= of_domain(sums, place) > 0
    itself = Group(new.namespace, new.labels, {})
    return inside if not anyone and _all_mean(terms, new, itself, known) else passes


def apart(new: Newcomer, here: Neighbourhood) -> Flags:
    """Where none of the workloads is found that the newcomer has to be apart from."""
    passes = np.ones(len(here.topology), dtype=bool)
    for number, term in enumerate(new.rules.apart):
        meant = here.crowd.total(("apart", id(new), number), new, _meant_by(term, new, here.namespaces))
        passes &= _nearby(term.topology_key, meant, here) == 0
    return passes


def unopposed(new: Newcomer, here: Neighbourhood) -> Flags:
    """Where no workload is found that has to be apart from the newcomer."""
    passes = np.ones(len(here.topology), dtype=bool)
    for key in dict.fromkeys(term.topology_key for group in here.crowd.ruled() for term in group.rules.apart):
        opposed = here.crowd.total(("opposed", id(new), key), new, _opposed(new, key, here.namespaces))
        passes &= _nearby(key, opposed, here) == 0
    return passes


def liking(new: Newcomer, here: Neighbourhood, required_weight: int = 1) -> Int64s:
    """How much newcomer and neighbours prefer each node: weights of what is liked less those of what is not.

    Args:
        new: the newcomer.
        here: what is there.
        required_weight: of what neighbours require of those near them, and which a newcomer may please.
    """
    total = np.zeros(len(here.topology), dtype=np.int64)
    for key in dict.fromkeys(term.topology_key for _, term in _own_and_theirs(new, here.crowd)):
        weigh = _weighed(new, key, here.namespaces, required_weight)
        total += _nearby(key, here.crowd.total(("liked", id(new), key, required_weight), new, weigh), here)
    return total


def _own_and_theirs(new: Newcomer, crowd: Crowd) -> Iterable[tuple[int, NeighbourTerm]]:
    """Every term that may say something of liking."""
    yield from _preferring(new.rules)
    for group in crowd.ruled():
        yield from _preferring(group.rules)
        yield from ((1, term) for term in group.rules.near)


def _preferring(rules: Neighbours) -> Iterable[tuple[int, NeighbourTerm]]:
    """Preferred terms with their signed weights."""
    yield from ((each.weight, each.pod_affinity_term) for each in rules.rather_near)
    yield from ((-each.weight, each.pod_affinity_term) for each in rules.rather_apart)


def _meant_by(term: NeighbourTerm, new: Newcomer, known: Namespaces) -> Weigh:
    return lambda group: int(means(term, new.namespace, group.namespace, group.labels, known))


def _opposed(new: Newcomer, key: str, known: Namespaces) -> Weigh:
    """How many terms over `key` of a group mean the newcomer."""
    return lambda group: sum(
        term.topology_key == key and means(term, group.namespace, new.namespace, new.labels, known)
        for term in group.rules.apart
    )


def _weighed(new: Newcomer, key: str, known: Namespaces, required_weight: int) -> Weigh:
    """The sum of terms over `key` of the newcomer that mean a group, and of the group that mean the newcomer."""

    def weigh(group: Group) -> int:
        total = 0
        for weight, term in _preferring(new.rules):
            if term.topology_key == key and means(term, new.namespace, group.namespace, group.labels, known):
                total += weight
        theirs = [*_preferring(group.rules), *((required_weight, term) for term in group.rules.near)]
        for weight, term in theirs:
            if term.topology_key == key and means(term, group.namespace, new.namespace, new.labels, known):
                total += weight
        return total

    return weigh


def _all_mean(terms: Sequence[NeighbourTerm], new: Newcomer, group: Group, known: Namespaces) -> bool:
    return all(means(term, new.namespace, group.namespace, group.labels, known) for term in terms)


def _nearby(key: str, meant: Int64s, here: Neighbourhood) -> Int64s:
    """How much of what is meant is in each node's domain of `key`."""
    place = here.topology.domains(key)
    return of_domain(in_domains(meant, place), place)
