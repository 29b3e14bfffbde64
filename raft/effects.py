"""Everything a replica can ask of the world, in the order it must be carried out.

Owns: the outputs of the protocol.  Must not know: how they are carried out.

The contract with the driver: effects are carried out in order.  A `Persist` may stay in
flight while later steps run, but effects marked "after" wait until every `Persist`
that came before them is durable; the driver then answers with `Persisted`, and releases them
after the effects of that step.
"""

from __future__ import annotations

from enum import StrEnum

from msgspec import Struct

from raft.messages import Base, Configuration, Entry, HardState, Message, Snapshot, SnapshotChunk, SnapshotId


class Role(StrEnum):
    """Follower, pre-candidate, candidate, leader (§5.1; dissertation §9.6)."""

    FOLLOWER = "follower"
    PRE_CANDIDATE = "pre-candidate"
    CANDIDATE = "candidate"
    LEADER = "leader"


class Persist(Struct, frozen=True):
    """Write `hard_state` (if any) and `entries`, replacing the log from the first entry's index on.

    `write` numbers the writes of this process from 1; `Persisted` repeats it.  With `base` the whole log on disk is
    given up for a snapshot: it begins anew behind `base`, with `entries`.
    """

    write: int
    hard_state: HardState | None
    entries: tuple[Entry, ...]
    base: Base | None = None


class Send(Struct, frozen=True):
    """Send `message`; with `after_persist`, not before all earlier writes are durable."""

    to: str
    message: Message
    after_persist: bool


class Apply(Struct, frozen=True):
    """These entries are committed: apply them in order, once."""

    entries: tuple[Entry, ...]


class ProposalAppended(Struct, frozen=True):
    """Proposal `id` became entry (term, index); its fate is known when that index is applied."""

    id: int
    term: int
    index: int


class ProposalRefused(Struct, frozen=True):
    """Proposal `id` was not appended.

    `code`: not-leader, handing-over, state-diverged, overloaded, log-full, disk-full.
    """

    id: int
    code: str
    leader: str | None


class ReadReady(Struct, frozen=True):
    """Read `id` may be answered from any state that has applied `index`."""

    id: int
    index: int


class ReadRefused(Struct, frozen=True):
    """Read `id` cannot be answered here.  `code`: not-leader, no-quorum."""

    id: int
    code: str
    leader: str | None


class HandedOver(Struct, frozen=True):
    """What caller `id` asked for is done: `leader` leads now."""

    id: int
    leader: str


class HandOverRefused(Struct, frozen=True):
    """Caller `id` gets no hand-over.  `code`: not-leader, no-successor."""

    id: int
    code: str
    leader: str | None


class RoleChanged(Struct, frozen=True):
    """The role, term or known leader changed; `why` in words of the protocol."""

    role: Role
    term: int
    leader: str | None
    why: str


class Reconfigured(Struct, frozen=True):
    """Another configuration counts from now on: that of entry `index`; None when there is none any more."""

    index: int
    configuration: Configuration | None


class VoteCast(Struct, frozen=True):
    """This replica's vote of `term` for `candidate` is durable; emitted once it is, on `Persisted`."""

    term: int
    candidate: str
    why: str


class Appended(Struct, frozen=True):
    """Entries first..last of this replica's log became durable; emitted once they are, on `Persisted`.

    `hashes` are (index, rolling prefix hash): every index of a short range, every 64th of a long one, and `last`.
    """

    term: int
    first: int
    last: int
    hashes: tuple[tuple[int, int], ...]


class Committed(Struct, frozen=True):
    """The commit index rose from `first` - 1 to `last`; `hashes` as in `Appended`."""

    term: int
    first: int
    last: int
    hashes: tuple[tuple[int, int], ...]


class SendChunk(Struct, frozen=True):
    """Send `to` a `SnapshotChunk` of `term`: at most `bytes_max` of that snapshot's file from `offset` on."""

    to: str
    term: int
    snapshot: SnapshotId
    offset: int
    bytes_max: int


class TakeChunk(Struct, frozen=True):
    """Write this piece of a snapshot down; answered by `ChunkTaken` or `SnapshotReceived`.  May be dropped."""

    chunk: SnapshotChunk


class Restore(Struct, frozen=True):
    """Replace the state machine's state by this snapshot; entries handed out before and not applied are void."""

    snapshot: Snapshot


class TakeSnapshot(Struct, frozen=True):
    """Take a snapshot soon: somebody needs one of an index above `after`."""

    after: int


class TakeDigest(Struct, frozen=True):
    """Work out the digest of the state at `index`, if that is what is applied now; answered by `Digested`."""

    index: int


class Diverged(Struct, frozen=True):
    """The own state at `index` is not what a majority of the voters has: stop using it (see `events.StateDropped`).

    `digest` is the own one, `agreed` that of the voters `holders`.
    """

    index: int
    digest: str
    agreed: str
    holders: tuple[str, ...]


class Split(Struct, frozen=True):
    """At `index` voters have different states, and no majority agrees: writes are halted.  No `digests`: it is over.

    `digests` are (replica, digest) of the voters that are known.
    """

    index: int
    digests: tuple[tuple[str, str], ...]


class Installed(Struct, frozen=True):
    """The log begins behind this snapshot, durably; emitted once it does, on `Persisted`."""

    term: int
    base: Base


Effect = (
    Persist
    | Send
    | Apply
    | ProposalAppended
    | ProposalRefused
    | ReadReady
    | ReadRefused
    | HandedOver
    | HandOverRefused
    | RoleChanged
    | Reconfigured
    | VoteCast
    | Appended
    | Committed
    | SendChunk
    | TakeChunk
    | Restore
    | TakeSnapshot
    | TakeDigest
    | Diverged
    | Split
    | Installed
)
