"""Rules of affinity, spreading and neighbours against slow, plain ones: node by node, workload by workload."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from scheduler.engine.decision import Table, place, preferences
from scheduler.engine.filters import FILTERS, FITS, verdicts
from scheduler.engine.groups import Group
from scheduler.engine.neighbours import Newcomer
from scheduler.engine.scores import UNIT
from scheduler.engine.world import PlacementRequest, World
from scheduler.model import (
    Capacity,
    LabelSelector,
    Neighbours,
    NeighbourTerm,
    NodeTerm,
    Requirement,
    Rules,
    SpreadConstraint,
    Taint,
    TaintEffect,
    WeightedNeighbourTerm,
    WeightedNodeTerm,
)

KEYS = ("zone", "rack")


@dataclass
class Node:
    name: str
    labels: dict[str, str]
    tainted: bool
    work: list[tuple[str, Newcomer]] = field(default_factory=list)


@dataclass(frozen=True)
class Job:
    id: str
    new: Newcomer
    rules: Rules


def holds(row: Requirement, labels: dict[str, str]) -> bool:
    have = labels.get(row.key)
    if row.operator == "In":
        return have in row.values
    if row.operator == "NotIn":
        return have not in row.values
    if row.operator == "Exists":
        return have is not None
    if row.operator == "DoesNotExist":
        return have is None
    if have is None or not have.isdigit():
        return False
    return int(have) > int(row.values[0]) if row.operator == "Gt" else int(have) < int(row.values[0])


def selects(selector: LabelSelector | None, labels: Any) -> bool:
    return selector is not None and all(holds(row, dict(labels)) for row in selector.requirements())


def in_term(node: Node, term: NodeTerm) -> bool:
    named = all((node.name in row.values) == (row.operator == "In") for row in term.match_fields)
    return named and all(holds(row, node.labels) for row in term.match_expressions)


def wanted(node: Node, job: Job) -> bool:
    terms = job.rules.node_terms
    return terms is None or any(in_term(node, term) for term in terms)


def means(term: NeighbourTerm, owner: Newcomer, other: Newcomer) -> bool:
    there = term.namespaces or (owner.namespace,)
    return other.namespace in there and selects(term.label_selector, other.labels)


def domain(nodes: list[Node], node: Node, key: str) -> list[Node]:
    """The nodes in the domain of `node`."""
    here = node.labels.get(key)
    return [other for other in nodes if here is not None and other.labels.get(key) == here]


def spread_holds(nodes: list[Node], node: Node, job: Job) -> bool:
    constraints = [each for each in job.rules.spread if each.when_unsatisfiable == "DoNotSchedule"]
    for each in constraints:
        if each.topology_key not in node.labels:
            return False
        counted = [
            other
            for other in nodes
            if all(constraint.topology_key in other.labels for constraint in constraints)
            and (each.node_affinity_policy == "Ignore" or wanted(other, job))
            and (each.node_taints_policy == "Ignore" or not other.tainted)
        ]
        sizes: dict[str, int] = {}
        for other in counted:
            alike = [
                new
                for _, new in other.work
                if new.namespace == job.new.namespace and selects(each.label_selector, new.labels)
            ]
            value = other.labels[each.topology_key]
            sizes[value] = sizes.get(value, 0) + len(alike)
        least = min(sizes.values()) if len(sizes) >= (each.min_domains or 1) else 0
        mine = sizes.get(node.labels[each.topology_key], 0) + selects(each.label_selector, job.new.labels)
        if mine - least > each.max_skew:
            return False
    return True


def near_holds(nodes: list[Node], node: Node, job: Job) -> bool:
    terms = job.rules.neighbours.near
    if any(term.topology_key not in node.labels for term in terms):
        return False

    def found(term: NeighbourTerm, around: list[Node]) -> bool:
        return any(all(means(each, job.new, new) for each in terms) for other in around for _, new in other.work)

    if all(found(term, domain(nodes, node, term.topology_key)) for term in terms):
        return True
    anywhere = any(found(term, [other for other in nodes if term.topology_key in other.labels]) for term in terms)
    return not anywhere and all(means(term, job.new, job.new) for term in terms)


def apart_holds(nodes: list[Node], node: Node, job: Job) -> bool:
    for term in job.rules.neighbours.apart:
        for other in domain(nodes, node, term.topology_key):
            if any(means(term, job.new, new) for _, new in other.work):
                return False
    for other in nodes:
        for _, new in other.work:
            for term in new.rules.apart:
                if means(term, new, job.new) and other in domain(nodes, node, term.topology_key):
                    return False
    return True


def first_failing(nodes: list[Node], node: Node, job: Job) -> str | None:
    if not wanted(node, job):
        return "node-affinity"
    if node.tainted:
        return "taints"
    if not spread_holds(nodes, node, job):
        return "topology-spread"
    if not near_holds(nodes, node, job):
        return "affinity"
    return None if apart_holds(nodes, node, job) else "anti-affinity"


def liking(nodes: list[Node], node: Node, job: Job) -> int:
    """Weights of what is near, in both directions."""
    total = 0
    for other in nodes:
        for _, new in other.work:
            for sign, own, theirs in (
                (1, job.rules.neighbours.rather_near, new.rules.rather_near),
                (-1, job.rules.neighbours.rather_apart, new.rules.rather_apart),
            ):
                for each in own:
                    term = each.pod_affinity_term
                    if means(term, job.new, new) and other in domain(nodes, node, term.topology_key):
                        total += sign * each.weight
                for each in theirs:
                    term = each.pod_affinity_term
                    if means(term, new, job.new) and other in domain(nodes, node, term.topology_key):
                        total += sign * each.weight
            for term in new.rules.near:
                if means(term, new, job.new) and other in domain(nodes, node, term.topology_key):
                    total += 1
    return total


def world_of(nodes: list[Node], jobs: list[Job]) -> World:
    labels: dict[tuple[str, str], dict[int, None]] = {}
    taints: dict[Taint, dict[int, None]] = {}
    groups: dict[str, Group] = {}
    for slot, node in enumerate(nodes):
        for label in node.labels.items():
            labels.setdefault(label, {})[slot] = None
        if node.tainted:
            taints.setdefault(Taint("k", "", TaintEffect.NO_SCHEDULE), {})[slot] = None
        for job, new in node.work:
            group = groups.setdefault(job, Group(new.namespace, new.labels, {}, new.rules))
            counts = {**group.counts, slot: group.counts.get(slot, 0) + 1}
            groups[job] = Group(new.namespace, new.labels, counts, new.rules)
    ones = np.ones(len(nodes), dtype=bool)
    used = np.array([len(node.work) for node in nodes], dtype=np.int64)
    return World(
        names=[node.name for node in nodes],
        capacity=tuple(np.full(len(nodes), 1000, dtype=np.int64) for _ in range(3)),
        used=(used, used, used),
        generation=np.ones(len(nodes), dtype=np.int64),
        ready=ones,
        present=ones,
        hashes=np.arange(len(nodes), dtype=np.int64) * 7919,
        ports={},
        labels=labels,
        taints=taints,
        groups=groups,
    )


def request_of(nodes: list[Node], job: Job, number: int) -> PlacementRequest:
    peers = {slot: sum(name == job.id for name, _ in node.work) for slot, node in enumerate(nodes)}
    return PlacementRequest(
        f"{job.id}.{number}",
        Capacity(1, 1, 1),
        peers={slot: count for slot, count in peers.items() if count},
        rules=job.rules,
        newcomer=job.new,
    )


def texts(*choices: str) -> st.SearchStrategy[tuple[str, ...]]:
    return st.lists(st.sampled_from(choices), min_size=1, max_size=2, unique=True).map(tuple)


node_rows = st.one_of(
    st.builds(Requirement, st.sampled_from(KEYS), st.sampled_from(["In", "NotIn"]), texts("1", "2", "3")),
    st.builds(Requirement, st.sampled_from(KEYS), st.sampled_from(["Exists", "DoesNotExist"])),
    st.builds(Requirement, st.sampled_from(KEYS), st.sampled_from(["Gt", "Lt"]), st.just(("2",))),
)
name_rows = st.builds(
    Requirement, st.just("metadata.name"), st.sampled_from(["In", "NotIn"]), st.sampled_from([("n0",), ("n1",)])
)
node_terms = st.one_of(
    st.builds(NodeTerm, st.lists(node_rows, min_size=1, max_size=2).map(tuple)),
    st.builds(NodeTerm, st.just(()), st.lists(name_rows, min_size=1, max_size=1).map(tuple)),
)
selectors = st.one_of(
    st.just(LabelSelector()),
    st.builds(LabelSelector, st.dictionaries(st.just("app"), st.sampled_from(["x", "y"]), max_size=1)),
    st.builds(
        LabelSelector,
        st.just({}),
        st.tuples(st.builds(Requirement, st.just("app"), st.sampled_from(["NotIn", "In"]), texts("x", "y"))),
    ),
)
terms = st.builds(NeighbourTerm, st.sampled_from(KEYS), selectors, st.sampled_from([(), (), ("p",), ("p", "q")]))
few = st.lists(terms, max_size=1).map(tuple)
weighted = st.lists(st.builds(WeightedNeighbourTerm, st.integers(1, 9), terms), max_size=1).map(tuple)
policies = st.sampled_from(["Honor", "Ignore"])
constraints = st.builds(
    SpreadConstraint,
    st.sampled_from(KEYS),
    st.integers(1, 2),
    st.sampled_from(["DoNotSchedule", "ScheduleAnyway"]),
    selectors,
    st.sampled_from([None, None, 2, 3]),
    policies,
    policies,
)
rules = st.builds(
    Rules,
    st.just(()),
    st.one_of(st.none(), st.lists(node_terms, max_size=2).map(tuple)),
    st.lists(st.builds(WeightedNodeTerm, st.integers(1, 9), node_terms), max_size=2).map(tuple),
    st.builds(Neighbours, few, few, weighted, weighted),
    st.lists(constraints, max_size=2).map(tuple),
)


@st.composite
def situations(draw: st.DrawFn) -> tuple[list[Node], list[Job]]:
    jobs = []
    for name in "abc":
        asked = draw(st.one_of(st.just(Rules()), rules))
        new = Newcomer(draw(st.sampled_from(["p", "q"])), {"app": draw(st.sampled_from(["x", "y"]))}, asked.neighbours)
        jobs.append(Job(name, new, asked))
    nodes = []
    for number in range(draw(st.integers(1, 5))):
        labels = draw(st.fixed_dictionaries({}, optional={key: st.sampled_from(["1", "2", "3"]) for key in KEYS}))
        there = draw(st.lists(st.sampled_from(jobs), max_size=2))
        nodes.append(Node(f"n{number}", labels, draw(st.integers(0, 5)) == 0, [(job.id, job.new) for job in there]))
    return nodes, jobs


@settings(max_examples=200, deadline=None)
@given(situations())
def test_each_node_is_given_the_first_rule_it_fails(situation: tuple[list[Node], list[Job]]) -> None:
    nodes, jobs = situation
    world = world_of(nodes, jobs)
    for job in jobs:
        found = verdicts(world, request_of(nodes, job, 0), world.used)
        names = [None if code == FITS else FILTERS[code] for code in found]
        assert names == [first_failing(nodes, node, job) for node in nodes], job


@settings(max_examples=150, deadline=None)
@given(situations(), st.lists(st.integers(0, 2), min_size=1, max_size=6))
def test_the_class_table_decides_like_looking_at_everything_anew(
    situation: tuple[list[Node], list[Job]], order: list[int]
) -> None:
    nodes, jobs = situation
    table = Table(world_of(nodes, jobs))
    first = {job.id: request_of(nodes, job, 0) for job in jobs}
    for number, choice in enumerate(order):
        job = jobs[choice]
        expected = place(world_of(nodes, jobs), request_of(nodes, job, number))
        request = replace(first[job.id], allocation=f"{job.id}.{number}")  # peers as they were when the table was made
        decision = table.place(job.id, request)
        assert decision == expected
        if decision.slot is not None:
            table.book(job.id, request, decision.slot)
            nodes[decision.slot].work.append((job.id, job.new))


@settings(max_examples=100, deadline=None)
@given(situations())
def test_preferred_neighbours_weigh_in_both_directions(situation: tuple[list[Node], list[Job]]) -> None:
    nodes, jobs = situation
    world = world_of(nodes, jobs)
    for job in jobs:
        request = request_of(nodes, job, 0)
        fits = verdicts(world, request, world.used) == FITS
        parts = preferences(world, request, fits)
        asked = job.rules.neighbours
        if asked.rather_near or asked.rather_apart:
            raw = [liking(nodes, node, job) for node, passes in zip(nodes, fits, strict=True) if passes]
            low, span = min(raw, default=0), max(raw, default=0) - min(raw, default=0)
            scaled = [(each - low) * UNIT // span if span else 0 for each in raw]
            assert parts["neighbour-preference"][fits].tolist() == scaled
        if job.rules.node_preferences:
            whole = sum(each.weight for each in job.rules.node_preferences)
            for slot, node in enumerate(nodes):
                got = sum(each.weight for each in job.rules.node_preferences if in_term(node, each.preference))
                assert int(parts["node-preference"][slot]) == got * UNIT // whole
