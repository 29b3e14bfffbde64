"""Simulated threads and disks: latency, hanging, faults, and what a crash in the middle leaves."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Callable
from itertools import pairwise
from random import Random
from typing import Any

import pytest

from chaos.disk import PowerLost
from chaos.sim.host import ProcessHost, SimHost
from chaos.sim.world import World

SECOND = 10**9


def working(heard: list[tuple[int, Any]], count: int, work: Callable[[ProcessHost, int], Any]) -> Any:
    """A process with one worker that does `work` for 0 … count − 1; the loop hears each result, then "ended"."""

    async def main(host: ProcessHost) -> None:
        loop = asyncio.get_running_loop()
        over = loop.create_future()

        def hear(what: Any) -> None:
            heard.append((host.machine.world.now_ns, what))
            if what == "ended":
                over.set_result(None)

        worker = host.threads.worker(
            "writer",
            lambda number: loop.call_soon_threadsafe(hear, work(host, number)),
            lambda: loop.call_soon_threadsafe(hear, "ended"),
        )
        for number in range(count):
            worker.submit(number)
        worker.start()
        worker.stop()
        await over

    return main


@pytest.mark.parametrize("policy", ["fifo", "random", "pct"])
def test_a_worker_does_one_thing_after_another_each_in_its_time(policy: Any) -> None:
    heard: list[tuple[int, Any]] = []
    with World(1, policy=policy) as world:
        host = world.host("a", sync_ns=(1_000_000, 3_000_000))
        host.spawn("main", working(heard, 20, lambda _, number: number))
        world.run_for(1)
    assert [what for _, what in heard] == [*range(20), "ended"]
    gaps = [later - earlier for (earlier, _), (later, _) in pairwise(heard[:-1])]
    assert all(900_000 < gap < 3_100_000 for gap in gaps)
    assert len(set(gaps)) > 10


def test_what_a_thread_hands_over_is_heard_in_its_order() -> None:
    heard: list[int] = []

    async def main(host: ProcessHost) -> None:
        loop = asyncio.get_running_loop()

        def work(item: int) -> None:
            for number in range(50):
                loop.call_soon_threadsafe(heard.append, number)
            assert heard == [], "the loop hears later"

        worker = host.threads.worker("writer", work, lambda: None)
        worker.start()
        worker.submit(0)
        await loop.create_future()

    with World(6, policy="random") as world:
        world.host("a").spawn("main", main)
        world.run_for(1)
    assert heard == list(range(50))


def test_a_slow_and_a_hanging_disk_hold_the_thread_and_not_the_loop() -> None:
    heard: list[tuple[int, Any]] = []
    ticks: list[int] = []

    async def ticker(host: ProcessHost) -> None:
        for _ in range(10):
            await asyncio.sleep(1)
            ticks.append(world.now_ns)

    with World(2) as world:
        host = world.host("a", sync_ns=(1_000_000, 1_000_001))
        host.storage.extra_ns = SECOND
        host.spawn("main", working(heard, 4, lambda _, number: number))
        host.spawn("ticker", ticker)
        world.run_for(1.5)
        assert [what for _, what in heard] == [0]
        host.storage.hang()
        world.run_for(6)
        assert [what for _, what in heard] == [0]
        host.storage.extra_ns = 0
        host.storage.unhang()
        world.run_for(4)
    assert [what for _, what in heard] == [0, 1, 2, 3, "ended"]
    assert 7 * SECOND < heard[1][0] < 8 * SECOND
    assert len(ticks) == 10


def write_and_sync(host: ProcessHost, number: int) -> int:
    file = host.disk("data").open(f"file-{number}", create=True)
    file.write_at(0, b"x" * 100)
    file.sync()
    host.disk("data").sync_directory()
    return number


def test_a_crash_leaves_work_undone_or_done_without_anybody_having_heard() -> None:
    seen: set[tuple[int, int]] = set()
    for seed in range(60):
        heard: list[tuple[int, Any]] = []
        with World(seed) as world:
            host = world.host("a", sync_ns=(1_000_000, 1_000_100))
            process = host.spawn("main", working(heard, 3, write_and_sync))
            world.run_for(0.002 + 0.000_002 * (seed - 30))
            process.crash()
            world.run_for(1)
            done = len(host.disks.handle("data").stored()) if host.disks.names() else 0
            seen.add((done, len(heard)))
            assert len(heard) <= done
    assert (2, 1) in seen, "done, and nobody heard"
    assert {(1, 1), (2, 2)} <= seen


def survivors(torn: bool, crash: Callable[[SimHost], None], seed: int) -> list[bytes]:
    """What the next process finds of "old", which was synced, and of "new", which was not."""
    found: list[bytes] = []

    async def writes(host: ProcessHost) -> None:
        disk = host.disk("data")
        for name, synced in (("old", True), ("new", False)):
            file = disk.open(name, create=True)
            if synced:
                file.write_at(0, b"a" * 2000)
                file.sync()
                disk.sync_directory()
            file.write_at(0, b"b" * 2000)
        await asyncio.get_running_loop().create_future()

    async def reads(host: ProcessHost) -> None:
        disk = host.disk("data")
        for name in ("old", "new"):
            found.append(disk.open(name).read_at(0, 4000) if name in disk.names() else b"-")

    with World(seed) as world:
        host = world.host("a", torn=torn)
        process = host.spawn("writes", writes)
        world.run_for(1)
        crash(host)
        assert not process.alive
        host.power_on()
        again = host.spawn("reads", reads)
        world.run_for(1)
        assert again.exited.exception() is None
    return found


def test_a_kill_loses_no_visible_byte_and_a_power_loss_all_unsynced_ones() -> None:
    def kill(host: SimHost) -> None:
        host.end(host.lives[0])

    assert survivors(False, kill, 1) == [b"b" * 2000, b"b" * 2000]
    assert survivors(False, SimHost.power_off, 1) == [b"a" * 2000, b"-"]
    torn = [survivors(True, SimHost.power_off, seed)[0] for seed in range(20)]
    assert len(set(torn)) > 3
    assert all(set(each) <= set(b"ab") and len(each) == 2000 for each in torn)


def test_the_power_can_go_in_the_middle_of_an_operation() -> None:
    heard: list[tuple[int, Any]] = []

    async def main(host: ProcessHost) -> None:
        file = host.disk("data").open("file", create=True)
        host.machine.power_off_at("data", 3)
        try:
            for number in range(10):
                file.write_at(number, b"x")
                heard.append((number, "written"))
        except PowerLost:
            heard.append((-1, "lost"))
            await asyncio.sleep(0)
            heard.append((-1, "never"))

    with World(3) as world:
        host = world.host("a")
        host.spawn("main", main)
        world.run_for(1)
        assert heard == [(0, "written"), (1, "written"), (-1, "lost")]
        assert not host.powered


def test_a_full_a_failing_a_rotting_and_a_wiped_disk() -> None:
    outcomes: list[Any] = []

    async def main(host: ProcessHost) -> None:
        disk = host.disk("data")
        file = disk.open("file", create=True)
        file.write_at(0, b"x" * 100)
        file.sync()
        disk.sync_directory()
        disks = host.machine.disks
        disks.fill()
        for write in (lambda: file.write_at(0, b"y"), lambda: file.write_at(100, b"y")):
            try:
                outcomes.append(write())
            except OSError as error:
                outcomes.append(error.errno)
        disks.free()
        file.write_at(100, b"y")
        disks.fail("data", "sync")
        with pytest.raises(OSError, match="Input/output"):
            file.sync()
        file.sync()
        await asyncio.get_running_loop().create_future()

    with World(4) as world:
        host = world.host("a")
        process = host.spawn("main", main)
        world.run_for(1)
        assert process.alive
        assert outcomes == [None, errno.ENOSPC]
        process.crash()
        assert "file@" in host.disks.rot("data", Random(1))
        before = host.disks.handle("data").copy().open("file").read_at(0, 200)
        assert sum(byte not in b"xy" for byte in before) == 1
        assert host.disks.rot("data", Random(1), suffix=".log") == ""
        host.disks.wipe("data")
        fresh: list[list[str]] = []

        async def looks(host: ProcessHost) -> None:
            fresh.append(host.disk("data").names())

        host.spawn("looks", looks)
        world.run_for(1)
        assert fresh == [[]]


def test_a_directory_is_locked_by_one_process_and_free_after_its_death() -> None:
    async def holds(host: ProcessHost) -> None:
        host.disk("data").lock()
        while True:
            host.disk("data").open("alive", create=True).write_at(0, b"x")
            await asyncio.sleep(0.01)

    with World(5) as world:
        host = world.host("a")
        first = host.spawn("first", holds)
        world.run_for(0.1)
        second = host.spawn("second", holds)
        world.run_for(0.1)
        assert first.alive
        assert not second.alive, "locked"
        world.run_for(0.1)
        assert first.alive, "what another process does to its own handle is no business of the first"
        first.crash()
        third = host.spawn("third", holds)
        world.run_for(0.1)
        assert third.alive
