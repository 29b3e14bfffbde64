"""From a case's words to the engine's.

Owns: the translation.  Must not know: any rule; what a word means is the engine's.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import numpy as np
from msgspec import Struct

from scheduler.engine import resources
from scheduler.engine.groups import Crowd, Group
from scheduler.engine.neighbours import Neighbourhood, Newcomer
from scheduler.engine.ports import ANYWHERE, HostPort
from scheduler.engine.preemption import Budget, Running
from scheduler.engine.selectors import Flags, Int64s, Topology
from scheduler.model import (
    LabelSelector,
    Neighbours,
    NeighbourTerm,
    NodeTerm,
    Requirement,
    SpreadConstraint,
    Taint,
    TaintEffect,
    Toleration,
    WeightedNeighbourTerm,
    WeightedNodeTerm,
)
from skerry.conformance.schema import (
    Case,
    Expression,
    NodeAffinity,
    Pod,
    PodAffinity,
    PodTerm,
    Selector,
    Spread,
    Term,
    WeightedTerm,
)

STORAGE = "ephemeral-storage"


class Scene(Struct, frozen=True):
    """A case's nodes and workloads as the engine's columns; candidates come first."""

    names: list[str]
    candidates: int
    labels: dict[tuple[str, str], dict[int, None]]
    taints: dict[Taint, dict[int, None]]
    cordoned: Flags
    capacity: dict[str, Int64s]
    images: dict[str, dict[int, int]]
    existing: list[tuple[int, Pod]]
    """(node slot, workload) of those that are on a node."""

    def __len__(self) -> int:
        return len(self.names)


def scene(case: Case) -> Scene:
    """The columns of a case."""
    nodes = [*case.nodes, *case.infeasible_nodes]
    slots = {node.name: slot for slot, node in enumerate(nodes)}
    labels: dict[tuple[str, str], dict[int, None]] = {}
    taints: dict[Taint, dict[int, None]] = {}
    images: dict[str, dict[int, int]] = {}
    for slot, node in enumerate(nodes):
        for label in node.labels.items():
            labels.setdefault(label, {})[slot] = None
        for row in node.taints:
            taints.setdefault(Taint(row.key, row.value, TaintEffect(row.effect)), {})[slot] = None
        for image in node.images:
            for name in image.names:
                images.setdefault(name, {})[slot] = image.size_bytes
    names = dict.fromkeys(name for node in nodes for name in node.allocatable)
    return Scene(
        names=[node.name for node in nodes],
        candidates=len(case.nodes),
        labels=labels,
        taints=taints,
        cordoned=np.array([node.unschedulable for node in nodes], dtype=bool),
        capacity={
            name: np.array([node.allocatable.get(name, 0) for node in nodes], dtype=np.int64)
            for name in ("pods", *names)
        },
        images=images,
        existing=[(slots[pod.node_name], pod) for pod in case.existing if pod.node_name in slots],
    )


def needs(case: Case, pod: Pod, *, assumed: bool = False) -> dict[str, int]:
    """What a workload takes of a node, itself included."""
    fill = resources.with_assumed if assumed else dict
    off = [STORAGE] if case.args.features.get("LocalStorageCapacityIsolation") is False else []
    total = resources.requested(
        [fill(container.requests) for container in pod.containers],
        [fill(container.requests) for container in pod.init_containers],
        pod.overhead,
    )
    return {"pods": 1, **{name: amount for name, amount in total.items() if name not in off}}


def used(case: Case, here: Scene, *, assumed: bool = False) -> dict[str, Int64s]:
    """What the workloads of each node take."""
    columns: dict[str, Int64s] = {}
    for slot, pod in here.existing:
        for name, amount in needs(case, pod, assumed=assumed).items():
            columns.setdefault(name, np.zeros(len(here), dtype=np.int64))[slot] += amount
    return columns


def requirements(rows: Sequence[Expression]) -> tuple[Requirement, ...]:
    """Requirements as written, also those that mean nothing."""
    return tuple(Requirement(row.key, cast(Any, row.operator), tuple(row.values)) for row in rows)


def selector(row: Selector | None) -> LabelSelector | None:
    """A label selector."""
    return None if row is None else LabelSelector(row.match_labels, requirements(row.match_expressions))


def node_term(row: Term) -> NodeTerm:
    """A term of node affinity."""
    return NodeTerm(requirements(row.match_expressions), requirements(row.match_fields))


def node_terms(row: NodeAffinity) -> list[NodeTerm] | None:
    """Terms of which one has to hold."""
    terms = row.required_terms()
    return None if terms is None else [node_term(each) for each in terms]


def weighted(rows: Sequence[WeightedTerm]) -> list[WeightedNodeTerm]:
    """Preferred terms."""
    return [WeightedNodeTerm(row.weight, node_term(row.term)) for row in rows]


def tolerations(case: Case) -> list[Toleration]:
    """Those of the pod; comparing ones count only where they are switched on."""
    return [
        Toleration(row.key, cast(Any, row.operator or "Equal"), row.value, cast(Any, row.effect))
        for row in case.pod.tolerations
        if case.args.comparison_operators or row.operator not in ("Gt", "Lt")
    ]


def host_ports(pod: Pod) -> list[HostPort]:
    """The host ports of a workload."""
    return [
        HostPort(port.host_port, port.protocol or "TCP", port.host_ip or ANYWHERE)
        for container in pod.containers
        for port in container.ports
        if port.host_port > 0
    ]


def constraint(case: Case, row: Spread) -> SpreadConstraint:
    """A spread constraint; which nodes count can be said only where that is switched on."""
    chosen = row if case.args.node_inclusion_policy else None
    return SpreadConstraint(
        row.topology_key,
        row.max_skew,
        cast(Any, row.when_unsatisfiable),
        selector(row.label_selector),
        row.min_domains,
        cast(Any, (chosen and chosen.node_affinity_policy) or "Honor"),
        cast(Any, (chosen and chosen.node_taints_policy) or "Ignore"),
    )


def rules(case: Case, pod: Pod) -> Neighbours:
    """What a workload asks of its neighbours."""
    to, away = (pod.affinity.pod, pod.affinity.pod_anti) if pod.affinity else (None, None)
    to, away = to or PodAffinity(), away or PodAffinity()

    def term(row: PodTerm) -> NeighbourTerm:
        chosen = selector(row.namespace_selector) if case.args.namespace_selector_enabled else None
        return NeighbourTerm(row.topology_key, selector(row.label_selector), tuple(row.namespaces), chosen)

    return Neighbours(
        tuple(term(row) for row in to.required),
        tuple(term(row) for row in away.required),
        tuple(WeightedNeighbourTerm(row.weight, term(row.term)) for row in to.preferred),
        tuple(WeightedNeighbourTerm(row.weight, term(row.term)) for row in away.preferred),
    )


def newcomer(case: Case) -> Newcomer:
    """The incoming pod."""
    return Newcomer(case.pod.namespace, case.pod.labels, rules(case, case.pod))


def crowd(case: Case, here: Scene) -> Crowd:
    """Each workload that is there, as a group of one."""
    groups = {
        str(number): Group(pod.namespace, pod.labels, {slot: 1}, rules(case, pod), pod.terminating)
        for number, (slot, pod) in enumerate(here.existing)
    }
    return Crowd(groups, len(here))


def neighbourhood(case: Case, here: Scene) -> Neighbourhood:
    """All that rules between workloads look at."""
    known = {row.name: row.labels for row in case.namespaces}
    return Neighbourhood(Topology(here.labels, len(here)), crowd(case, here), lambda name: known.get(name, {}))


def running(here: Scene) -> list[Running]:
    """The workloads that are there, as ones that may have to go."""
    return [Running(pod.name, pod.namespace, pod.labels, pod.priority, pod.start_time_ns) for _, pod in here.existing]


def budgets(case: Case) -> list[Budget]:
    """Disruption budgets."""
    return [
        Budget(
            row.namespace,
            (*(selector(row.selector) or LabelSelector()).requirements(),),
            row.disruptions_allowed,
            tuple(row.disrupted_pods),
        )
        for row in case.pdbs
    ]
