"""A job file's labels, affinity and spreading: checked, and resolved to `model.Rules`.

Owns: the rules beyond the schema of these fields.  Must not know: nodes, or whether anything would fit.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from msgspec.structs import replace

from scheduler.errors import JobFileError
from scheduler.model import (
    NO_RULES,
    Affinity,
    JobSpec,
    LabelSelector,
    Neighbours,
    NeighbourTerm,
    NodeAffinity,
    NodeTerm,
    Requirement,
    Rules,
    SpreadConstraint,
    WeightedNeighbourTerm,
    WorkloadAffinity,
)
from scheduler.units import whole_number

RESERVED: Final = "skerry/"
NODE_NAME: Final = "metadata.name"
_REQUIRED: Final = "requiredDuringSchedulingIgnoredDuringExecution"
_PREFERRED: Final = "preferredDuringSchedulingIgnoredDuringExecution"


def resolve_rules(spec: JobSpec) -> Rules:
    """What the job asks of nodes and neighbours.

    Raises:
        JobFileError: one of these fields means nothing.
    """
    _check_labels(spec)
    asked = spec.affinity or Affinity()
    nodes = asked.node_affinity or NodeAffinity()
    for field, term in _node_terms(nodes):
        _check_node_term(field, term)
    near, apart = asked.pod_affinity or WorkloadAffinity(), asked.pod_anti_affinity or WorkloadAffinity()
    for field, neighbour in (*_neighbour_terms("podAffinity", near), *_neighbour_terms("podAntiAffinity", apart)):
        _check_selector(f"{field}.labelSelector", neighbour.label_selector)
        _check_selector(f"{field}.namespaceSelector", neighbour.namespace_selector)
    _check_spread(spec.spread)
    rules = Rules(
        tuple(sorted(spec.labels.items())),
        None if nodes.required is None else nodes.required.node_selector_terms,
        nodes.preferred,
        Neighbours(
            tuple(map(_plain, near.required)),
            tuple(map(_plain, apart.required)),
            tuple(map(_plain_weighted, near.preferred)),
            tuple(map(_plain_weighted, apart.preferred)),
        ),
        tuple(replace(each, label_selector=_expressions(each.label_selector)) for each in spec.spread),
    )
    return NO_RULES if rules == NO_RULES else rules


def _check_labels(spec: JobSpec) -> None:
    for key in spec.labels:
        if key.startswith(RESERVED):
            raise JobFileError(
                f"labels.{key}: labels that begin with {RESERVED} are Skerry's own",
                hint="use a key of your own, such as app; every workload has skerry/job, its job's name",
                field=f"labels.{key}",
            )


def _node_terms(nodes: NodeAffinity) -> Iterator[tuple[str, NodeTerm]]:
    place = "affinity.nodeAffinity"
    for number, term in enumerate(nodes.required.node_selector_terms if nodes.required else ()):
        yield f"{place}.{_REQUIRED}.nodeSelectorTerms[{number}]", term
    for number, weighted in enumerate(nodes.preferred):
        yield f"{place}.{_PREFERRED}[{number}].preference", weighted.preference


def _neighbour_terms(kind: str, asked: WorkloadAffinity) -> Iterator[tuple[str, NeighbourTerm]]:
    for number, term in enumerate(asked.required):
        yield f"affinity.{kind}.{_REQUIRED}[{number}]", term
    for number, weighted in enumerate(asked.preferred):
        yield f"affinity.{kind}.{_PREFERRED}[{number}].podAffinityTerm", weighted.pod_affinity_term


def _check_node_term(field: str, term: NodeTerm) -> None:
    if not term.match_expressions and not term.match_fields:
        raise JobFileError(
            f"{field} is empty, and an empty term is no node at all",
            hint="write matchExpressions, or leave the term out",
            field=field,
        )
    for number, requirement in enumerate(term.match_expressions):
        _check_requirement(f"{field}.matchExpressions[{number}]", requirement)
    for number, requirement in enumerate(term.match_fields):
        named = requirement.key == NODE_NAME and requirement.operator in ("In", "NotIn")
        if not named or len(requirement.values) != 1:
            raise JobFileError(
                f"{field}.matchFields[{number}]: a node's one field is {NODE_NAME}, which is In or NotIn one value",
                hint=f'write {{key: {NODE_NAME}, operator: In, values: ["a1"]}}',
                field=f"{field}.matchFields[{number}]",
            )


def _check_selector(field: str, selector: LabelSelector | None) -> None:
    for number, requirement in enumerate(selector.match_expressions if selector else ()):
        _check_requirement(f"{field}.matchExpressions[{number}]", requirement, of_nodes=False)


def _check_requirement(field: str, requirement: Requirement, *, of_nodes: bool = True) -> None:
    operator, values = requirement.operator, requirement.values
    if operator in ("Gt", "Lt") and not of_nodes:
        raise JobFileError(
            f"{field}.operator: {operator} is for labels of nodes",
            hint="use In, NotIn, Exists or DoesNotExist",
            field=f"{field}.operator",
        )
    if operator in ("In", "NotIn") and not values:
        raise JobFileError(
            f"{field}.values: {operator} needs at least one", hint='write values: ["a", "b"]', field=f"{field}.values"
        )
    if operator in ("Exists", "DoesNotExist") and values:
        raise JobFileError(
            f"{field}.values: {operator} takes none", hint="leave values out, or use In", field=f"{field}.values"
        )
    if operator in ("Gt", "Lt") and (len(values) != 1 or whole_number(values[0]) is None):
        raise JobFileError(
            f"{field}.values: {operator} compares with one whole number",
            hint='write it in quotes, such as values: ["4"]',
            field=f"{field}.values",
        )


def _check_spread(constraints: tuple[SpreadConstraint, ...]) -> None:
    seen: dict[tuple[str, str], int] = {}
    for number, each in enumerate(constraints):
        field = f"topologySpreadConstraints[{number}]"
        if each.label_selector is None:
            raise JobFileError(
                f"{field}.labelSelector is missing, so nothing would be spread",
                hint="name the job's own labels, or skerry/job: labelSelector: {matchLabels: {skerry/job: NAME}}",
                field=f"{field}.labelSelector",
            )
        _check_selector(f"{field}.labelSelector", each.label_selector)
        if each.min_domains is not None and each.when_unsatisfiable != "DoNotSchedule":
            raise JobFileError(
                f"{field}.minDomains: only DoNotSchedule can wait for more domains",
                hint="leave minDomains out, or use whenUnsatisfiable DoNotSchedule",
                field=f"{field}.minDomains",
            )
        pair = (each.topology_key, each.when_unsatisfiable)
        if pair in seen:
            raise JobFileError(
                f"{field} repeats topologyKey and whenUnsatisfiable of topologySpreadConstraints[{seen[pair]}]",
                hint="leave one of the two out",
                field=f"{field}.topologyKey",
            )
        seen[pair] = number


def _expressions(selector: LabelSelector | None) -> LabelSelector | None:
    return None if selector is None else LabelSelector({}, selector.requirements())


def _plain(term: NeighbourTerm) -> NeighbourTerm:
    return replace(
        term,
        label_selector=_expressions(term.label_selector),
        namespace_selector=_expressions(term.namespace_selector),
    )


def _plain_weighted(weighted: WeightedNeighbourTerm) -> WeightedNeighbourTerm:
    return replace(weighted, pod_affinity_term=_plain(weighted.pod_affinity_term))
