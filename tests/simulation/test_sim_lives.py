"""Lives of simulated processes: what a crash, a pause, an exit and a power loss leave running, which is nothing."""

from __future__ import annotations

import asyncio
import sys
from typing import Any

import pytest
from sim_pair import PORT, MessagePair

from chaos.sim.host import Process, ProcessHost
from chaos.sim.world import World


async def forever() -> None:
    await asyncio.get_running_loop().create_future()


def test_a_process_that_dies_in_the_middle_of_a_step_does_nothing_after_it() -> None:
    heard: list[str] = []
    crashed: list[Process] = []

    async def main(host: ProcessHost) -> None:
        loop = asyncio.get_running_loop()
        tracer = host.tracer("a", "here", roll_bytes=1, heartbeat_sample=1, meta={})
        disk = host.disk("data")
        tracer.emit("note", text="before")
        crashed[0].crash()
        tracer.emit("note", text="after")
        loop.call_soon(heard.append, "soon")
        loop.call_soon_threadsafe(heard.append, "threadsafe")
        loop.call_later(1, heard.append, "later")
        loop.run_in_executor(None, heard.append, "executor")
        with pytest.raises(OSError, match="the power went"):
            disk.open("file", create=True)
        try:
            await asyncio.sleep(0)
        finally:
            heard.append("finally")

    with World(1) as world:
        crashed.append(world.host("a").spawn("main", main))
        world.run_for(5)
        records = [fields["text"] for life in world.recording.lives.values() for *_, fields in life]
    assert heard == ["finally"], "the end of the world runs it, and nothing before"
    assert records == ["before"]


@pytest.mark.parametrize("policy", ["fifo", "random", "pct"])
def test_no_finally_no_except_and_no_context_manager_runs_by_a_crash(policy: Any) -> None:
    ran: list[str] = []

    class Guard:
        async def __aenter__(self) -> None: ...

        async def __aexit__(self, *exception: object) -> None:
            ran.append("exit")

    async def part(number: int) -> None:
        async with Guard():
            try:
                for _ in range(10**6):
                    await asyncio.sleep(0.01 * number)
            except BaseException:
                ran.append("except")
                raise
            finally:
                ran.append("finally")

    async def main(host: ProcessHost) -> None:
        async with asyncio.timeout(100), asyncio.TaskGroup() as group:
            for number in range(1, 10):
                group.create_task(part(number))

    with World(2, policy=policy) as world:
        process = world.host("a").spawn("main", main)
        world.run_for(1.0005)
        process.crash()
        world.run_for(500)
        assert ran == []


def test_what_main_leaves_running_ends_with_it() -> None:
    ticks: list[int] = []

    async def main(host: ProcessHost) -> str:
        async def tick() -> None:
            while True:
                await asyncio.sleep(1)
                ticks.append(world.now_ns)

        task = asyncio.ensure_future(tick())
        await asyncio.sleep(3.5)
        assert not task.done()
        return "done"

    with World(3) as world:
        process = world.host("a").spawn("main", main)
        world.run_for(10)
        assert process.exited.result() == "done"
        assert not process.alive
        assert len(ticks) == 3


def test_an_exit_code_and_a_failure_are_kept() -> None:
    async def leaves(host: ProcessHost) -> None:
        sys.exit(3)

    async def fails(host: ProcessHost) -> None:
        raise ValueError("no")

    with World(4) as world:
        host = world.host("a")
        one, other = host.spawn("leaves", leaves), host.spawn("fails", fails)
        world.run_for(1)
        assert one.exited.result() == 3
        assert isinstance(other.exited.exception(), ValueError)


def test_a_paused_machine_does_what_was_due_in_its_order_when_it_goes_on() -> None:
    done: list[tuple[int, int]] = []

    async def main(host: ProcessHost) -> None:
        loop = asyncio.get_running_loop()
        for number in range(10):
            loop.call_later(1 + number, lambda n: done.append((n, world.now_ns // 10**9)), number)
        await forever()

    with World(5, policy="random") as world:
        host = world.host("a")
        host.spawn("main", main)
        world.run_for(2.5)
        reading = host.clock.now_ns()
        host.pause()
        world.run_for(5)
        assert [n for n, _ in done] == [0, 1]
        assert host.clock.now_ns() == reading + 5 * 10**9, "its clock runs on"
        host.resume()
        world.run_for(10)
        assert [n for n, _ in done] == list(range(10))
        assert {second for n, second in done if 2 <= n <= 6} == {7}


def test_a_process_started_on_a_paused_machine_begins_when_it_goes_on() -> None:
    began: list[int] = []

    async def main(host: ProcessHost) -> None:
        began.append(world.now_ns)

    with World(6) as world:
        host = world.host("a")
        host.pause()
        host.spawn("main", main)
        world.run_for(1)
        assert began == []
        host.resume()
        world.run_for(1)
        assert began == [10**9]


def test_a_crash_of_a_paused_process_drops_what_was_held_back() -> None:
    ran: list[str] = []

    async def main(host: ProcessHost) -> None:
        asyncio.get_running_loop().call_later(1, ran.append, "timer")
        await asyncio.sleep(1)
        ran.append("main")

    with World(7) as world:
        host = world.host("a")
        process = host.spawn("main", main)
        world.run_for(0.5)
        host.pause()
        world.run_for(2)
        process.crash()
        host.resume()
        world.run_for(2)
        assert ran == []


def test_a_power_loss_ends_everything_on_the_machine_and_names_a_new_boot() -> None:
    with World(8) as world:
        pair = MessagePair(world)
        pair.start()
        other = pair.host_b.spawn("other", lambda host: forever())
        boot = pair.host_b.boot_id
        pair.host_b.power_off()
        assert not pair.processes["b"].alive
        assert not other.alive
        with pytest.raises(AssertionError, match="no power"):
            pair.host_b.spawn("again", lambda host: forever())
        pair.host_b.power_on()
        assert pair.host_b.boot_id != boot
        assert pair.host_b.clock.now_ns() == 0
        assert PORT not in pair.host_b.listeners


def test_objects_of_a_dead_life_say_nothing_when_they_are_dropped() -> None:
    dropped: list[str] = []

    class Noisy:
        def __del__(self) -> None:
            dropped.append("noise")

    async def main(host: ProcessHost) -> None:
        noisy = Noisy()
        await asyncio.sleep(100)
        del noisy

    with World(9) as world:
        process = world.host("a").spawn("main", main)
        world.run_for(1)
        process.crash()
        del process
        world.run_for(1000)
        assert dropped == []


def test_a_callback_that_fails_is_kept_and_the_world_goes_on_but_not_with_a_broken_harness() -> None:
    async def main(host: ProcessHost) -> None:
        asyncio.get_running_loop().call_soon(lambda: 1 // 0)
        await asyncio.sleep(1)

    with World(10) as world:
        process = world.host("a").spawn("main", main)
        world.run_for(2)
        assert process.exited.result() is None
        ((when, life, message, error),) = world.loop.failures
        assert (when, life) == (0, "a/main#1")
        assert "exception in callback" in message
        assert isinstance(error, ZeroDivisionError)
        world.loop.call_soon(lambda: 1 // 0)
        with pytest.raises(ZeroDivisionError):
            world.run_for(1)
