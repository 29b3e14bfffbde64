"""Jobs, nodes and allocations: the words of the scheduler as checked data.

Owns: the job file's schema and the shapes that the API answers.  Field names are Kubernetes'
own where the meaning is the same (``restartPolicy``, ``terminationGracePeriodSeconds``,
``hostPort`` …); what only Skerry has is spelt in snake case.
Must not know: HTTP, files, time, or how placement works.

Units: CPU in millicores, memory in bytes, times in the unit their name ends with.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Literal

import msgspec
from msgspec import Meta, Struct, field

NAME_PATTERN = r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$(?!\n)"
"""``$`` alone would let a trailing newline pass."""
Name = Annotated[str, Meta(pattern=NAME_PATTERN, description="DNS label, RFC 1123")]
Quantity = Annotated[str, Meta(max_length=32, description="Kubernetes quantity, such as 250m or 64Mi")]
RequestId = Annotated[str, Meta(pattern=r"^[A-Za-z0-9._:-]{1,128}$(?!\n)")]

LABEL_KEY_PATTERN = r"^([a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?/)?[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?$(?!\n)"
LABEL_VALUE_PATTERN = r"^([A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?)?$(?!\n)"
LabelKey = Annotated[str, Meta(pattern=LABEL_KEY_PATTERN, description="label key, such as disk or example.org/disk")]
LabelValue = Annotated[str, Meta(pattern=LABEL_VALUE_PATTERN, description="label value, at most 63 characters")]

REPLICAS_MAX = 100_000
LABELS_MAX = 64
TAINTS_MAX = 64
TOLERATIONS_MAX = 64
TERMS_MAX = 32
REQUIREMENTS_MAX = 32
VALUES_MAX = 256
PRIORITY_MAX = 1_000_000_000
COMMAND_ARGUMENTS_MAX = 256
ENVIRONMENT_MAX = 256
PORTS_MAX = 64
JOB_FILE_BYTES_MAX = 256 << 10


class RestartPolicy(StrEnum):
    """When an exited workload is started again."""

    ALWAYS = "Always"
    ON_FAILURE = "OnFailure"
    NEVER = "Never"


class TaintEffect(StrEnum):
    """What a taint does to work that does not tolerate it."""

    NO_SCHEDULE = "NoSchedule"
    PREFER_NO_SCHEDULE = "PreferNoSchedule"
    NO_EXECUTE = "NoExecute"


class Taint(Struct, frozen=True, array_like=True):
    """Keeps work off a node; the same key may stand there once an effect."""

    key: LabelKey
    value: LabelValue
    effect: TaintEffect


class Toleration(Struct, frozen=True, forbid_unknown_fields=True):
    """Which taints a job puts up with.  An empty key (with Exists) or effect stands for every one.

    ``Gt`` and ``Lt`` compare whole numbers: the taint's value is to be above, or below, `value`.
    """

    key: Annotated[str, Meta(pattern=rf"(^$(?!\n))|{LABEL_KEY_PATTERN}")] = ""
    operator: Literal["Equal", "Exists", "Gt", "Lt"] = "Equal"
    value: LabelValue = ""
    effect: Literal["", "NoSchedule", "PreferNoSchedule", "NoExecute"] = ""


class Requirement(Struct, frozen=True, forbid_unknown_fields=True):
    """What a label is to be, as in Kubernetes' ``matchExpressions``.

    ``NotIn`` and ``DoesNotExist`` hold where the label is missing; ``Gt`` and ``Lt`` compare whole numbers.
    """

    key: LabelKey
    operator: Literal["In", "NotIn", "Exists", "DoesNotExist", "Gt", "Lt"]
    values: Annotated[tuple[LabelValue, ...], Meta(max_length=VALUES_MAX)] = ()


class NodeTerm(Struct, frozen=True, forbid_unknown_fields=True, rename="camel"):
    """A set of nodes: those for which all of this holds; an empty term is no node at all."""

    match_expressions: Annotated[tuple[Requirement, ...], Meta(max_length=REQUIREMENTS_MAX)] = ()
    match_fields: Annotated[tuple[Requirement, ...], Meta(max_length=REQUIREMENTS_MAX)] = ()
    """Of the node itself; there is one field, ``metadata.name``."""


class WeightedNodeTerm(Struct, frozen=True, forbid_unknown_fields=True):
    """Nodes that are preferred, and how strongly next to other preferences."""

    weight: Annotated[int, Meta(ge=1, le=100)]
    preference: NodeTerm


class LabelSelector(Struct, frozen=True, forbid_unknown_fields=True, rename="camel"):
    """Which workloads are meant; an empty selector means all of them."""

    match_labels: Annotated[dict[LabelKey, LabelValue], Meta(max_length=LABELS_MAX)] = field(default_factory=dict)
    match_expressions: Annotated[tuple[Requirement, ...], Meta(max_length=REQUIREMENTS_MAX)] = ()

    def requirements(self) -> tuple[Requirement, ...]:
        """All of it as requirements."""
        equal = (Requirement(key, "In", (value,)) for key, value in sorted(self.match_labels.items()))
        return (*equal, *self.match_expressions)


class NeighbourTerm(Struct, frozen=True, forbid_unknown_fields=True, rename="camel"):
    """Workloads in the same domain of `topology_key`.  No selector (None) means none of them."""

    topology_key: LabelKey
    label_selector: LabelSelector | None = None
    namespaces: Annotated[tuple[Name, ...], Meta(max_length=TERMS_MAX)] = ()
    namespace_selector: LabelSelector | None = None
    """With neither of the two it is about the workload's own namespace."""


class WeightedNeighbourTerm(Struct, frozen=True, forbid_unknown_fields=True, rename="camel"):
    """Neighbours that are preferred or better avoided, and how strongly."""

    weight: Annotated[int, Meta(ge=1, le=100)]
    pod_affinity_term: NeighbourTerm


class Neighbours(Struct, frozen=True, array_like=True):
    """A workload's rules about others: near which it has to be or would rather be, and from which apart."""

    near: tuple[NeighbourTerm, ...] = ()
    apart: tuple[NeighbourTerm, ...] = ()
    rather_near: tuple[WeightedNeighbourTerm, ...] = ()
    rather_apart: tuple[WeightedNeighbourTerm, ...] = ()


class SpreadConstraint(Struct, frozen=True, forbid_unknown_fields=True, rename="camel"):
    """How evenly workloads are to be spread over the domains of `topology_key`."""

    topology_key: LabelKey
    max_skew: Annotated[int, Meta(ge=1)] = 1
    when_unsatisfiable: Literal["DoNotSchedule", "ScheduleAnyway"] = "DoNotSchedule"
    label_selector: LabelSelector | None = None
    min_domains: Annotated[int, Meta(ge=1)] | None = None
    node_affinity_policy: Literal["Honor", "Ignore"] = "Honor"
    node_taints_policy: Literal["Honor", "Ignore"] = "Ignore"


_REQUIRED = "requiredDuringSchedulingIgnoredDuringExecution"
_PREFERRED = "preferredDuringSchedulingIgnoredDuringExecution"


class NodeTerms(Struct, frozen=True, forbid_unknown_fields=True, rename="camel"):
    """Terms of which one has to hold."""

    node_selector_terms: Annotated[tuple[NodeTerm, ...], Meta(min_length=1, max_length=TERMS_MAX)]


class NodeAffinity(Struct, frozen=True, forbid_unknown_fields=True):
    """Which nodes a job may go to, and which it prefers."""

    required: NodeTerms | None = field(default=None, name=_REQUIRED)
    preferred: Annotated[tuple[WeightedNodeTerm, ...], Meta(max_length=TERMS_MAX)] = field(default=(), name=_PREFERRED)


class WorkloadAffinity(Struct, frozen=True, forbid_unknown_fields=True):
    """Near which other workloads a job's are to be, or from which apart."""

    required: Annotated[tuple[NeighbourTerm, ...], Meta(max_length=TERMS_MAX)] = field(default=(), name=_REQUIRED)
    preferred: Annotated[tuple[WeightedNeighbourTerm, ...], Meta(max_length=TERMS_MAX)] = field(
        default=(), name=_PREFERRED
    )


class Affinity(Struct, frozen=True, forbid_unknown_fields=True, rename="camel"):
    """All three kinds, with Kubernetes' names."""

    node_affinity: NodeAffinity | None = None
    pod_affinity: WorkloadAffinity | None = None
    pod_anti_affinity: WorkloadAffinity | None = None


class Port(Struct, frozen=True, forbid_unknown_fields=True, rename="camel"):
    """A TCP port that the workload needs on its node's address."""

    name: Name
    host_port: Annotated[int, Meta(ge=1, le=65535)]
    container_port: Annotated[int, Meta(ge=1, le=65535)] | None = None
    """Where a workload with its own network listens; None: the same number."""


class ResourceSet(Struct, frozen=True, forbid_unknown_fields=True):
    """Amounts as written by the user."""

    cpu: Quantity | None = None
    memory: Quantity | None = None
    pids: Annotated[int, Meta(ge=1, le=4_194_304)] | None = None


class Resources(Struct, frozen=True, forbid_unknown_fields=True):
    """What placement books (`requests`) and what the cgroup enforces (`limits`)."""

    requests: ResourceSet = field(default_factory=ResourceSet)
    limits: ResourceSet = field(default_factory=ResourceSet)


class JobSpec(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A job file (TOML, YAML or JSON), as written."""

    name: Name
    namespace: Name = "default"
    kind: Literal["service", "batch"] = "service"
    replicas: Annotated[int, Meta(ge=0, le=REPLICAS_MAX)] = 1
    command: Annotated[
        tuple[Annotated[str, Meta(max_length=32_768)], ...], Meta(min_length=1, max_length=COMMAND_ARGUMENTS_MAX)
    ]
    env: Annotated[dict[str, Annotated[str, Meta(max_length=32_768)]], Meta(max_length=ENVIRONMENT_MAX)] = field(
        default_factory=dict
    )
    resources: Resources = field(default_factory=Resources)
    ports: Annotated[tuple[Port, ...], Meta(max_length=PORTS_MAX)] = ()
    network: Literal["host", "none", "bridge"] | None = None
    restart_policy: RestartPolicy | None = field(default=None, name="restartPolicy")
    backoff_limit: Annotated[int, Meta(ge=0, le=1000)] | None = field(default=None, name="backoffLimit")
    termination_grace_period_seconds: Annotated[int, Meta(ge=0, le=3600)] = field(
        default=5, name="terminationGracePeriodSeconds"
    )
    on_disconnect: Literal["keep", "stop"] = "keep"
    priority: Annotated[int, Meta(ge=-PRIORITY_MAX, le=PRIORITY_MAX)] = 0
    node_selector: Annotated[dict[LabelKey, LabelValue], Meta(max_length=LABELS_MAX)] = field(
        default_factory=dict, name="nodeSelector"
    )
    tolerations: Annotated[tuple[Toleration, ...], Meta(max_length=TOLERATIONS_MAX)] = ()
    labels: Annotated[dict[LabelKey, LabelValue], Meta(max_length=LABELS_MAX)] = field(default_factory=dict)
    affinity: Affinity | None = None
    spread: Annotated[tuple[SpreadConstraint, ...], Meta(max_length=TERMS_MAX)] = field(
        default=(), name="topologySpreadConstraints"
    )


Amount = Annotated[int, Meta(ge=0, le=1 << 60)]
"""Of a resource; sums of two stay within int64."""


class Limits(Struct, frozen=True, array_like=True):
    """What the cgroup enforces; 0 = no limit asked for."""

    cpu_millicores: int
    memory_bytes: int
    pids: int


class Workload(Struct, frozen=True, array_like=True):
    """Everything a node needs to start one allocation; immutable bytes by hash in the state."""

    job: str
    namespace: str
    kind: str
    command: tuple[str, ...]
    env: dict[str, str]
    limits: Limits
    ports: tuple[tuple[str, int], ...]
    grace_s: int
    on_disconnect: str
    network: str = ""
    """host | none | bridge; empty: bridge where the node has one, else host."""
    container_ports: tuple[int, ...] = ()
    """One for each of `ports`; empty: the same numbers."""


class Rules(Struct, frozen=True, array_like=True):
    """What a job asks of nodes and neighbours beyond `nodeSelector` and tolerations."""

    labels: tuple[tuple[str, str], ...] = ()
    """Of its workloads, by which other jobs' rules may mean them; sorted."""
    node_terms: tuple[NodeTerm, ...] | None = None
    """Of which one has to hold; None asks for nothing."""
    node_preferences: tuple[WeightedNodeTerm, ...] = ()
    neighbours: Neighbours = Neighbours()
    spread: tuple[SpreadConstraint, ...] = ()


NO_RULES = Rules()


class ResolvedJob(Struct, frozen=True, array_like=True):
    """A job file after its defaults and units are worked out; what SubmitJob carries."""

    workload: Workload
    replicas: Annotated[int, Meta(ge=0, le=REPLICAS_MAX)]
    cpu_millicores: Amount
    memory_bytes: Amount
    pids: Amount
    restart_policy: RestartPolicy
    backoff_limit: int
    """Failed attempts of one allocation before it stays failed; -1 = no bound."""
    priority: int = 0
    """Higher is placed first; at most `PRIORITY_MAX` either way."""
    node_selector: tuple[tuple[str, str], ...] = ()
    """Labels that a node must have, sorted."""
    tolerations: tuple[Toleration, ...] = ()
    rules: Rules = NO_RULES


class Capacity(Struct, frozen=True, array_like=True):
    """What a node offers."""

    cpu_millicores: Amount
    memory_bytes: Amount
    pids: Amount


class AllocationState(StrEnum):
    """Life of one attempt, as committed (table in `scheduler.lifecycle`)."""

    PLACED = "placed"
    RUNNING = "running"
    STOPPING = "stopping"
    COMPLETE = "complete"
    FAILED = "failed"
    STOPPED = "stopped"
    LOST = "lost"
    UNKNOWN = "unknown"


class ExitReason(StrEnum):
    """Why a workload ended, by the node's own evidence."""

    EXITED = "exited"
    SIGNALED = "signaled"
    OOM = "oom"
    STOPPED = "stopped"
    START_FAILED = "start-failed"
    LOST = "lost"
    LEASE = "lease"
    """Its node ended it because the node's lease had run out."""


class Exit(Struct, frozen=True):
    """How a workload ended.  `code` and `signal` are None unless `status_known`."""

    code: int | None
    signal: int | None
    reason: str
    status_known: bool
    detail: str = ""


class NodeState(StrEnum):
    """Whether a node takes new work."""

    READY = "ready"
    CORDONED = "cordoned"


def job_id(namespace: str, name: str) -> str:
    """``namespace/name``, the key of a job."""
    return f"{namespace}/{name}"


def allocation_id(namespace: str, name: str, index: int) -> str:
    """``namespace/name.index``, the key of one slot of a job."""
    return f"{namespace}/{name}.{index}"


def command_bytes(value: Struct) -> bytes:
    """Canonical MessagePack of a struct of this module."""
    return msgspec.msgpack.encode(value)
