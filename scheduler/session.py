"""What a node's agent and a replica say to each other over the session WebSocket.

Owns: the frames (MessagePack arrays, tagged).  Must not know: sockets, or what either side does.

The agent dials any replica's link port at ``/v1/agents`` with the link token, sends
`AgentHello`, gets `SessionAccepted` (or the WebSocket closes with a `SessionRefused` before).
`lc` and `hlc` in `Frame` carry the trace's clocks; `m` is the trace's message id.

Level-triggered (DESIGN.md §8): absence never stops anything; only a `StopOrder` does.
Lower (generation, index) pairs of `Desired` are ignored by the agent.
"""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta, Struct

from scheduler.commands import AllocationStatus, Labels, Taints
from scheduler.model import Capacity, Workload

SESSION_PATH = "/v1/agents"
FRAME_BYTES_MAX = 4 << 20
PROTOCOL_VERSION = 1


class AgentHello(Struct, frozen=True, array_like=True, tag=1):
    """Who dials."""

    protocol: int
    node: str
    incarnation: str
    boot_id: str
    cluster_id: str
    """The cluster this node worked for last, or "" (a node of another cluster is refused)."""
    capacity: Capacity
    isolation: str
    isolation_why: str
    address: str
    labels: Labels = {}
    taints: Taints = ()
    installation: str = ""
    """Random id of the agent's directory: two directories never work as one node at a time."""


class SessionAccepted(Struct, frozen=True, array_like=True, tag=2):
    """The replica holds this session now."""

    cluster_id: str
    replica: str
    leader: str | None
    lease_ms: int = 0
    """How long a renewal will last, to choose a pace by; each confirmation says it for itself."""


class SessionRefused(Struct, frozen=True, array_like=True, tag=3):
    """Why not; the WebSocket is closed after it."""

    code: str
    message: str
    hint: str


class Heartbeat(Struct, frozen=True, array_like=True, tag=4):
    """Renewal `number` (monotonic per agent process) with usage: allocation → (cpu_ns, memory_bytes, pids)."""

    number: int
    usage: dict[str, tuple[int, int, int]]
    node_usage: tuple[int, int]
    """(cpu_ns, memory_bytes) of all workloads of the node."""


class HeartbeatConfirmed(Struct, frozen=True, array_like=True, tag=5):
    """A quorum round that the leader began after it got renewal `number` has succeeded.

    The node's lease lasts `lease_ms` from the *send* of that number, for the registration of that
    index.  0 ms: the replica's session is good, but nothing is granted.
    """

    number: int
    index: int
    lease_ms: int = 0
    registration: int = 0


class Assignment(Struct, frozen=True, array_like=True):
    """One allocation the node shall run; `epoch` (the log index of its placement) is the fencing token."""

    allocation: str
    epoch: int
    attempt: int
    workload: Workload


class StopOrder(Struct, frozen=True, array_like=True):
    """A committed stop record."""

    allocation: str
    epoch: int
    index: int


class Desired(Struct, frozen=True, array_like=True, tag=6):
    """The set for this node at `index`, sent only after a ReadIndex barrier.

    One that is too large for a frame comes in parts, one after another, of the same generation and index.
    """

    generation: int
    index: int
    assignments: tuple[Assignment, ...]
    stops: tuple[StopOrder, ...]
    registration: int = 0
    """Index of the node's registration: `stop` workloads start only under a lease for the same one."""
    unsure: tuple[tuple[str, int], ...] = ()
    """(allocation, epoch) of attempts that the node has to tell of again, since it was lost."""
    more: bool = False
    """Another part of the same set follows: what this one does not name, the next may."""


class Status(Struct, frozen=True, array_like=True, tag=7):
    """Reports to commit; the agent resends each until acknowledged.

    `known_index` is the highest `Desired.index` the agent has seen; `unknown` names
    (allocation, epoch) pairs that run here but are in no set: the replica applies up to
    `known_index` first, then answers with a committed stop or an assignment.
    """

    number: int
    known_index: int
    reports: tuple[AllocationStatus, ...]
    unknown: tuple[tuple[str, int], ...]


class StatusCommitted(Struct, frozen=True, array_like=True, tag=8):
    """Everything of status `number` is committed and applied at `index`."""

    number: int
    index: int


class LogsRequest(Struct, frozen=True, array_like=True, tag=9):
    """Read workload output.  `cursor` is "" for the beginning, else as last returned."""

    id: int
    allocation: str
    cursor: str
    lines_max: Annotated[int, Meta(ge=1, le=10_000)]
    wait_ms: int
    """With nothing new, hold the answer up to this long (follow)."""


class LogLine(Struct, frozen=True, array_like=True):
    """One line of output; `t` Unix seconds when the node read it."""

    t: float
    stream: str
    text: str


class LogsReply(Struct, frozen=True, array_like=True, tag=10):
    """Answer to `LogsRequest`; `ended` = no more will come; `error` is a code or ""."""

    id: int
    lines: tuple[LogLine, ...]
    cursor: str
    ended: bool
    error: str


OWNER_IS = "owner is "
"""How a replica's `Goodbye.why` begins that sends an agent to its node's owner; the owner's id follows."""


class Goodbye(Struct, frozen=True, array_like=True, tag=11):
    """An orderly end: the other side should reconnect elsewhere (replica) or not at all (agent)."""

    why: str


SessionMessage = (
    AgentHello
    | SessionAccepted
    | SessionRefused
    | Heartbeat
    | HeartbeatConfirmed
    | Desired
    | Status
    | StatusCommitted
    | LogsRequest
    | LogsReply
    | Goodbye
)


class Frame(Struct, frozen=True, array_like=True):
    """One WebSocket binary message: trace id, Lamport clock, hybrid logical clock, message."""

    m: str
    lc: int
    hlc: int
    body: SessionMessage


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Frame)


def encode_frame(frame: Frame) -> bytes:
    """Wire bytes of a frame."""
    return _encoder.encode(frame)


def decode_frame(data: bytes) -> Frame:
    """Inverse of `encode_frame`; raises msgspec.DecodeError or ValidationError."""
    return _decoder.decode(data)
