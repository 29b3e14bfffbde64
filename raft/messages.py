"""What replicas say to each other, and the entries they agree on.

Owns: the wire types of consensus; MessagePack arrays, tagged by a small integer, decoded by
msgspec into checked types.  Must not know: sockets, files, or what an entry's data means.

Terms and indexes are positive; 0 means "none".  Times are nanoseconds, sizes bytes.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta, Struct

Term = Annotated[int, Meta(ge=0, lt=1 << 62)]
Index = Annotated[int, Meta(ge=0, lt=1 << 62)]
ReplicaId = Annotated[str, Meta(pattern=r"^[a-z][a-z0-9-]{0,30}$")]
StoreId = Annotated[str, Meta(pattern=r"^[0-9a-f]{32}$")]
Digest = Annotated[str, Meta(pattern=r"^[0-9a-f]{1,16}:[0-9a-f]{1,64}$")]
"""How it was worked out, a colon, and the digest; those worked out in different ways are not compared."""

ENTRY_BYTES_MAX = 4 << 20
"""Largest data of one entry."""

SNAPSHOT_CHUNK_BYTES_MAX = 1 << 20
"""Largest piece of a snapshot in one message."""

RETIRED_MAX = 256
"""Replaced stores that a configuration remembers."""

#: Kinds of entry.  NOOP opens a leader's term (§5.4.2, §8); CONFIGURATION is the member list.
NOOP, COMMAND, CONFIGURATION = 0, 1, 2


class Entry(Struct, frozen=True, array_like=True, gc=False):
    """One slot of the replicated log (§5.3)."""

    term: Term
    index: Index
    kind: int
    data: Annotated[bytes, Meta(max_length=ENTRY_BYTES_MAX)]


class Configuration(Struct, frozen=True):
    """Who may vote, and who only follows.  Encoded as the data of a CONFIGURATION entry.

    Entry 1 of every cluster is the first configuration: it fixes the random cluster id and
    binds each replica id to the random id of its store (DESIGN.md §3, Identity).

    Attributes:
        cluster_id, generation: which cluster, and which of its restores.
        voters: replica id → store id; their majority decides.
        learners: replicas that get the log and count in no majority (dissertation §4.2.1).
        outgoing: not empty in a joint configuration (§6): the old voters, whose majority must agree too.
        retired: stores that were replaced; they never vote or acknowledge again.  The newest `RETIRED_MAX`.
    """

    cluster_id: StoreId
    generation: int
    voters: dict[ReplicaId, StoreId]
    learners: dict[ReplicaId, StoreId] = {}
    outgoing: dict[ReplicaId, StoreId] = {}
    retired: tuple[StoreId, ...] = ()


class HardState(Struct, frozen=True, array_like=True):
    """What must survive a crash before it is relied upon (Figure 2, persistent state)."""

    term: Term
    voted_for: str | None


class Base(Struct, frozen=True, array_like=True):
    """Where a log begins: the position before its first entry, and the prefix hash there.  (0, 0, …) is a whole log."""

    index: Index
    term: Term
    prefix_hash: Annotated[int, Meta(ge=0)]


class Append(Struct, frozen=True, array_like=True, tag=1):
    """AppendEntries (§5.3); empty `entries` is a heartbeat.  `sequence` numbers quorum rounds."""

    term: Term
    prev_index: Index
    prev_term: Term
    commit_index: Index
    sequence: int
    entries: tuple[Entry, ...]


class AppendReply(Struct, frozen=True, array_like=True, tag=2):
    """Answer to `Append`.

    Accepted: `match_index` is the last index known durable here and equal to the leader's.
    Refused: `match_index` is the Append's `prev_index`; `hint_term`/`hint_index` are the
    conflicting term and its first index here, or the log's end (§5.3, fast back-up).
    """

    term: Term
    accepted: bool
    match_index: Index
    hint_term: Term
    hint_index: Index
    sequence: int


class VoteRequest(Struct, frozen=True, array_like=True, tag=3):
    """RequestVote (§5.2, §5.4.1).  With `pre` a trial that changes no term (dissertation §9.6)."""

    term: Term
    last_index: Index
    last_term: Term
    pre: bool
    transfer: bool


class VoteReply(Struct, frozen=True, array_like=True, tag=4):
    """Answer to `VoteRequest`; a granted pre-vote carries the term asked for."""

    term: Term
    granted: bool
    pre: bool


class FoundingQuestion(Struct, frozen=True, array_like=True, tag=5):
    """An empty replica asks an initial peer whether it is empty too."""

    store_id: StoreId


class FoundingAnswer(Struct, frozen=True, array_like=True, tag=6):
    """Whether the sender's store is empty, and which store it is; `asker` is the one that asked."""

    store_id: StoreId
    empty: bool
    asker: StoreId


class Founding(Struct, frozen=True, array_like=True, tag=7):
    """Entry 1, offered to an empty replica whose store it names; answered by `AppendReply`."""

    entry: Entry


class SnapshotId(Struct, frozen=True, array_like=True):
    """Which snapshot file: the last entry it stands for, its length in bytes and its whole CRC32C.

    Two replicas may write the same state in other bytes: only pieces of one file make a file.
    """

    index: Index
    term: Term
    size_bytes: Annotated[int, Meta(ge=0, lt=1 << 48)]
    checksum: Annotated[int, Meta(ge=0, lt=1 << 32)]


class SnapshotHeader(Struct, frozen=True, array_like=True):
    """What a snapshot says of itself, before the state's bytes (§7: last included index and term, configuration).

    Attributes:
        base: the last entry it stands for, with the prefix hash of the log up to there.
        tail: where its writer's log began afterwards, at or before `base`: a few entries stay for slow followers.
        configuration_index, configuration: the configuration in force at `base`, and the entry that brought it.
    """

    base: Base
    tail: Base
    configuration_index: Index
    configuration: bytes


class Snapshot(Struct, frozen=True):
    """One complete and durable snapshot file."""

    header: SnapshotHeader
    size_bytes: int
    checksum: int

    @property
    def index(self) -> int:
        """The last entry it stands for."""
        return self.header.base.index

    @property
    def term(self) -> int:
        """That entry's term."""
        return self.header.base.term

    @property
    def id(self) -> SnapshotId:
        """Its name among replicas."""
        return SnapshotId(self.index, self.term, self.size_bytes, self.checksum)


class SnapshotChunk(Struct, frozen=True, array_like=True, tag=8):
    """InstallSnapshot (§7), one piece of the file; empty `data` asks how much the receiver has already."""

    term: Term
    snapshot: SnapshotId
    offset: Annotated[int, Meta(ge=0, lt=1 << 48)]
    data: Annotated[bytes, Meta(max_length=SNAPSHOT_CHUNK_BYTES_MAX)]


class SnapshotReply(Struct, frozen=True, array_like=True, tag=9):
    """Answer to `SnapshotChunk`: the receiver wants the file from byte `offset` on.

    That the snapshot is installed is said by an accepting `AppendReply` instead.
    """

    term: Term
    snapshot: SnapshotId
    offset: Annotated[int, Meta(ge=0, lt=1 << 48)]


class JoinRequest(Struct, frozen=True, array_like=True, tag=10):
    """A replica with a store that no configuration names asks the leader to take it in (§6)."""

    store_id: StoreId


class Admission(Struct, frozen=True, array_like=True, tag=11):
    """The sender's configuration names this store: whoever has it may take the log, from nothing."""

    store_id: StoreId


class TimeoutNow(Struct, frozen=True, array_like=True, tag=12):
    """The leader of `term` hands over: whoever gets this stands for election at once (dissertation §3.10)."""

    term: Term


class DigestReport(Struct, frozen=True, array_like=True, tag=13):
    """The sender's state machine, after applying `index`, has this digest; `asks` for the receiver's in return."""

    index: Index
    digest: Digest
    asks: bool


class RefetchRequest(Struct, frozen=True, array_like=True, tag=14):
    """A follower has given its state up and wants the leader's of some index above `after`; its log it keeps."""

    term: Term
    after: Index


Message = (
    Append
    | AppendReply
    | VoteRequest
    | VoteReply
    | FoundingQuestion
    | FoundingAnswer
    | Founding
    | SnapshotChunk
    | SnapshotReply
    | JoinRequest
    | Admission
    | TimeoutNow
    | DigestReport
    | RefetchRequest
)

_encoder = msgspec.msgpack.Encoder()


class _ConfigurationV1(Struct, frozen=True, array_like=True):
    """Without a version: the first field is the cluster id."""

    cluster_id: StoreId
    generation: int
    voters: dict[ReplicaId, StoreId]


class _ConfigurationV2(Struct, frozen=True, array_like=True):
    """A number first, so that a program that knows only the first version refuses it."""

    version: Literal[2]
    cluster_id: StoreId
    generation: int
    voters: dict[ReplicaId, StoreId]
    learners: dict[ReplicaId, StoreId]
    outgoing: dict[ReplicaId, StoreId]
    retired: Annotated[tuple[StoreId, ...], Meta(max_length=RETIRED_MAX)]


_v1_decoder = msgspec.msgpack.Decoder(_ConfigurationV1)
_v2_decoder = msgspec.msgpack.Decoder(_ConfigurationV2)


def encode_configuration(configuration: Configuration) -> bytes:
    """The data of a CONFIGURATION entry."""
    c = configuration
    return _encoder.encode(_ConfigurationV2(2, c.cluster_id, c.generation, c.voters, c.learners, c.outgoing, c.retired))


def decode_configuration(data: bytes) -> Configuration:
    """Inverse of `encode_configuration`, for every version; raises msgspec.DecodeError or ValidationError."""
    try:
        v2 = _v2_decoder.decode(data)
    except msgspec.ValidationError:
        v1 = _v1_decoder.decode(data)
        return Configuration(v1.cluster_id, v1.generation, v1.voters)
    return Configuration(v2.cluster_id, v2.generation, v2.voters, v2.learners, v2.outgoing, v2.retired)
