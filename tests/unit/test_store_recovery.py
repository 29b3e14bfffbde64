"""After a crash a store holds what it promised, or says that it does not."""

from __future__ import annotations

import errno
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chaos.disk import ForgettingDisk
from cluster.dice import SeededDice
from raft.errors import DiskFull, StoreCorrupt, StoreError
from raft.messages import COMMAND, Entry, HardState
from raft.store.frames import decode_header
from raft.store.log_store import LogStore
from raft.store.segments import HEADER_BYTES, segment_name

SEGMENT_BYTES = 8192


def opened(disk: ForgettingDisk) -> LogStore:
    return LogStore.open(
        disk, node_id="n1", cluster_name="blue", dice=SeededDice(disk.operations), segment_bytes=SEGMENT_BYTES
    )


def entries(first: int, count: int, *, term: int = 1, size: int = 100) -> list[Entry]:
    return [Entry(term, index, COMMAND, bytes([index % 251]) * size) for index in range(first, first + count)]


def content(store: LogStore) -> tuple[HardState, list[Entry]]:
    return store.recovered.hard_state, list(store.recovered.entries)


def frames(disk: ForgettingDisk, number: int = 1) -> list[tuple[int, int]]:
    """(offset, end) of the frames of a segment."""
    raw = disk.open(segment_name(number)).read_at(0, SEGMENT_BYTES)
    found, offset = [], HEADER_BYTES
    while (header := decode_header(raw, offset)) is not None:
        found.append((offset, offset + header.size))
        offset += header.size
    return found


def filled(disk: ForgettingDisk, count: int = 6, *, size: int = 100) -> LogStore:
    """`count` frames of one entry each."""
    store = opened(disk)
    for entry in entries(1, count, size=size):
        store.append(HardState(1, "n2") if entry.index == 1 else None, [entry])
    return store


class Model:
    """What a log store must hold."""

    def __init__(self) -> None:
        self.hard_state = HardState(0, None)
        self.entries: list[Entry] = []

    def append(self, hard_state: HardState | None, new: list[Entry]) -> None:
        self.hard_state = hard_state or self.hard_state
        if new:
            del self.entries[new[0].index - 1 :]
            self.entries.extend(new)


operation = st.tuples(
    st.sampled_from(["append", "append", "append", "replace", "term", "crash", "kill", "close", "spare"]),
    st.integers(0, 12),
    st.integers(0, 900),
)


@settings(max_examples=60, deadline=None)
@given(st.lists(operation, max_size=40), st.integers(0, 1 << 30), st.booleans())
def test_every_restart_finds_what_was_appended(operations: list[tuple[str, int, int]], seed: int, torn: bool) -> None:
    disk = ForgettingDisk(Random(seed), torn=torn)
    store, model = opened(disk), Model()
    for kind, count, size in operations:
        if kind in ("crash", "kill", "close"):
            {"crash": disk.crash, "kill": disk.kill, "close": store.close}[kind]()
            disk = disk.reopen()
            store = opened(disk)
            assert content(store) == (model.hard_state, model.entries)
            continue
        if kind == "spare":
            store.prepare_spare()
            continue
        term = model.hard_state.term + (kind in ("term", "replace"))
        hard_state = HardState(term, None if count % 2 else "n3") if term != model.hard_state.term else None
        first = max(1, len(model.entries) + 1 - (count if kind == "replace" else 0))
        new = entries(first, count, term=term, size=size) if kind != "term" and term else []
        store.append(hard_state, new)
        model.append(hard_state, new)
    disk.crash()
    assert content(opened(disk.reopen())) == (model.hard_state, model.entries)


@settings(max_examples=150, deadline=None)
@given(st.integers(0, SEGMENT_BYTES - 1), st.integers(0, 7))
def test_a_flipped_bit_never_changes_what_is_read(offset: int, bit: int) -> None:
    disk = ForgettingDisk(Random(1))
    store = filled(disk)
    places = frames(disk)
    store.close()
    disk = disk.reopen()
    disk.rot(segment_name(1), offset, 1 << bit)
    in_last = places[-1][0] <= offset < places[-1][1]
    in_earlier = HEADER_BYTES <= offset < places[-1][0]
    try:
        found = opened(disk)
    except StoreCorrupt:
        assert offset < places[-1][0], "a damaged last frame is torn, not corrupt"
    else:
        assert not in_earlier, "damage before the last frame touches promises"
        assert content(found) == (HardState(1, "n2"), entries(1, 5 if in_last else 6))


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 5), st.integers(0, 5), st.integers(0, 100))
def test_a_zeroed_range_before_the_last_frame_retires_the_store(first: int, last: int, inside: int) -> None:
    disk = ForgettingDisk(Random(1))
    store = filled(disk)
    places = frames(disk)
    store.close()
    disk = disk.reopen()
    start, end = places[min(first, last)][0] + inside, places[max(first, last)][1]
    disk.open(segment_name(1)).write_at(start, bytes(end - start))
    if max(first, last) < 5:
        with pytest.raises(StoreCorrupt, match="torn tail"):
            opened(disk)
    elif inside == 0 or min(first, last) == 5:  # as if never written, or one torn frame
        assert content(opened(disk)) == (
            HardState(1, "n2") if first and last else HardState(0, None),
            entries(1, min(first, last)),
        )


@pytest.mark.parametrize("length", [0, 100, HEADER_BYTES, 1000, SEGMENT_BYTES - 1])
def test_a_cut_segment_file_retires_the_store(length: int) -> None:
    disk = ForgettingDisk(Random(1))
    filled(disk).close()
    disk = disk.reopen()
    name = segment_name(1)
    kept = disk.open(name).read_at(0, length)
    disk.remove(name)
    disk.open(name, create=True).write_at(0, kept)
    with pytest.raises(StoreCorrupt):
        opened(disk)


def test_a_missing_segment_retires_the_store() -> None:
    disk = ForgettingDisk(Random(1))
    filled(disk, 150).close()
    disk = disk.reopen()
    assert segment_name(3) in disk.names(), "the test needs several segments"
    disk.remove(segment_name(2))
    with pytest.raises(StoreCorrupt, match="is missing"):
        opened(disk)


def test_a_swapped_segment_retires_the_store() -> None:
    disk = ForgettingDisk(Random(1))
    filled(disk, 150).close()
    disk = disk.reopen()
    first = disk.open(segment_name(1)).read_at(0, SEGMENT_BYTES)
    disk.open(segment_name(2)).write_at(0, first)
    with pytest.raises(StoreCorrupt, match="was written as segment 1"):
        opened(disk)


def test_damage_at_the_end_of_a_full_segment_is_not_a_torn_tail() -> None:
    disk = ForgettingDisk(Random(1))
    filled(disk, 150).close()
    disk = disk.reopen()
    disk.rot(segment_name(1), frames(disk, 1)[-1][0] + 80)
    with pytest.raises(StoreCorrupt, match="written after it") as caught:
        opened(disk)
    assert caught.value.hint


def test_a_vote_missing_at_the_end_of_a_full_segment_is_noticed() -> None:
    disk = ForgettingDisk(Random(1))
    store = opened(disk)
    for term in range(1, 120):
        store.append(HardState(term, "n2"), [])
    store.close()
    disk = disk.reopen()
    start, end = frames(disk, 1)[-1]
    disk.open(segment_name(1)).write_at(start, bytes(end - start))
    with pytest.raises(StoreCorrupt, match="does not continue the chain"):
        opened(disk)


def test_two_damaged_frames_at_the_end_are_not_a_torn_tail() -> None:
    disk = ForgettingDisk(Random(1))
    filled(disk).close()
    disk = disk.reopen()
    for offset, _ in frames(disk)[-2:]:
        disk.rot(segment_name(1), offset + 80)
    with pytest.raises(StoreCorrupt):
        opened(disk)


def test_a_torn_frame_is_cut_and_its_place_used_again() -> None:
    disk = ForgettingDisk(Random(1))
    store = filled(disk)
    place = frames(disk)[-1][1]
    store.close()
    disk = disk.reopen()
    file = disk.open(segment_name(1))
    file.write_at(place + 512, b"the end of a frame whose beginning never arrived")
    file.sync()
    store = opened(disk)
    assert store.torn_bytes > 0
    assert content(store) == (HardState(1, "n2"), entries(1, 6))
    store.append(None, entries(7, 1))
    disk.crash()
    assert content(opened(disk.reopen())) == (HardState(1, "n2"), entries(1, 7))


def test_the_remains_of_a_cut_frame_are_gone_for_good() -> None:
    disk = ForgettingDisk(Random(1))
    store = filled(disk)
    (start, end), name = frames(disk)[-1], segment_name(1)
    torn = disk.open(name).read_at(start, end - start)
    store.close()
    disk = disk.reopen()
    disk.rot(name, start + 75)
    opened(disk).close()
    disk = disk.reopen()
    assert disk.open(name).read_at(start, len(torn)) == bytes(len(torn))
    disk.crash()
    assert disk.reopen().open(name).read_at(start, len(torn)) == bytes(len(torn))


def test_the_last_frame_is_made_durable_before_it_is_relied_upon() -> None:
    disk = ForgettingDisk(Random(1))
    store = filled(disk)
    disk.fail("sync")
    with pytest.raises(StoreError, match="could not be written"):
        store.append(None, entries(7, 1))
    disk.kill()  # the process stops; the page cache still shows what the disk does not have
    disk = disk.reopen()
    assert content(opened(disk))[1] == entries(1, 7)
    disk.crash()
    assert content(opened(disk.reopen()))[1] == entries(1, 7), "it was read, so it may have been told"


@pytest.mark.parametrize("operation", ["write", "sync"])
def test_a_failed_write_is_never_tried_again(operation: str) -> None:
    disk = ForgettingDisk(Random(1))
    store = filled(disk)
    disk.fail(operation)  # type: ignore[arg-type]
    with pytest.raises(StoreError, match="could not be written") as caught:
        store.append(None, entries(7, 1))
    assert caught.value.hint
    with pytest.raises(StoreError, match="could not be written"):
        store.append(None, entries(7, 1))


def test_a_lying_sync_loses_what_was_promised() -> None:
    disk = ForgettingDisk(Random(1))
    opened(disk).close()
    disk = disk.reopen()
    disk.lying = True
    store = opened(disk)
    store.append(HardState(1, "n2"), entries(1, 3))
    disk.crash()
    disk = disk.reopen()
    disk.lying = False
    assert content(opened(disk)) == (HardState(0, None), []), "else these tests prove nothing about sync"


def test_recovery_may_be_interrupted_anywhere() -> None:
    for point in range(1, 60):
        disk = ForgettingDisk(Random(point), torn=True)
        store = filled(disk)
        place = frames(disk)[-1][1]
        store.close()
        disk = disk.reopen()
        disk.open(segment_name(1)).write_at(place + 16, b"torn")
        disk.crash_at(point)
        try:
            opened(disk)
        except StoreError:
            disk = disk.reopen()
            assert content(opened(disk)) == (HardState(1, "n2"), entries(1, 6))
        else:
            return
    raise AssertionError("recovery takes fewer operations than that")


def test_a_batch_larger_than_a_segment_gets_a_segment_of_its_own() -> None:
    disk = ForgettingDisk(Random(1))
    store = filled(disk)
    store.prepare_spare()
    store.append(None, entries(7, 3, size=SEGMENT_BYTES))
    store.append(None, entries(10, 1))
    disk.crash()
    assert content(opened(disk.reopen()))[1] == entries(1, 6) + entries(7, 3, size=SEGMENT_BYTES) + entries(10, 1)


def test_a_batch_larger_than_a_frame_becomes_several() -> None:
    disk = ForgettingDisk(Random(1))
    store = opened(disk)
    many = entries(1, 5, size=3 << 20)
    store.append(HardState(1, None), many)
    assert store.frames == 3
    disk.crash()
    assert content(opened(disk.reopen())) == (HardState(1, None), many)


def test_a_full_disk_still_takes_terms_and_votes() -> None:
    disk = ForgettingDisk(Random(1), capacity_bytes=SEGMENT_BYTES + 1000)
    store = opened(disk)
    store.prepare_spare()
    assert store.full
    index = 1
    while store.headroom_bytes > 300:
        store.append(HardState(1, None) if index == 1 else None, entries(index, 1))
        index += 1
    for term in range(2, 30):
        store.append(HardState(term, "n3"), [])
    disk.crash()
    assert content(opened(disk.reopen())) == (HardState(29, "n3"), entries(1, index - 1))


def test_a_full_disk_leaves_no_half_made_segment_and_recovers_when_space_is_freed() -> None:
    disk = ForgettingDisk(Random(1), capacity_bytes=SEGMENT_BYTES + 1000)
    store = opened(disk)
    before = disk.names()
    store.prepare_spare()
    assert (store.full, store.needs_spare, disk.names()) == (True, True, before)
    disk.capacity_bytes = None
    store.prepare_spare()
    assert (store.full, store.needs_spare) == (False, False)
    assert store.headroom_bytes > 0


def test_filling_ahead_ends_when_the_store_is_to_be_closed() -> None:
    disk = ForgettingDisk(Random(1))
    store = LogStore.open(disk, node_id="n1", cluster_name="blue", dice=SeededDice(1))
    before, writes = disk.names(), disk.counts["write"]
    store.append(HardState(1, "n1"), entries(1, 1))
    original, calls = disk.open, []

    def open_and_interrupt(name: str, *, create: bool = False) -> object:
        calls.append(name)
        store.interrupt()
        return original(name, create=create)

    disk.open = open_and_interrupt  # type: ignore[method-assign, assignment]
    store.prepare_spare()
    assert calls
    assert disk.names() == before, "nothing half-made stays"
    assert disk.counts["write"] - writes < 5
    store.append(None, entries(2, 1))
    store.close()
    assert content(LogStore.open(disk.reopen(), node_id="n1", cluster_name="blue", dice=SeededDice(1)))[1] == entries(
        1, 2
    )


def test_a_batch_that_finds_no_room_changes_nothing() -> None:
    disk = ForgettingDisk(Random(1), capacity_bytes=SEGMENT_BYTES + 1000)
    store = filled(disk)
    with pytest.raises(DiskFull):
        store.append(None, entries(7, 1, size=SEGMENT_BYTES))
    store.append(None, entries(7, 1))
    disk.crash()
    assert content(opened(disk.reopen()))[1] == entries(1, 7)


def test_an_unreadable_disk_is_a_store_error() -> None:
    disk = ForgettingDisk(Random(1))
    filled(disk).close()
    disk = disk.reopen()
    disk.fail("read", errno.EIO, after=1)
    with pytest.raises(StoreError, match="could not be read") as caught:
        opened(disk)
    assert caught.value.hint


def test_promises_are_never_taken_back_even_by_mistake() -> None:
    store = filled(ForgettingDisk(Random(1)))
    for hard_state, new in [
        (HardState(0, None), []),
        (HardState(1, "n3"), []),
        (None, entries(9, 1)),
        (None, entries(7, 1, term=2)),
    ]:
        with pytest.raises(AssertionError):
            store.append(hard_state, new)
