"""What replicas say to each other, and the entries they agree on.

Owns: the wire types of consensus; MessagePack arrays, tagged by a small integer, decoded by
msgspec into checked types.  Must not know: sockets, files, or what an entry's data means.

Terms and indexes are positive; 0 means "none".  Times are nanoseconds, sizes bytes.
"""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta, Struct

Term = Annotated[int, Meta(ge=0, lt=1 << 62)]
Index = Annotated[int, Meta(ge=0, lt=1 << 62)]
ReplicaId = Annotated[str, Meta(pattern=r"^[a-z][a-z0-9-]{0,30}$")]
StoreId = Annotated[str, Meta(pattern=r"^[0-9a-f]{32}$")]

ENTRY_BYTES_MAX = 4 << 20
"""Largest data of one entry."""

#: Kinds of entry.  NOOP opens a leader's term (§5.4.2, §8); CONFIGURATION is the member list.
NOOP, COMMAND, CONFIGURATION = 0, 1, 2


class Entry(Struct, frozen=True, array_like=True, gc=False):
    """One slot of the replicated log (§5.3)."""

    term: Term
    index: Index
    kind: int
    data: Annotated[bytes, Meta(max_length=ENTRY_BYTES_MAX)]


class Configuration(Struct, frozen=True, array_like=True):
    """Who may vote.  Encoded as the data of a CONFIGURATION entry.

    Entry 1 of every cluster is the first configuration: it fixes the random cluster id and
    binds each replica id to the random id of its store (DESIGN.md §3, Identity).
    """

    cluster_id: StoreId
    generation: int
    voters: dict[ReplicaId, StoreId]


class HardState(Struct, frozen=True, array_like=True):
    """What must survive a crash before it is relied upon (Figure 2, persistent state)."""

    term: Term
    voted_for: str | None


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
    """Whether the sender's store is empty, and which store it is."""

    store_id: StoreId
    empty: bool


class Founding(Struct, frozen=True, array_like=True, tag=7):
    """Entry 1, offered to an empty replica whose store it names; answered by `AppendReply`."""

    entry: Entry


Message = Append | AppendReply | VoteRequest | VoteReply | FoundingQuestion | FoundingAnswer | Founding

_encoder = msgspec.msgpack.Encoder()
_configuration_decoder = msgspec.msgpack.Decoder(Configuration)


def encode_configuration(configuration: Configuration) -> bytes:
    """The data of a CONFIGURATION entry."""
    return _encoder.encode(configuration)


def decode_configuration(data: bytes) -> Configuration:
    """Inverse of `encode_configuration`; raises msgspec.DecodeError or ValidationError."""
    return _configuration_decoder.decode(data)
