"""A state that is frozen, written out and read back is the same state."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from scheduler import commands
from scheduler.errors import SnapshotTooNew
from scheduler.model import Taint, TaintEffect
from scheduler.state import State
from scheduler.state.paged import OBJECTS_SHIFT, Objects, unpacked
from scheduler.state.snapshot import FrozenState
from tests.support.scheduler_world import GIB, OOM, World, job
from tests.support.state_views import whole


def busy() -> World:
    """Every section holds something."""
    world = World("a1", "a2", "a3")
    world.submit(job(replicas=5, ports=(80,)))
    world.submit(job("api", replicas=3, node_selector=(("disk", "ssd"),)))
    world.schedule()
    world.apply(commands.SetNodeLabels("a1", {"disk": "ssd"}, (), world.now_ms))
    world.apply(commands.SetNodeTaints("a3", (Taint("slow", "", TaintEffect.PREFER_NO_SCHEDULE),), (), world.now_ms))
    world.schedule()
    world.runs("default/api.0")
    world.ends("default/api.1", OOM)
    world.submit(job("done", kind="batch"))
    world.schedule()
    world.ends("default/done.0")
    world.submit(job(replicas=2, ports=(80,)))
    world.apply(commands.StopUnknown("a1", (("default/gone.0", 3), ("default/gone.1", 4)), world.now_ms))
    world.cordon("a2")
    return world


def cut(data: bytes, size: int) -> Iterator[bytes]:
    for start in range(0, len(data), size):
        yield data[start : start + size]


def read_back(state: State, data: bytes, size: int = 1 << 16) -> State:
    again = State()
    again.restore(state.index, state.term, cut(data, size))
    return again


@pytest.mark.parametrize("size", [1, 7, 4096, 1 << 30])
def test_a_state_read_back_is_the_same_however_its_bytes_are_cut(size: int) -> None:
    world = busy()
    data = b"".join(world.state.freeze().chunks())
    again = read_back(world.state, data, size)
    assert whole(again) == whole(world.state)
    assert b"".join(again.freeze().chunks()) == data


def test_an_empty_state_can_be_read_back() -> None:
    state = State()
    state.advance(1, 1)
    assert whole(read_back(state, b"".join(state.freeze().chunks()))) == whole(state)


def test_both_go_on_alike_after_it() -> None:
    """Rows are numbered, and jobs served, the same from then on."""
    world = busy()
    again = World()
    again.state = read_back(world.state, b"".join(world.state.freeze().chunks()))
    again.now_ms, again._request, again._sequence = world.now_ms, world._request, world._sequence
    for one in (world, again):
        one.register("a1", boot="b2")
        one.stop("api")
        one.submit(job("late", replicas=4, priority=3))
        one.cordon("a2", "ready")
        one.now_ms += 60_000
        one.schedule()
        one.schedule()
    assert whole(again.state) == whole(world.state)


def test_rows_freed_by_a_reboot_are_used_again_in_one_order_everywhere() -> None:
    """On the node the younger attempt has the lower row, which only one that lived on could tell."""
    world = World("a1")
    for name in ("x", "y"):
        world.submit(job(name))
        world.schedule()
    world.stop("x")
    world.ends("default/x.0")
    world.apply(commands.Collect(0, 0, 9, world.now_ms))
    world.submit(job("z"))
    world.schedule()
    assert list(world.state.books.nodes.rows[0]) == [1, 0]
    again = World()
    again.state = read_back(world.state, b"".join(world.state.freeze().chunks()))
    again._request = world._request
    for one in (world, again):
        one.submit(job("y", replicas=0))
        one.submit(job("z", replicas=0))
        one.register("a1", boot="b2")
    assert again.state.digest() == world.state.digest()


def test_a_frozen_state_does_not_change_while_commands_are_applied() -> None:
    world = busy()
    frozen, still = world.state.freeze(), world.state.freeze()
    before, digest = b"".join(frozen.chunks()), frozen.digest()
    world.stop("api")
    world.submit(job(replicas=40, cpu_millicores=7))
    world.schedule()
    world.register("a1", boot="b9", memory=7 * GIB)
    world.apply(commands.StopUnknown("a2", (("default/other.0", 9),), world.now_ms))
    assert b"".join(still.chunks()) == before
    assert still.digest() == digest != world.state.digest()


def test_it_can_be_written_by_another_thread_while_commands_are_applied() -> None:
    world = World(*(f"a{number}" for number in range(20)), cpu=10**6, pids=10**6, memory=1 << 40)
    world.submit(job(replicas=6_000, ports=()))
    for _ in range(12):
        world.schedule(limit=256)
    frozen, digest = world.state.freeze(), world.state.digest()
    index = world.state.index
    written: list[bytes] = []
    thread = threading.Thread(target=lambda: written.extend(frozen.chunks()))
    thread.start()
    while thread.is_alive() or world.state.index < index + 10:
        world.schedule(limit=32)
        if world.state.index > index + 4_000:
            break
    thread.join(30)
    again = State()
    again.restore(index, 1, written)
    assert again.digest() == digest
    assert again.job("default/web") is not None
    assert sum(len(rows) for rows in again.books.nodes.rows) == 12 * 256


def test_damage_anywhere_is_noticed_and_changes_nothing() -> None:
    world = busy()
    data = b"".join(world.state.freeze().chunks())
    other = World("b1")
    before = whole(other.state)
    refused = 0
    for position in range(0, len(data), 41):
        damaged = bytearray(data)
        damaged[position] ^= 0x41
        again = State()
        try:
            again.restore(world.state.index, world.state.term, [bytes(damaged)])
        except (ValueError, SnapshotTooNew):
            refused += 1
            assert (again.index, list(again.books.jobs)) == (0, [])
        else:  # compressed zeros can be said in another way
            assert whole(again) == whole(world.state)
    assert refused > len(data) // 41 * 0.6
    for length in (0, 3, 4, 100, len(data) // 2, len(data) - 1):
        with pytest.raises(ValueError, match=r"cut short|no state"):
            other.state.restore(world.state.index, world.state.term, [data[:length]])
    with pytest.raises(ValueError, match=r"follows|cut short"):
        other.state.restore(world.state.index, world.state.term, [data, b"\0\0\0\0"])
    assert whole(other.state) == before


def test_the_state_of_another_index_or_term_is_refused() -> None:
    world = busy()
    data = b"".join(world.state.freeze().chunks())
    for index, term in ((world.state.index + 1, world.state.term), (world.state.index, world.state.term + 1)):
        with pytest.raises(ValueError, match="this is the state at"):
            State().restore(index, term, [data])


def test_what_a_newer_program_wrote_is_refused_rather_than_half_read() -> None:
    world = busy()
    data = b"".join(world.state.freeze().chunks())
    newer = data.replace(b"\x94\x02", b"\x94\x03", 1)
    assert newer != data
    with pytest.raises(SnapshotTooNew, match="format 3"):
        State().restore(world.state.index, world.state.term, [newer])
    unknown = data.replace(b"nodes/stops", b"nodes/stopz", 1)
    with pytest.raises(SnapshotTooNew, match="nodes/stopz"):
        State().restore(world.state.index, world.state.term, [unknown])


def test_a_section_that_an_older_program_did_not_write_reads_as_zeros() -> None:
    world = World("a1")
    world.submit(job(replicas=2))
    world.schedule()
    state = world.state
    older = FrozenState(state.index, state.term, state.books)
    older._sections = tuple(item for item in older._sections if item[0] not in ("attempts/streak", "nodes/stops"))
    again = State()
    again.restore(state.index, state.term, older.chunks())
    assert whole(again) == whole(state)


def test_a_released_state_holds_nothing() -> None:
    frozen = busy().state.freeze()
    frozen.release()
    assert frozen._sections == ()


def test_objects_are_copied_by_pages_on_the_first_write_after_a_freeze() -> None:
    objects: Objects[str] = Objects(str)
    size = 1 << OBJECTS_SHIFT
    objects[1], objects[size + 1] = "one", "two"
    first = objects.freeze()
    objects[1] = "uno"
    second = objects.freeze()
    assert first[1] is second[1], "an untouched page is shared"
    assert unpacked(first[0].packed()) != unpacked(second[0].packed())
    assert (objects[1], objects.get(0), objects.get(9_999), objects.get(-1), 1 in objects, -1 in objects) == (
        "uno", None, None, None, True, False,
    )  # fmt: skip
    objects.discard(size + 1)
    assert (len(objects), list(objects.items())) == (1, [(1, "uno")])
    assert first[1].digest() != objects.freeze()[1].digest()


def test_a_page_that_would_inflate_beyond_all_bounds_is_refused() -> None:
    import zlib

    bomb = zlib.compress(bytes(80 << 20), 9)
    with pytest.raises(ValueError, match="too large"):
        unpacked(bomb)
