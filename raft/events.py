"""Everything that can happen to a replica, as data for `Core.step`.

Owns: the inputs of the protocol.  Must not know: who produces them.
"""

from __future__ import annotations

from msgspec import Struct

from raft.messages import Message, Snapshot, SnapshotId


class Tick(Struct, frozen=True):
    """Time has come to at least the deadline the core asked for."""

    now_ns: int


class Received(Struct, frozen=True):
    """A message arrived from replica `sender`, whose process runs on store `store` (said when its link was made)."""

    now_ns: int
    sender: str
    message: Message
    store: str


class Proposal(Struct, frozen=True, gc=False):
    """One command to replicate; `id` is unique within the process."""

    id: int
    data: bytes


class Proposed(Struct, frozen=True):
    """Callers want these commands replicated, in this order, as one batch."""

    now_ns: int
    proposals: tuple[Proposal, ...]


class HandOver(Struct, frozen=True):
    """Caller `id` wants this leader to hand its leadership over: to voter `to`, or to whoever can take it soonest."""

    now_ns: int
    id: int
    to: str | None = None


class ReadRequested(Struct, frozen=True):
    """Callers want linearizable reads (dissertation §6.4); one answer an id."""

    now_ns: int
    ids: tuple[int, ...]


class Persisted(Struct, frozen=True):
    """A `Persist` is durable: the hard state, and entries up to (term, index).

    `last_term`/`last_index` name the last entry of the log at the time of the write, so a
    suffix overwritten meanwhile never counts as durable (the ABA race).
    """

    now_ns: int
    write: int
    last_term: int
    last_index: int


class ApplyDone(Struct, frozen=True):
    """The state machine has applied everything up to `index`."""

    now_ns: int
    index: int


class Digested(Struct, frozen=True):
    """The state machine's state right after it had applied `index` has this digest (see `messages.Digest`)."""

    now_ns: int
    index: int
    digest: str


class StateDropped(Struct, frozen=True):
    """The state machine's state is given up: nothing is applied to it, no snapshot is taken of it any more."""

    now_ns: int


class SnapshotTaken(Struct, frozen=True):
    """An own snapshot is durable: the log before it may go."""

    now_ns: int
    snapshot: Snapshot


class ChunkTaken(Struct, frozen=True):
    """So much of this incoming snapshot's file is here; the next byte wanted is at `offset`."""

    now_ns: int
    snapshot: SnapshotId
    offset: int


class SnapshotReceived(Struct, frozen=True):
    """An incoming snapshot is complete, checked and durable under its name."""

    now_ns: int
    snapshot: Snapshot


class SnapshotLost(Struct, frozen=True):
    """The file of this snapshot cannot be read (any more): nobody can be sent it."""

    now_ns: int
    snapshot: SnapshotId


Event = (
    Tick
    | Received
    | Proposed
    | HandOver
    | ReadRequested
    | Persisted
    | ApplyDone
    | Digested
    | StateDropped
    | SnapshotTaken
    | ChunkTaken
    | SnapshotReceived
    | SnapshotLost
)
