"""What travels on a link, and the rules of admission: bytes in, checked data out.

Owns: the wire types of links, their limits, and the judgement of a hello.
Must not know: sockets, tasks, or what a consensus message means.

A link is one WebSocket in one direction: only its dialer sends frames, answers come back on the
reverse link.  The dialer's hello travels in the headers of the upgrade request, so a refusal is
an ordinary HTTP answer and nothing unauthenticated ever reaches the frame decoder.  The listening side
sends one message, its welcome.

A frame is the MessagePack array ``[lamport, hlc, [item, …]]``; an item is an array whose first
element is its tag.  ``counter`` is the last part of the trace's message id (0 = not traced).
"""

from __future__ import annotations

import base64
import binascii
from typing import Annotated

import msgspec
from msgspec import Meta, Raw, Struct

from raft.errors import ProtocolViolation
from raft.messages import Message

PROTOCOL_VERSION = 1
LINK_PATH = "/v1/links"
HELLO_HEADER = "Skerry-Hello"
REFUSED_HEADER = "Skerry-Refused"

FRAME_BYTES_MAX = 8 << 20
"""Largest frame; a claim of more closes the link before a byte of it is buffered."""
BATCH_BYTES = 1 << 20
"""A frame takes no further item once it holds this much."""
REQUEST_BYTES_MAX = 4 << 20
"""Largest body of a request or an answer."""
HELLO_BYTES_MAX = 2048

WRONG_CLUSTER = "wrong-cluster"
WRONG_GENERATION = "wrong-generation"
BAD_TOKEN = "bad-token"  # noqa: S105  the name of a refusal
PROTOCOL_VERSION_DIFFERS = "protocol-version"
WRONG_NODE = "wrong-node"
UNKNOWN_NODE = "unknown-node"
DUPLICATE_STORE = "duplicate-store"
DUPLICATE_NODE = "duplicate-node"
RETIRED_STORE = "retired-store"
BAD_HELLO = "bad-hello"
TOO_MANY_LINKS = "too-many-links"

Counter = Annotated[int, Meta(ge=0, lt=1 << 62)]
Clock = Annotated[int, Meta(ge=0, lt=1 << 62)]
Short = Annotated[str, Meta(max_length=256)]
Body = Annotated[bytes, Meta(max_length=REQUEST_BYTES_MAX)]


class Hello(Struct, frozen=True, array_like=True):
    """Who dials whom.  `cluster_id` is "" until the dialer's cluster is formed."""

    protocol: int
    cluster_name: Short
    cluster_id: Short
    generation: int
    node: Short
    store_id: Short
    incarnation: Short
    to: Short


class Welcome(Struct, frozen=True, array_like=True):
    """Who answers; the hello was accepted."""

    protocol: int
    node: Short
    store_id: Short
    incarnation: Short
    cluster_id: Short


class Consensus(Struct, frozen=True, array_like=True, tag=1):
    """One message of consensus; losing it is legal."""

    counter: Counter
    message: Message


class Ping(Struct, frozen=True, array_like=True, tag=2):
    """The dialer asks for proof that link number `link` still carries anything."""

    link: Counter
    number: Counter


class Pong(Struct, frozen=True, array_like=True, tag=3):
    """Proof, sent on the reverse link."""

    link: Counter
    number: Counter


class Request(Struct, frozen=True, array_like=True, tag=4):
    """A call to the peer; `id` is also its message counter.  The peer gives up after `timeout_ms`.

    A `quiet` one, and its answer, is outside the trace's sample.
    """

    id: Counter
    method: Annotated[str, Meta(max_length=64)]
    timeout_ms: Annotated[int, Meta(ge=1, le=3_600_000)]
    body: Body
    quiet: bool = False


class Answer(Struct, frozen=True, array_like=True, tag=5):
    """The result of request `id`; a `counter` of 0 is not in the trace."""

    counter: Counter
    id: Counter
    body: Body


class Failure(Struct, frozen=True, array_like=True, tag=6):
    """Request `id` failed.  `details` is JSON text; a `counter` of 0 is not in the trace."""

    counter: Counter
    id: Counter
    code: Annotated[str, Meta(max_length=64)]
    message: Annotated[str, Meta(max_length=4096)]
    hint: Annotated[str, Meta(max_length=4096)]
    retryable: bool
    outcome: Annotated[str, Meta(pattern="^(not-done|unknown)$")]
    details: Annotated[bytes, Meta(max_length=65_536)]


Item = Consensus | Ping | Pong | Request | Answer | Failure


class Frame(Struct, frozen=True, array_like=True):
    """A batch of items with the sender's clocks after all of them were recorded."""

    lc: Clock
    hlc: Clock
    items: Annotated[tuple[Raw, ...], Meta(max_length=8192)]


class Identity(Struct, frozen=True):
    """Who this process is at this moment, as hellos are judged against it.

    `retired` are the stores that the committed configuration has replaced: they may not speak any more.
    """

    node: str
    store_id: str
    incarnation: str
    cluster_name: str
    cluster_id: str
    generation: int
    retired: tuple[str, ...] = ()


class LiveLink(Struct, frozen=True):
    """A link that carried something just now: whose it is, of which process, on which store."""

    node: str
    incarnation: str
    store_id: str


class Refusal(Struct, frozen=True):
    """Why a hello is not accepted, for both sides' logs."""

    code: str
    message: str
    hint: str


_encoder = msgspec.msgpack.Encoder()
_frame_decoder = msgspec.msgpack.Decoder(Frame)
_item_decoder: msgspec.msgpack.Decoder[Item] = msgspec.msgpack.Decoder(Item)
_hello_decoder = msgspec.msgpack.Decoder(Hello)
_welcome_decoder = msgspec.msgpack.Decoder(Welcome)


def encode_item(item: Item) -> bytes:
    """Wire bytes of one item."""
    return _encoder.encode(item)


def encode_frame(lc: int, hlc: int, items: list[bytes]) -> bytes:
    """Wire bytes of a frame of encoded items."""
    return _encoder.encode(Frame(lc, hlc, tuple(map(Raw, items))))


def decode_frame(data: bytes) -> Frame:
    """The frame, its items still raw; raises ProtocolViolation."""
    try:
        return _frame_decoder.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ProtocolViolation(f"a frame of {len(data)} bytes is malformed: {error}") from None


def decode_item(raw: Raw) -> Item:
    """One checked item; raises ProtocolViolation."""
    try:
        return _item_decoder.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ProtocolViolation(f"an item is malformed: {error}") from None


def encode_hello(hello: Hello) -> str:
    """Header text of a hello."""
    return base64.urlsafe_b64encode(_encoder.encode(hello)).decode("ascii")


def decode_hello(text: str) -> Hello:
    """Inverse of `encode_hello`; raises ProtocolViolation."""
    if len(text) > HELLO_BYTES_MAX:
        raise ProtocolViolation(f"a hello of {len(text)} characters is longer than {HELLO_BYTES_MAX}")
    try:
        return _hello_decoder.decode(base64.urlsafe_b64decode(text.encode("ascii")))
    except (msgspec.DecodeError, UnicodeError, binascii.Error, ValueError) as error:
        raise ProtocolViolation(f"the hello is malformed: {error}") from None


def encode_welcome(welcome: Welcome) -> bytes:
    """The only message that the listening side sends on a link."""
    return _encoder.encode(welcome)


def decode_welcome(data: bytes) -> Welcome:
    """Inverse of `encode_welcome`; raises ProtocolViolation."""
    try:
        return _welcome_decoder.decode(data)
    except (msgspec.DecodeError, UnicodeError) as error:
        raise ProtocolViolation(f"the welcome is malformed: {error}") from None


def judge(hello: Hello, me: Identity, peers: frozenset[str], live: tuple[LiveLink, ...]) -> Refusal | None:
    """Whether to let a dialer in whose token is right; None = yes.

    Args:
        hello: what it says.
        me: who answers.
        peers: ids that may dial.
        live: links that carried something just now.
    """
    if hello.protocol != PROTOCOL_VERSION:
        return Refusal(
            PROTOCOL_VERSION_DIFFERS,
            f"{hello.node} speaks link protocol {hello.protocol}, {me.node} speaks {PROTOCOL_VERSION}",
            "run versions of Skerry that share a link protocol",
        )
    if hello.cluster_name != me.cluster_name:
        return _wrong_cluster(hello, me, hello.cluster_name, me.cluster_name)
    if hello.cluster_id and me.cluster_id:
        if hello.cluster_id != me.cluster_id:
            return _wrong_cluster(hello, me, hello.cluster_id, me.cluster_id)
        if hello.generation != me.generation:
            return Refusal(
                WRONG_GENERATION,
                f"{hello.node} is of generation {hello.generation}, {me.node} of {me.generation}",
                "one of the two was restored from a backup; restore the other as well",
            )
    if hello.to != me.node:
        return Refusal(
            WRONG_NODE,
            f"{hello.node} wants {hello.to}, but this address is {me.node}",
            f"correct the address of {hello.to} in replica.peers of {hello.node}",
        )
    return _judge_name(hello, me, peers) or _judge_store(hello, me, live)


def _judge_name(hello: Hello, me: Identity, peers: frozenset[str]) -> Refusal | None:
    if hello.node == me.node:
        return Refusal(
            DUPLICATE_NODE, f"another process calls itself {me.node}", "give each replica its own replica.id"
        )
    if hello.node not in peers:
        return Refusal(UNKNOWN_NODE, f"{me.node} knows no replica {hello.node}", "add it to replica.peers everywhere")
    return None


def _judge_store(hello: Hello, me: Identity, live: tuple[LiveLink, ...]) -> Refusal | None:
    """A store speaks through one live process, and never again after it was replaced."""
    store = hello.store_id
    if store in me.retired:
        return Refusal(
            RETIRED_STORE,
            f"store {store[:8]}… of {hello.node} was replaced by another one and has no voice any more",
            "stop this process; start the replica with the directory that took its place, or with an empty one",
        )
    others = [link for link in live if link.incarnation != hello.incarnation]
    if store == me.store_id or store in [link.store_id for link in others]:
        return Refusal(
            DUPLICATE_STORE,
            f"store {store[:8]}… of {hello.node} is in use by another live process",
            "stop the other process; never start a copy of a data directory",
        )
    if hello.node in [link.node for link in others]:
        return Refusal(
            DUPLICATE_NODE,
            f"another live process calls itself {hello.node}",
            "give each replica its own replica.id, or stop the other process",
        )
    return None


def _wrong_cluster(hello: Hello, me: Identity, theirs: str, ours: str) -> Refusal:
    return Refusal(
        WRONG_CLUSTER,
        f"{hello.node} belongs to cluster {theirs!r}, {me.node} to {ours!r}",
        "check cluster.name, the data directories and the addresses in replica.peers",
    )
