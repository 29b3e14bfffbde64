"""A frame says what was put in, or nothing."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from raft.messages import COMMAND, Entry, HardState
from raft.store.frames import HEADER_BYTES, decode_body, decode_header, encode_body, encode_frame, frame_size

STATE = HardState(3, "n2")


def frame_of(entries: list[Entry], *, segment_id: int = 7, sequence: int = 9) -> bytes:
    first, last = (0, 0), (0, 0)
    if entries:
        first, last = (entries[0].index, entries[0].term), (entries[-1].index, entries[-1].term)
    body = encode_body(STATE, entries)
    return encode_frame(body, segment_id=segment_id, sequence=sequence, first=first, last=last, previous=5)[0]


entries_strategy = st.lists(st.binary(max_size=80), max_size=6).map(
    lambda datas: [Entry(3, 10 + place, COMMAND, data) for place, data in enumerate(datas)]
)


@given(entries_strategy)
def test_what_is_encoded_is_decoded(entries: list[Entry]) -> None:
    raw = frame_of(entries)
    header = decode_header(raw, 0)
    assert header is not None
    body = decode_body(raw, 0, header)
    assert body is not None
    assert (list(body.entries), body.hard_state) == (entries, STATE)
    assert (header.segment_id, header.sequence, header.previous) == (7, 9, 5)
    assert header.size == len(raw)
    assert len(raw) % 8 == 0


@given(entries_strategy, st.data())
def test_any_flipped_bit_is_noticed(entries: list[Entry], data: st.DataObject) -> None:
    raw = bytearray(frame_of(entries))
    raw[data.draw(st.integers(0, len(raw) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    header = decode_header(bytes(raw), 0)
    assert header is None or decode_body(bytes(raw), 0, header) is None


@given(entries_strategy, st.data())
def test_any_missing_tail_is_noticed(entries: list[Entry], data: st.DataObject) -> None:
    raw = frame_of(entries)
    kept = data.draw(st.integers(0, len(raw) - 1))
    cut = raw[:kept].ljust(len(raw), b"\0")
    header = decode_header(cut, 0)
    intact = header is not None and decode_body(cut, 0, header) is not None
    assert intact == (cut == raw), "only zeros may be missing unnoticed"


def test_a_frame_inside_an_entry_is_just_data() -> None:
    inner = frame_of([Entry(3, 1, COMMAND, b"x")], segment_id=1)
    outer = frame_of([Entry(3, 10, COMMAND, inner)], segment_id=2)
    place = outer.index(inner)
    header = decode_header(outer, place)
    assert header is not None
    assert header.segment_id == 1, "its segment gives it away"


def test_a_body_that_contradicts_its_header_is_refused() -> None:
    for first, last in [((10, 3), (11, 3)), ((11, 3), (10, 3)), ((10, 2), (10, 3)), ((0, 0), (0, 0))]:
        body = encode_body(STATE, [Entry(3, 10, COMMAND, b"x")])
        raw, _ = encode_frame(body, segment_id=7, sequence=9, first=first, last=last, previous=5)
        header = decode_header(raw, 0)
        assert header is not None
        assert decode_body(raw, 0, header) is None


def test_a_body_that_is_no_batch_is_refused() -> None:
    raw, _ = encode_frame(b"\xc1garbage", segment_id=7, sequence=9, first=(1, 1), last=(1, 1), previous=5)
    header = decode_header(raw, 0)
    assert header is not None
    assert decode_body(raw, 0, header) is None


def test_the_size_counts_header_and_padding() -> None:
    assert [frame_size(length) for length in (0, 1, 8, 9)] == [HEADER_BYTES + grown for grown in (0, 8, 8, 16)]
