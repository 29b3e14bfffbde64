"""The commands that the log carries: every change of replicated state.

Owns: their types, version and encoding.  Must not know: how they are applied (`scheduler.state`).
Time, ids and choices come inside the command, so that apply is the same on every replica.
`time_ms` is Unix milliseconds of the proposer, for people and back-off, never for safety.
"""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta, Struct

from scheduler.model import Capacity, Exit, ResolvedJob

VERSION = 1
COMMAND_BYTES_MAX = 1 << 20

TimeMs = Annotated[int, Meta(ge=0, le=1 << 53)]
Identity = Annotated[str, Meta(min_length=1, max_length=253)]
Sequence = Annotated[int, Meta(ge=-1, le=1 << 62)]


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


class SetNodeState(Struct, frozen=True, array_like=True, tag=7):
    """Cordon or uncordon a node."""

    node: str
    state: str
    time_ms: TimeMs


Command = RegisterNode | SubmitJob | StopJob | Plan | ReportStatus | StopUnknown | SetNodeState


class Envelope(Struct, frozen=True, array_like=True):
    """Version and command, as the entry's data."""

    version: int
    command: Command


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Envelope)


def encode(command: Command) -> bytes:
    """The data of a COMMAND entry."""
    return _encoder.encode(Envelope(VERSION, command))


def decode(data: bytes) -> Command:
    """Inverse of `encode`; raises msgspec.DecodeError or ValidationError."""
    return _decoder.decode(data).command
