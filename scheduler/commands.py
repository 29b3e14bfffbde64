"""The commands that the log carries: every change of replicated state.

Owns: their types, version and encoding.  Must not know: how they are applied (`scheduler.state`).
Time, ids and choices come inside the command, so that apply is the same on every replica.
`time_ms` is Unix milliseconds of the proposer, for people and back-off, never for safety.
"""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta, Struct

from scheduler.model import LABELS_MAX, NO_RULES, TAINTS_MAX, Capacity, Exit, LabelKey, LabelValue, ResolvedJob, Taint

VERSION = 2
"""The newest that this program knows."""
COMMAND_BYTES_MAX = 1 << 20

TimeMs = Annotated[int, Meta(ge=0, le=1 << 53)]
Identity = Annotated[str, Meta(min_length=1, max_length=253)]
Sequence = Annotated[int, Meta(ge=-1, le=1 << 62)]
Epoch = Annotated[int, Meta(ge=0, le=1 << 62)]
Labels = Annotated[dict[LabelKey, LabelValue], Meta(max_length=LABELS_MAX)]
Taints = Annotated[tuple[Taint, ...], Meta(max_length=TAINTS_MAX)]


class RegisterNode(Struct, frozen=True, array_like=True, tag=1):
    """A node (re)joined with this incarnation (a random id of its sandboxer) and boot."""

    node: Identity
    incarnation: Identity
    boot_id: Identity
    capacity: Capacity
    isolation: str
    isolation_why: str
    address: str
    time_ms: TimeMs
    labels: Labels = {}
    taints: Taints = ()
    installation: str = ""
    """Random id of the agent's directory; "" from an agent that has none."""


class SubmitJob(Struct, frozen=True, array_like=True, tag=2):
    """Create or replace a job.  Idempotent by (namespace, job, request id)."""

    job: ResolvedJob
    request_id: str
    expected_version: int
    """Compare-and-set on the job's version; -1 = any, 0 = must be new."""
    time_ms: TimeMs


class StopJob(Struct, frozen=True, array_like=True, tag=3):
    """Stop a job: every live allocation gets a stop record."""

    namespace: str
    name: str
    request_id: str
    time_ms: TimeMs


class Placement(Struct, frozen=True, array_like=True):
    """One decision: `allocation` attempt `attempt` of job version `job_version` goes to `node`."""

    allocation: str
    attempt: int
    job_version: int
    node: str
    node_generation: int


class Plan(Struct, frozen=True, array_like=True, tag=4):
    """Placements decided together; each is re-checked at apply, refused one by one."""

    placements: tuple[Placement, ...]
    decided_by: str
    why: str
    time_ms: TimeMs
    ring_epoch: Epoch = 0
    """Epoch of the owners that the decider knew (`SetOwners`)."""


class AllocationStatus(Struct, frozen=True, array_like=True):
    """What a node saw of one attempt; lower (epoch, incarnation's, sequence) are ignored."""

    allocation: str
    epoch: int
    sequence: Sequence
    state: str
    """running | exited"""
    pid: Annotated[int, Meta(ge=0, le=1 << 31)]
    cgroup: str
    exit: Exit | None


class ReportStatus(Struct, frozen=True, array_like=True, tag=5):
    """A node's reports, in its order.  `incarnation` is the sandboxer's."""

    node: str
    incarnation: str
    reports: tuple[AllocationStatus, ...]
    time_ms: TimeMs


class StopUnknown(Struct, frozen=True, array_like=True, tag=6):
    """A node reported workloads that the state does not know: commit stop records for them."""

    node: str
    allocations: tuple[tuple[str, int], ...]
    """(allocation, epoch) pairs."""
    time_ms: TimeMs


class Loss(Struct, frozen=True, array_like=True):
    """A node whose leases have run out, by the arithmetic of the leader that proposes this."""

    node: str
    incarnation: str
    registered_index: int
    """Of the registration that this is about: a node that registered anew meanwhile is not lost."""
    silent_ms: int
    """For people."""


class NodesLost(Struct, frozen=True, array_like=True, tag=40):
    """Nodes are lost: what is on them is unknown from now on."""

    losses: tuple[Loss, ...]
    declared_by: str
    time_ms: TimeMs


class NodeSettled(Struct, frozen=True, array_like=True, tag=41):
    """The lease of a node's former incarnation has run out: it may get work."""

    node: str
    registered_index: int
    time_ms: TimeMs


class SetNodeState(Struct, frozen=True, array_like=True, tag=7):
    """Cordon or uncordon a node."""

    node: str
    state: str
    time_ms: TimeMs


class SetOwners(Struct, frozen=True, array_like=True, tag=20):
    """From `epoch` (the present one + 1) on, these replicas own the arcs of the ring."""

    epoch: Epoch
    owners: tuple[Identity, ...]
    decided_by: str
    why: str
    time_ms: TimeMs


class Collect(Struct, frozen=True, array_like=True, tag=25):
    """Forget jobs that finished long ago, longest finished first: which ones, the state decides.

    A job is forgotten when it finished before `finished_before_ms`, or while more than `keep_max`
    finished allocations would be left; at most about `allocations_max` of them at once.
    """

    finished_before_ms: TimeMs
    keep_max: Annotated[int, Meta(ge=0, le=1 << 40)]
    allocations_max: Annotated[int, Meta(ge=1, le=1 << 20)]
    time_ms: TimeMs


class SetNodeLabels(Struct, frozen=True, array_like=True, tag=26):
    """An operator gives a node labels, or takes back such ones; the agent's own are not touched."""

    node: str
    put: Labels
    remove: Annotated[tuple[str, ...], Meta(max_length=LABELS_MAX)]
    time_ms: TimeMs


class SetNodeTaints(Struct, frozen=True, array_like=True, tag=27):
    """An operator taints a node, or takes back such taints; the agent's own are not touched.

    What runs there and does not tolerate a NoExecute taint is stopped.
    """

    node: str
    put: Taints
    remove: Annotated[tuple[tuple[str, str], ...], Meta(max_length=TAINTS_MAX)]
    """(key, effect); effect "" takes back every effect of the key."""
    time_ms: TimeMs


Command = (
    RegisterNode
    | SubmitJob
    | StopJob
    | Plan
    | ReportStatus
    | StopUnknown
    | SetNodeState
    | SetOwners
    | NodesLost
    | NodeSettled
    | Collect
    | SetNodeLabels
    | SetNodeTaints
)


class Envelope(Struct, frozen=True, array_like=True):
    """Version and command, as the entry's data."""

    version: int
    command: Command


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Envelope)


def encode(command: Command) -> bytes:
    """The data of a COMMAND entry, of the lowest version that can say it.

    So a program of the version before reads on until a command really means something new to it.
    """
    return _encoder.encode(Envelope(version_of(command), command))


def version_of(command: Command) -> int:
    """The version since which a command is understood: 2 for jobs with rules or comparing tolerations."""
    if isinstance(command, SubmitJob):
        compares = any(toleration.operator in ("Gt", "Lt") for toleration in command.job.tolerations)
        return 2 if compares or command.job.rules != NO_RULES else 1
    return 1


def decode(data: bytes) -> Command:
    """Inverse of `encode`; raises msgspec.DecodeError or ValidationError."""
    return _decoder.decode(data).command
