"""Snapshot files, and log and snapshots together: whatever step the power goes at, nothing durable is lost."""

from __future__ import annotations

from collections.abc import Iterator
from random import Random

import pytest

from chaos.disk import ForgettingDisk
from chaos.platter import PowerLost
from cluster.dice import SeededDice
from raft.errors import StoreCorrupt, StoreError
from raft.log import Log
from raft.messages import COMMAND, Entry, HardState, Snapshot, SnapshotChunk, SnapshotHeader
from raft.store.log_store import LogStore
from raft.store.segments import segment_number
from raft.store.snapshots import RECORD_BYTES_MAX, SnapshotDamaged, SnapshotStore, file_name

SEGMENT_BYTES = 4096


def opened(disk: ForgettingDisk) -> LogStore:
    return LogStore.open(disk, node_id="n1", cluster_name="c", dice=SeededDice(3), segment_bytes=SEGMENT_BYTES)


def entries(first: int, last: int, term: int = 1) -> list[Entry]:
    return [Entry(term, index, COMMAND, b"%d" % index * 20) for index in range(first, last + 1)]


LOG = Log(entries(1, 400))


def header_at(index: int, tail: int = 0) -> SnapshotHeader:
    return SnapshotHeader(LOG.base_at(index), LOG.base_at(index - tail), 1, b"configuration")


def pieces(index: int) -> Iterator[bytes]:
    return iter([b"state at ", b"%d" % index, b"." * 500])


def filled(disk: ForgettingDisk, upto: int) -> LogStore:
    store = opened(disk)
    for first in range(1, upto, 10):
        store.append(HardState(1, "n1"), entries(first, first + 9))
    return store


def state_of(store: LogStore, snapshot: Snapshot) -> bytes:
    return b"".join(store.snapshots.chunks(snapshot))


def segments(disk: ForgettingDisk) -> list[int]:
    return [number for name in disk.names() if (number := segment_number(name)) is not None]


def test_a_snapshot_is_read_back_as_it_was_written_whatever_the_sizes_of_its_pieces() -> None:
    disk = ForgettingDisk(Random(1))
    store = filled(disk, 20)
    data = [b"", b"a" * (RECORD_BYTES_MAX + 5), b"b", b"c" * 3000]
    written = store.snapshots.write(header_at(10), iter(data))
    store.close()
    disk.crash()
    again = opened(disk.reopen())
    assert again.recovered.snapshot == written
    assert state_of(again, written) == b"".join(data)


def test_the_log_goes_on_from_the_snapshot_and_keeps_its_tail() -> None:
    disk = ForgettingDisk(Random(1))
    store = filled(disk, 100)
    store.snapshots.write(header_at(60, tail=15), pieces(60))
    store.close()
    found = opened(disk.reopen()).recovered
    assert found.base == LOG.base_at(45)
    assert [found.entries[0].index, found.entries[-1].index] == [46, 100]


def test_segments_go_only_when_two_snapshots_stand_for_them() -> None:
    disk = ForgettingDisk(Random(1))
    store = filled(disk, 200)
    before = segments(disk)
    store.snapshots.write(header_at(100), pieces(100))
    assert store.tidy() == 0
    store.snapshots.write(header_at(200), pieces(200))
    assert store.tidy() > 0
    assert segments(disk) == before[-len(segments(disk)) :], "from the front"
    store.snapshots.write(header_at(200, tail=20), iter([b"again"]))
    store.close()
    found = opened(disk.reopen())
    assert found.recovered.snapshot is not None
    assert (found.last_index, found.hard_state) == (200, HardState(1, "n1"))


def test_a_damaged_snapshot_is_set_aside_and_the_one_before_it_is_used() -> None:
    disk = ForgettingDisk(Random(1))
    store = filled(disk, 200)
    older = store.snapshots.write(header_at(100), pieces(100))
    newest = store.snapshots.write(header_at(200), pieces(200))
    store.tidy()
    store.close()
    for offset in (0, 14, 60, 300, newest.size_bytes - 3):
        twin = disk.copy()
        twin._platter.inode = disk.inode()
        twin.rot(file_name(newest.id), offset)
        again = opened(twin)
        assert again.recovered.snapshot == older, offset
        assert again.snapshots.damaged == [file_name(newest.id)]
        assert again.last_index == 200
        assert state_of(again, older).startswith(b"state at 100")


def test_a_log_without_its_front_and_without_an_intact_snapshot_retires_the_store() -> None:
    disk = ForgettingDisk(Random(1))
    store = filled(disk, 200)
    for index in (100, 200):
        store.snapshots.write(header_at(index), pieces(index))
    assert store.tidy() > 0
    store.close()
    for snapshot in store.snapshots.held:
        disk.rot(file_name(snapshot.id), 40)
    with pytest.raises(StoreCorrupt, match="no intact snapshot"):
        opened(disk.reopen())


def test_a_snapshot_of_another_log_retires_the_store() -> None:
    disk = ForgettingDisk(Random(1))
    store = filled(disk, 100)
    base, tail = LOG.base_at(60), LOG.base_at(40)
    wrong = SnapshotHeader(type(base)(60, 1, 12345), tail, 1, b"configuration")
    store.snapshots.write(wrong, pieces(60))
    store.close()
    with pytest.raises(StoreCorrupt, match="not the one that its snapshot stands for"):
        opened(disk.reopen())


def test_an_install_begins_the_log_anew_and_what_came_before_goes() -> None:
    disk = ForgettingDisk(Random(1))
    store = filled(disk, 100)
    snapshot = store.snapshots.write(header_at(300), pieces(300))
    store.append(HardState(2, None), entries(301, 303, 2), snapshot.header.base)
    assert store.tidy() > 0, "nothing before it is needed"
    store.close()
    again = opened(disk.reopen())
    assert (again.recovered.base, again.last_index) == (snapshot.header.base, 303)
    again.append(None, entries(303, 305, 2))
    again.close()
    assert opened(disk.reopen()).recovered.entries[-1].index == 305


def test_a_log_behind_its_base_needs_that_very_snapshot() -> None:
    disk = ForgettingDisk(Random(1))
    store = filled(disk, 100)
    snapshot = store.snapshots.write(header_at(300), pieces(300))
    store.append(HardState(2, None), (), snapshot.header.base)
    store.close()
    disk.rot(file_name(snapshot.id), 60)
    with pytest.raises(StoreCorrupt, match="no intact snapshot"):
        opened(disk.reopen())


def test_power_that_goes_between_a_received_snapshot_and_the_new_log_loses_nothing() -> None:
    disk = ForgettingDisk(Random(1))
    store = filled(disk, 100)
    snapshot = store.snapshots.write(SnapshotHeader(type(LOG.base)(300, 3, 9), LOG.base_at(250), 1, b"c"), pieces(300))
    store.close()
    disk.crash()
    disk = disk.reopen()
    again = opened(disk)
    assert (again.recovered.base.index, again.recovered.entries) == (300, ())
    assert again.recovered.hard_state == HardState(3, None), "it was led in the snapshot's term"
    again.close()
    assert opened(disk.reopen()).recovered.snapshot == snapshot, "the log says so by now"


def work(store: LogStore) -> Iterator[str]:
    """A life of snapshots, a step at a time."""
    for index in (60, 120, 180):
        for first in range(index - 59, index, 10):
            store.append(HardState(1, "n1"), entries(first, first + 9))
            yield f"log {first + 9}"
        store.snapshots.write(header_at(index, tail=10), pieces(index))
        yield f"snapshot {index}"
        store.tidy()
        yield f"tidy {index}"


def finished(done: list[str], kind: str) -> int:
    return max((int(step.split()[1]) for step in done if step.startswith(kind)), default=0)


@pytest.mark.parametrize("torn", [False, True])
def test_at_whatever_operation_the_power_goes_what_was_durable_is_there(torn: bool) -> None:
    crashes = 0
    for point in range(1, 400):
        disk = ForgettingDisk(Random(point), torn=torn)
        store = opened(disk)
        disk.crash_at(point)
        done: list[str] = []
        try:
            done.extend(work(store))
        except (PowerLost, StoreError):
            crashes += 1
        else:
            break
        again = opened(disk.reopen())
        log, snapshot = finished(done, "log"), finished(done, "snapshot")
        assert again.last_index in (log, log + 10), point
        assert (again.recovered.snapshot.index if again.recovered.snapshot else 0) in (snapshot, log), point
        if again.recovered.snapshot is not None:
            index = again.recovered.snapshot.index
            assert state_of(again, again.recovered.snapshot) == b"".join(pieces(index))
        assert [entry.index for entry in again.recovered.entries] == list(
            range(again.recovered.base.index + 1, again.last_index + 1)
        )
    assert crashes > 60, "the power went at every operation"


# -- receiving -------------------------------------------------------------------------------------


def source() -> tuple[SnapshotStore, Snapshot]:
    store = filled(ForgettingDisk(Random(2)), 100)
    return store.snapshots, store.snapshots.write(header_at(90), iter([b"x" * 50] * 40))


def chunk(giver: SnapshotStore, snapshot: Snapshot, offset: int, size: int = 300) -> SnapshotChunk:
    return SnapshotChunk(1, snapshot.id, offset, giver.read(snapshot.id, offset, size))


def test_pieces_become_the_same_file_and_only_the_next_one_is_taken() -> None:
    giver, snapshot = source()
    taker = opened(ForgettingDisk(Random(3))).snapshots
    offset, complete = taker.take(SnapshotChunk(1, snapshot.id, 0, b""))
    assert (offset, complete) == (0, None)
    while complete is None:
        piece = chunk(giver, snapshot, offset)
        before = offset
        offset, complete = taker.take(piece)
        if complete is None:
            assert taker.take(piece) == (offset, None), "a piece that comes twice changes nothing"
            assert taker.take(chunk(giver, snapshot, before + 1)) == (offset, None)
    assert complete == snapshot
    assert b"".join(taker.chunks(complete)) == b"x" * 2000


def test_a_restarted_receiver_goes_on_after_what_is_intact() -> None:
    giver, snapshot = source()
    disk = ForgettingDisk(Random(3))
    taker = opened(disk).snapshots
    offset = 0
    while offset < 1200:
        offset, _ = taker.take(chunk(giver, snapshot, offset))
    disk.kill()
    disk = disk.reopen()
    name = next(name for name in disk.names() if name.endswith(".part"))
    disk.rot(name, 1000)
    taker = opened(disk).snapshots
    resumed, _ = taker.take(SnapshotChunk(1, snapshot.id, 0, b""))
    assert 800 < resumed <= 1000, "up to the record that is damaged"
    complete = None
    while complete is None:
        resumed, complete = taker.take(chunk(giver, snapshot, resumed))
    assert complete == snapshot


def test_pieces_of_another_file_of_the_same_index_are_not_mixed_in() -> None:
    giver, snapshot = source()
    other = giver.write(header_at(90), iter([b"y" * 50] * 40))
    disk = ForgettingDisk(Random(3))
    taker = opened(disk).snapshots
    taker.take(chunk(giver, snapshot, 0))
    assert taker.take(chunk(giver, other, 300)) == (0, None), "begun anew"
    assert len([name for name in disk.names() if name.endswith(".part")]) == 1


def test_a_file_that_does_not_fit_together_is_thrown_away() -> None:
    giver, snapshot = source()
    disk = ForgettingDisk(Random(3))
    taker = opened(disk).snapshots
    offset = 0
    while offset < snapshot.size_bytes - 300:
        piece = chunk(giver, snapshot, offset)
        offset, _ = taker.take(SnapshotChunk(1, piece.snapshot, piece.offset, bytes(reversed(piece.data))))
    assert taker.take(chunk(giver, snapshot, offset)) == (0, None)
    assert taker.held == ()
    assert not [name for name in disk.names() if name.endswith(".part")]


def test_a_damaged_file_is_not_given_to_others() -> None:
    disk = ForgettingDisk(Random(2))
    store = filled(disk, 100)
    snapshot = store.snapshots.write(header_at(90), pieces(90))
    disk.rot(file_name(snapshot.id), 200)
    with pytest.raises(SnapshotDamaged):
        store.snapshots.read(snapshot.id, 0, 100)
    assert store.snapshots.held == ()
    with pytest.raises(SnapshotDamaged, match="gone"):
        store.snapshots.read(snapshot.id, 100, 100)
