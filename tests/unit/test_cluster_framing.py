"""The wire of links: round trips, cross-checks with another MessagePack reader, and refusals."""

from __future__ import annotations

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw
from msgspec.structs import astuple

from cluster import framing
from cluster.framing import (
    Answer,
    Consensus,
    Failure,
    Hello,
    Identity,
    LiveLink,
    Ping,
    Pong,
    Request,
    decode_frame,
    decode_hello,
    decode_item,
    encode_frame,
    encode_hello,
    encode_item,
    judge,
)
from raft.errors import ProtocolViolation
from raft.messages import (
    Append,
    AppendReply,
    Entry,
    Founding,
    FoundingAnswer,
    FoundingQuestion,
    VoteReply,
    VoteRequest,
)

STORE = "ab" * 16
MESSAGES = [
    Append(3, 7, 2, 6, 9, (Entry(3, 8, 1, b"x"), Entry(3, 9, 0, b""))),
    Append(3, 7, 2, 6, 9, ()),
    AppendReply(3, True, 9, 0, 0, 9),
    VoteRequest(4, 9, 3, True, False),
    VoteReply(4, True, True),
    FoundingQuestion(STORE),
    FoundingAnswer(STORE, True, STORE),
    Founding(Entry(1, 1, 2, b"conf")),
]
ITEMS = [
    *(Consensus(number, message) for number, message in enumerate(MESSAGES)),
    Ping(1, 2),
    Pong(1, 2),
    Request(5, "propose", 1000, b"body"),
    Answer(6, 5, b"result"),
    Failure(7, 5, "not-leader", "no", "ask n2", True, "not-done", b"{}"),
]


def plain(value):
    """A struct as the nested lists another reader sees: its tag first, then its fields."""
    if isinstance(value, tuple | list):
        return [plain(item) for item in value]
    if hasattr(value, "__struct_config__"):
        tag = value.__struct_config__.tag
        return ([tag] if tag is not None else []) + [plain(item) for item in astuple(value)]
    return value


@pytest.mark.parametrize("item", ITEMS, ids=lambda item: type(getattr(item, "message", item)).__name__)
def test_an_item_survives_and_another_reader_sees_the_same_list(item):
    data = encode_item(item)
    assert decode_item(Raw(data)) == item
    assert msgpack.unpackb(data) == plain(item)
    assert decode_item(Raw(msgpack.packb(plain(item)))) == item


def test_a_frame_is_one_array_that_another_reader_reads_whole():
    data = encode_frame(12, 34, [encode_item(item) for item in ITEMS])
    assert msgpack.unpackb(data) == [12, 34, [plain(item) for item in ITEMS]]
    frame = decode_frame(data)
    assert (frame.lc, frame.hlc, [decode_item(raw) for raw in frame.items]) == (12, 34, ITEMS)


def test_another_writers_bytes_are_ours():
    for item in ITEMS:
        assert msgpack.packb(plain(item)) == encode_item(item)


@given(st.binary(max_size=300))
def test_random_bytes_never_raise_anything_but_a_protocol_violation(data):
    try:
        for raw in decode_frame(data).items:
            decode_item(raw)
    except ProtocolViolation:
        pass


@given(st.integers(0, 400), st.integers(0, 255))
def test_a_flipped_byte_never_raises_anything_but_a_protocol_violation(position, value):
    data = bytearray(encode_frame(12, 34, [encode_item(item) for item in ITEMS]))
    data[position % len(data)] = value
    try:
        for raw in decode_frame(bytes(data)).items:
            decode_item(raw)
    except ProtocolViolation:
        pass


@pytest.mark.parametrize(
    "item",
    [
        [1, -1, [2, 1, True, 1, 0, 0, 0]],
        [1, 0, [2, -5, True, 1, 0, 0, 0]],
        [1, 0, [1, 1, 0, 0, 0, 0, [[1, 1, 1, "text"]]]],
        [1, 0, [5, "not a store id"]],
        [1, 0, [99, 1]],
        [4, 1, "m" * 65, 1000, b""],
        [4, 1, "m", 0, b""],
        [4, 1, "m", 1000, b"x" * (framing.REQUEST_BYTES_MAX + 1)],
        [6, 1, 1, "c", "m", "h", True, "perhaps", b""],
        [2, 1],
        {},
        None,
    ],
)
def test_values_outside_their_limits_are_refused(item):
    with pytest.raises(ProtocolViolation):
        decode_item(Raw(msgpack.packb(item)))


HELLO = Hello(1, "reef", "", 0, "n2", STORE, "aa", "n1")
ME = Identity("n1", "cd" * 16, "bb", "reef", "", 0)
PEERS = frozenset({"n2", "n3"})


def changed(**fields):
    return Hello(**{**{name: getattr(HELLO, name) for name in HELLO.__struct_fields__}, **fields})


def test_a_hello_survives_its_header_and_a_broken_one_is_a_violation():
    assert decode_hello(encode_hello(HELLO)) == HELLO
    for text in ("", "%%%", "AAAA", "é", encode_hello(HELLO)[:-8], "A" * 5000):
        with pytest.raises(ProtocolViolation):
            decode_hello(text)


@pytest.mark.parametrize(
    ("hello", "me", "live", "code"),
    [
        (HELLO, ME, (), None),
        (changed(cluster_id="a"), ME, (), None),
        (HELLO, Identity("n1", "", "bb", "reef", "a", 0), (), None),
        (changed(protocol=2), ME, (), framing.PROTOCOL_VERSION_DIFFERS),
        (changed(cluster_name="other"), ME, (), framing.WRONG_CLUSTER),
        (changed(cluster_id="a"), Identity("n1", "", "bb", "reef", "b", 0), (), framing.WRONG_CLUSTER),
        (changed(cluster_id="a", generation=1), Identity("n1", "", "bb", "reef", "a", 0), (), framing.WRONG_GENERATION),
        (changed(to="n3"), ME, (), framing.WRONG_NODE),
        (changed(node="n1"), ME, (), framing.DUPLICATE_NODE),
        (changed(node="n9"), ME, (), framing.UNKNOWN_NODE),
        (HELLO, ME, (LiveLink("n2", "aa", STORE),), None),
        (HELLO, ME, (LiveLink("n2", "cc", STORE),), framing.DUPLICATE_STORE),
        (HELLO, ME, (LiveLink("n3", "cc", STORE),), framing.DUPLICATE_STORE),
        (HELLO, ME, (LiveLink("n3", "cc", "ef" * 16),), None),
        (HELLO, ME, (LiveLink("n2", "cc", "ef" * 16),), framing.DUPLICATE_NODE),
        (HELLO, Identity("n1", STORE, "bb", "reef", "", 0), (), framing.DUPLICATE_STORE),
        (HELLO, Identity("n1", "", "bb", "reef", "", 0, ("ef" * 16, STORE)), (), framing.RETIRED_STORE),
        (HELLO, Identity("n1", "", "bb", "reef", "", 0, ("ef" * 16,)), (), None),
    ],
)
def test_the_judgement_of_a_hello(hello, me, live, code):
    refusal = judge(hello, me, PEERS, live)
    assert (refusal.code if refusal else None) == code
    assert refusal is None or (refusal.message and refusal.hint)
