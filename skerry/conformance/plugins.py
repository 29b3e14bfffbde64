"""Which functions of the engine answer for which rule of Kubernetes.

Owns: that table, and the codes that Kubernetes gives refusals.  Must not know: how any function decides.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any, Final

import numpy as np
from msgspec.structs import replace

from scheduler.engine import affinity, images, marks, neighbours, normal, ports, preemption, resources, spread
from scheduler.engine.selectors import Flags, Int64s, Topology
from scheduler.model import LabelSelector, SpreadConstraint
from skerry.conformance import translate
from skerry.conformance.schema import Case
from skerry.conformance.translate import Scene

BLOCKED: Final = "Unschedulable"
"""Room made by preemption might help."""
HOPELESS: Final = "UnschedulableAndUnresolvable"

Codes = list[str | None]
"""By node; None where it passes."""


def node_name(case: Case, here: Scene) -> Codes:
    """A pod that names its node."""
    return _codes((HOPELESS, affinity.named(here.names, case.pod.node_name)))


def unschedulable(case: Case, here: Scene) -> Codes:
    """Cordoned nodes."""
    return _codes((HOPELESS, marks.schedulable(here.cordoned, translate.tolerations(case))))


def taints(case: Case, here: Scene) -> Codes:
    """Hard taints."""
    return _codes((HOPELESS, marks.admitted(translate.tolerations(case), here.taints, len(here))))


def node_affinity(case: Case, here: Scene) -> Codes:
    """The selector, the pod's required affinity and what the operator adds."""
    added = case.args.added_affinity
    passes = _wanted(case, here)
    if added is not None:
        passes &= affinity.required(translate.node_terms(added), here.names, here.labels)
    return _codes((HOPELESS, passes))


def node_ports(case: Case, here: Scene) -> Codes:
    """Host ports."""
    held: dict[ports.HostPort, dict[int, None]] = {}
    for slot, pod in here.existing:
        for port in translate.host_ports(pod):
            held.setdefault(port, {})[slot] = None
    return _codes((BLOCKED, ports.free(translate.host_ports(case.pod), held, len(here))))


def fit(case: Case, here: Scene) -> Codes:
    """Requests against what is left."""
    lacking = lacking_by_resource(case, here)
    passes = np.ones(len(here), dtype=bool)
    for flags in lacking.values():
        passes &= ~flags
    return _codes((BLOCKED, passes))


def lacking_by_resource(case: Case, here: Scene) -> dict[str, Flags]:
    """Where each resource that counts is short."""
    need = translate.needs(case, case.pod)
    ignored = [
        name
        for name in need
        if resources.is_extended(name)
        and (name in case.args.ignored_resources or name.partition("/")[0] in case.args.ignored_resource_groups)
    ]
    return resources.short_of(here.capacity, translate.used(case, here), need, ignored)


def insufficient(case: Case, here: Scene, slot: int) -> list[dict[str, Any]]:
    """What a node has too little of, by the name of the resource."""
    need, used = translate.needs(case, case.pod), translate.used(case, here)
    return [
        {
            "resource": name,
            "requested": need[name],
            "used": int(used[name][slot]) if name in used else 0,
            "capacity": int(here.capacity[name][slot]) if name in here.capacity else 0,
        }
        for name, lacks in sorted(lacking_by_resource(case, here).items())
        if lacks[slot]
    ]


def topology_spread(case: Case, here: Scene) -> Codes:
    """Hard spread constraints."""
    found = spread.verdicts(
        _constraints(case), case.pod.namespace, case.pod.labels, translate.crowd(case, here), _nodes(case, here)
    )
    named: dict[int, str | None] = {spread.WITHIN: None, spread.SKEWED: BLOCKED, spread.UNLABELLED: HOPELESS}
    return [named[int(verdict)] for verdict in found]


def refused(case: Case) -> str:
    """Why the pod cannot be understood at all, "" when it can."""
    own = case.pod.affinity.node if case.pod.affinity else None
    terms = translate.weighted(own.preferred if own else ())
    return neighbours.fault(translate.rules(case, case.pod)) or affinity.fault(terms)


def pod_affinity(case: Case, here: Scene) -> Codes:
    """Required affinity and anti-affinity between pods."""
    new, around = translate.newcomer(case), translate.neighbourhood(case, here)
    if neighbours.fault(new.rules):
        return [HOPELESS] * len(here)
    return _codes(
        (HOPELESS, neighbours.near(new, around)),
        (BLOCKED, neighbours.apart(new, around)),
        (BLOCKED, neighbours.unopposed(new, around)),
    )


Filter = Callable[[Case, Scene], Codes]
FILTERS: Final[dict[str, Filter]] = {
    "nodename": node_name,
    "nodeunschedulable": unschedulable,
    "tainttoleration": taints,
    "nodeaffinity": node_affinity,
    "nodeports": node_ports,
    "noderesources.fit": fit,
    "podtopologyspread": topology_spread,
    "interpodaffinity": pod_affinity,
}
DECIDING: Final[dict[str, Filter]] = {
    "NodeName": node_name,
    "NodeUnschedulable": unschedulable,
    "TaintToleration": taints,
    "NodeAffinity": node_affinity,
    "NodePorts": node_ports,
    "NodeResourcesFit": fit,
    "PodTopologySpread": topology_spread,
    "InterPodAffinity": pod_affinity,
}
"""Filters by the names that settings of preemption give them."""


def taint_score(case: Case, here: Scene) -> Int64s:
    """Taints that had better be avoided."""
    raw = marks.reluctance(translate.tolerations(case), here.taints, len(here))[: here.candidates]
    return normal.by_highest(raw, reverse=True) if case.normalized else raw


def affinity_score(case: Case, here: Scene) -> Int64s:
    """Preferred nodes."""
    own = case.pod.affinity.node if case.pod.affinity else None
    terms = [*translate.weighted(own.preferred if own else ())]
    terms += translate.weighted(case.args.added_affinity.preferred if case.args.added_affinity else ())
    raw = affinity.preferred(terms, here.names, here.labels)[: here.candidates]
    return normal.by_highest(raw) if case.normalized else raw


def image_score(case: Case, here: Scene) -> Int64s:
    """Images that are there."""
    wanted = [container.image for container in case.pod.containers]
    return images.locality(wanted, here.images, len(here))[: here.candidates]


def spread_score(case: Case, here: Scene) -> Int64s:
    """Soft spread constraints."""
    candidates = np.arange(len(here)) < here.candidates
    raw, counted = spread.crowding(
        _constraints(case),
        case.pod.namespace,
        translate.crowd(case, here),
        _nodes(case, here),
        candidates,
        demanding=bool(case.pod.topology_spread) or case.args.defaulting_type != "System",
    )
    scores = normal.by_absence(raw, counted) if case.normalized else np.where(counted, raw, 0)
    return scores[: here.candidates]


def pod_score(case: Case, here: Scene) -> Int64s:
    """Preferred neighbours."""
    new, around = translate.newcomer(case), translate.neighbourhood(case, here)
    raw = neighbours.liking(new, around, case.args.hard_pod_affinity_weight)[: here.candidates]
    return normal.by_range(raw) if case.normalized else raw


def least(case: Case, here: Scene) -> Int64s:
    """Most left free."""
    used = translate.used(case, here, assumed=True)
    return resources.least_allocated(here.capacity, used, translate.needs(case, case.pod, assumed=True), _weights(case))


def most(case: Case, here: Scene) -> Int64s:
    """Least left free."""
    used = translate.used(case, here, assumed=True)
    return resources.most_allocated(here.capacity, used, translate.needs(case, case.pod, assumed=True), _weights(case))


def by_shape(case: Case, here: Scene) -> Int64s:
    """By a shape of one's own, whose scores are tenths."""
    shape = [(point.utilization, point.score * normal.SCALE // 10) for point in case.args.shape]
    used, need = translate.used(case, here), translate.needs(case, case.pod)
    return resources.requested_to_capacity(here.capacity, used, need, _weights(case), shape)


def balance(case: Case, here: Scene) -> Int64s:
    """All resources to the same share."""
    used, need = translate.used(case, here), translate.needs(case, case.pod)
    return resources.balanced(here.capacity, used, need, _weights(case))


SCORERS: Final[dict[str, Callable[[Case, Scene], Int64s]]] = {
    "tainttoleration": taint_score,
    "nodeaffinity": affinity_score,
    "imagelocality": image_score,
    "podtopologyspread": spread_score,
    "interpodaffinity": pod_score,
    "noderesources.LeastAllocated": least,
    "noderesources.MostAllocated": most,
    "noderesources.RequestedToCapacityRatio": by_shape,
    "noderesources.balanced": balance,
}


def deciding(case: Case) -> list[Filter]:
    """The filters that decide whether a preempting pod fits."""
    names = [case.args.filter] if isinstance(case.args.filter, str) else case.args.filter
    unknown = [name for name in names if name not in DECIDING]
    if unknown:
        raise ValueError(f"there is no filter {unknown[0]}")
    return [DECIDING[name] for name in names]


def candidates(case: Case, here: Scene, slots: list[int]) -> list[preemption.Candidate]:
    """What preemption would take from each of these nodes."""
    filters, running = deciding(case), translate.running(here)
    budgets = translate.budgets(case)

    def fits_on(slot: int) -> Callable[[Collection[int]], bool]:
        def fits(without: Collection[int]) -> bool:
            left = replace(here, existing=[row for number, row in enumerate(here.existing) if number not in without])
            return all(decide(case, left)[slot] is None for decide in filters)

        return fits

    found = []
    for slot in slots:
        there = [number for number, (on, _) in enumerate(here.existing) if on == slot]
        chosen = preemption.victims_on(slot, there, running, case.pod.priority, budgets, fits_on(slot))
        found += [chosen] if chosen is not None else []
    return found


def nomination(case: Case, here: Scene) -> preemption.Candidate | None:
    """The node that the pod preempts on, if it may and it helps."""
    promised = [
        pod.priority
        for slot, pod in here.existing
        if pod.terminating and here.names[slot] == case.pod.nominated_node_name
    ]
    if not preemption.may_preempt(case.pod.preemption_policy, case.pod.priority, promised):
        return None
    verdicts = [decide(case, here) for decide in deciding(case)]
    firsts = [next((code for code in codes if code), None) for codes in zip(*verdicts, strict=True)]
    blocked = [slot for slot, code in enumerate(firsts) if code == BLOCKED]
    return best_of(here, candidates(case, here, blocked))


def best_of(here: Scene, found: list[preemption.Candidate]) -> preemption.Candidate | None:
    """The candidate that hurts least."""
    return preemption.best(found, translate.running(here))


def _codes(*refusals: tuple[str, Flags]) -> Codes:
    """The code of the first that a node does not pass."""
    return [next((code for code, passes in refusals if not passes[slot]), None) for slot in range(len(refusals[0][1]))]


def _wanted(case: Case, here: Scene) -> Flags:
    """Nodes that the pod itself asks for."""
    own = case.pod.affinity.node if case.pod.affinity else None
    terms = None if own is None else translate.node_terms(own)
    selected = marks.selected(tuple(case.pod.node_selector.items()), here.labels, len(here))
    return selected & affinity.required(terms, here.names, here.labels)


def _nodes(case: Case, here: Scene) -> spread.Nodes:
    tolerable = marks.admitted(translate.tolerations(case), here.taints, len(here))
    return spread.Nodes(Topology(here.labels, len(here)), _wanted(case, here), tolerable)


def _constraints(case: Case) -> tuple[SpreadConstraint, ...]:
    """The pod's own, else the default ones for the services that select it."""
    if case.pod.topology_spread:
        return tuple(translate.constraint(case, row) for row in case.pod.topology_spread)
    chosen = {
        key: value
        for service in case.services
        if service.selector and service.selector.items() <= case.pod.labels.items()
        for key, value in service.selector.items()
    }
    if not chosen:
        return ()
    if case.args.defaulting_type == "System":
        return spread.defaults(LabelSelector(chosen))
    given = [translate.constraint(case, row) for row in case.args.default_constraints]
    return spread.selecting(given, LabelSelector(chosen))


def _weights(case: Case) -> dict[str, int]:
    return {row.name: row.weight for row in case.args.resources}
