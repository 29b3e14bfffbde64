"""A file of cases: Kubernetes' words as data.

Owns: the shape of a file.  Must not know: what a case's answer is.

Nothing is checked beyond shapes: labels and selectors that mean nothing are what some cases are about.
What is null counts as left out.
"""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import Struct, field

from skerry.errors import UsageError


class Expression(Struct):
    """One requirement."""

    key: str
    operator: str
    values: list[str] = []


class Selector(Struct, rename="camel"):
    """A label selector."""

    match_labels: dict[str, str] = {}
    match_expressions: list[Expression] = []


class Term(Struct, rename="camel"):
    """A term of node affinity."""

    match_expressions: list[Expression] = []
    match_fields: list[Expression] = []


class WeightedTerm(Struct):
    """A preferred one."""

    weight: int
    term: Term


class Terms(Struct):
    """A list that may be empty, unlike none."""

    terms: list[Term] = []


class NodeAffinity(Struct):
    """Of a pod, or added by the operator."""

    required: Terms | list[Term] | None = None
    preferred: list[WeightedTerm] = []

    def required_terms(self) -> list[Term] | None:
        """The terms of which one has to hold, None when nothing is required."""
        return self.required.terms if isinstance(self.required, Terms) else self.required


class PodTerm(Struct, rename="camel"):
    """A term of inter-pod affinity."""

    topology_key: str
    label_selector: Selector | None = None
    namespaces: list[str] = []
    namespace_selector: Selector | None = None


class WeightedPodTerm(Struct):
    """A preferred one."""

    weight: int
    term: PodTerm


class PodAffinity(Struct):
    """Towards other pods, or away from them."""

    required: list[PodTerm] = []
    preferred: list[WeightedPodTerm] = []


class Affinity(Struct, rename="camel"):
    """All three kinds."""

    node: NodeAffinity | None = None
    pod: PodAffinity | None = None
    pod_anti: PodAffinity | None = None


class Spread(Struct, rename="camel"):
    """A topology spread constraint."""

    max_skew: int
    topology_key: str
    when_unsatisfiable: str
    label_selector: Selector | None = None
    min_domains: int | None = None
    node_affinity_policy: str | None = None
    node_taints_policy: str | None = None


class PortUse(Struct, rename="camel"):
    """A host port."""

    host_port: int = 0
    host_ip: str = field(default="", name="hostIP")
    protocol: str = ""


class Container(Struct):
    """What one container asks for."""

    requests: dict[str, int] = {}
    image: str = ""
    ports: list[PortUse] = []


class TolerationRow(Struct, rename="camel"):
    """A toleration."""

    key: str = ""
    operator: str = ""
    value: str = ""
    effect: str = ""
    toleration_seconds: int | None = None


class TaintRow(Struct):
    """A taint."""

    key: str
    effect: str
    value: str = ""


class Pod(Struct, rename="camel"):
    """The incoming one, or one that is there."""

    name: str = ""
    namespace: str = ""
    labels: dict[str, str] = {}
    node_name: str = ""
    nominated_node_name: str = ""
    node_selector: dict[str, str] = {}
    containers: list[Container] = []
    init_containers: list[Container] = []
    overhead: dict[str, int] = {}
    tolerations: list[TolerationRow] = []
    affinity: Affinity | None = None
    topology_spread: list[Spread] = []
    priority: int = 0
    preemption_policy: str = ""
    start_time_ns: int = 0
    terminating: bool = False


class Image(Struct, rename="camel"):
    """An image on a node."""

    names: list[str]
    size_bytes: int


class Node(Struct):
    """A node."""

    name: str = ""
    labels: dict[str, str] = {}
    taints: list[TaintRow] = []
    allocatable: dict[str, int] = {}
    images: list[Image] = []
    unschedulable: bool = False


class NamespaceRow(Struct):
    """A namespace with its labels."""

    name: str
    labels: dict[str, str] = {}


class Service(Struct):
    """A service; pods it selects are spread by default."""

    selector: dict[str, str] = {}
    namespace: str | None = None


class BudgetRow(Struct, rename="camel"):
    """A disruption budget."""

    disruptions_allowed: int
    selector: Selector | None = None
    namespace: str = ""
    disrupted_pods: list[str] = []


class Weight(Struct):
    """A resource that a strategy looks at."""

    name: str
    weight: int


class Point(Struct):
    """Of a shape; the score is 0 to 10."""

    utilization: int
    score: int


class Settings(Struct, rename="camel"):
    """How the rule is configured."""

    resources: list[Weight] = []
    strategy: str = ""
    shape: list[Point] = []
    ignored_resources: list[str] = []
    ignored_resource_groups: list[str] = []
    added_affinity: NodeAffinity | None = None
    hard_pod_affinity_weight: int = 1
    namespace_selector_enabled: bool = True
    defaulting_type: str = "List"
    default_constraints: list[Spread] = []
    node_inclusion_policy: bool = True
    comparison_operators: bool = False
    features: dict[str, bool] = {}
    filter: str | list[str] = []


class Case(Struct, kw_only=True, rename="camel"):
    """One question and its answer; what else a case carries (where it is from) is not looked at."""

    id: str
    plugin: str
    stage: str
    args: Settings = field(default_factory=Settings)
    pod: Pod
    nodes: list[Node]
    infeasible_nodes: list[Node] = []
    existing: list[Pod] = []
    namespaces: list[NamespaceRow] = []
    services: list[Service] = []
    pdbs: list[BudgetRow] = []
    normalized: bool = False
    expect: Any = None
    expect_error: Any = field(default=None, name="expect_error")
    expect_config_error: list[str] = field(default=[], name="expect_config_error")


class _Row(Struct):
    id: str


class _File(Struct):
    cases: list[dict[str, Any]]


def read_cases(data: bytes) -> list[dict[str, Any]]:
    """The cases of a file, each with an id; raises UsageError for anything else."""
    try:
        rows = msgspec.json.decode(data, type=_File).cases
        msgspec.convert(rows, list[_Row])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise UsageError(f"this is no file of cases: {error}", hint='it has to be {"cases": [{"id": …}, …]}') from None
    return rows


def read_case(row: dict[str, Any]) -> Case:
    """One case; raises msgspec.ValidationError when it is none."""
    kept = {name: row[name] for name in ("expect", "expect_error", "expect_config_error") if row.get(name) is not None}
    return msgspec.convert({**_without_null(row), **kept}, Case)


def _without_null(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _without_null(inner) for name, inner in value.items() if inner is not None}
    return [_without_null(inner) for inner in value if inner is not None] if isinstance(value, list) else value
