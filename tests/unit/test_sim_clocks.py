"""Clocks of simulated machines: offsets, rates, steps, and timers that follow them."""

from __future__ import annotations

import asyncio
import os
import secrets
import time
import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chaos.sim.clocks import EPOCH_NS, SimClock
from chaos.sim.host import ProcessHost
from chaos.sim.world import World

SECOND = 1_000_000_000


class FrozenLoop:
    """A loop's clock and nothing else."""

    def __init__(self) -> None:
        self.now = 0


def clock(**options: int) -> tuple[FrozenLoop, SimClock]:
    loop = FrozenLoop()
    return loop, SimClock(loop, **options)  # type: ignore[arg-type]


@given(ppm=st.integers(-400_000, 400_000), spent=st.integers(0, 10**12), delay=st.integers(0, 10**12))
def test_a_true_delay_is_never_too_short_and_at_most_a_moment_too_long(ppm: int, spent: int, delay: int) -> None:
    loop, subject = clock(rate_ppm=ppm, boot_ns=7)
    loop.now = spent
    before = subject.now_ns()
    loop.now += subject.true_delay_ns(delay)
    assert delay <= subject.now_ns() - before <= delay + 3


@given(changes=st.lists(st.tuples(st.integers(0, 10**10), st.integers(-400_000, 400_000))))
def test_a_change_of_rate_makes_no_reading_jump(changes: list[tuple[int, int]]) -> None:
    loop, subject = clock()
    for passed, ppm in changes:
        loop.now += passed
        before = (subject.now_ns(), subject.wall_ns())
        subject.set_rate(ppm)
        assert (subject.now_ns(), subject.wall_ns()) == before


def test_a_fast_clock_gains_on_true_time_and_both_its_readings_do() -> None:
    loop, subject = clock(rate_ppm=100_000, wall_offset_ns=5 * SECOND)
    loop.now = 10 * SECOND
    assert subject.now_ns() == 11 * SECOND
    assert subject.wall_ns() == EPOCH_NS + 5 * SECOND + 11 * SECOND


def test_a_step_moves_wall_time_alone_and_a_reboot_the_other_alone() -> None:
    loop, subject = clock(boot_ns=100)
    loop.now = SECOND
    subject.step_wall(-3 * SECOND)
    assert (subject.now_ns(), subject.wall_ns()) == (SECOND + 100, EPOCH_NS - 2 * SECOND)
    subject.reboot()
    loop.now += SECOND
    assert (subject.now_ns(), subject.wall_ns()) == (SECOND, EPOCH_NS - SECOND)


def test_timers_follow_the_clock_of_the_machine_they_are_set_on() -> None:
    took: dict[str, int] = {}

    async def sleeper(host: ProcessHost) -> None:
        began = world.now_ns
        await asyncio.sleep(10)
        took[host.machine.name] = world.now_ns - began

    async def deadline(host: ProcessHost) -> None:
        began = world.now_ns
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(10):
                await asyncio.sleep(1000)
        took[f"{host.machine.name} deadline"] = world.now_ns - began

    with World(1) as world:
        for name, ppm in (("fast", 250_000), ("true", 0), ("slow", -200_000)):
            host = world.host(name, rate_ppm=ppm)
            host.spawn("sleeper", sleeper)
            host.spawn("deadline", deadline)
        world.run_for(20)
    for suffix in ("", " deadline"):
        assert took[f"fast{suffix}"] == pytest.approx(8 * SECOND, abs=10)
        assert took[f"true{suffix}"] == pytest.approx(10 * SECOND, abs=10)
        assert took[f"slow{suffix}"] == pytest.approx(12.5 * SECOND, abs=10)


@given(
    ppm=st.integers(-400_000, 400_000),
    start=st.integers(0, 10**14),
    delay_s=st.floats(0, 1e5, allow_nan=False),
)
def test_a_timer_never_fires_before_its_moment_as_its_own_clock_shows_it(ppm: int, start: int, delay_s: float) -> None:
    with World(1) as world:
        world.loop.now = start
        host = world.host("a", rate_ppm=ppm)

        async def main(process: ProcessHost) -> None:
            loop = asyncio.get_running_loop()
            fired = loop.create_future()
            when = loop.time() + delay_s
            loop.call_at(when, fired.set_result, None)
            await fired
            assert loop.time() >= when

        process = host.spawn("main", main)
        world.run(_wait(process.exited))


async def _wait(future: asyncio.Future[object]) -> object:
    return await future


def test_the_standard_library_sees_the_asking_machines_time_and_the_seeds_chance() -> None:
    async def main(host: ProcessHost) -> tuple[object, ...]:
        assert time.time_ns() == host.clock.wall_ns()
        assert time.monotonic_ns() == time.clock_gettime_ns(time.CLOCK_BOOTTIME) == host.clock.now_ns()
        assert time.perf_counter() == time.monotonic() == asyncio.get_running_loop().time()
        with pytest.raises(RuntimeError):
            time.sleep(1)  # noqa: ASYNC251  it must not
        return os.urandom(8), secrets.token_hex(8), uuid.uuid4(), host.dice.token(8)

    def drawn(seed: int) -> tuple[object, ...]:
        with World(seed) as world:
            one = world.host("one", wall_offset_ns=3 * SECOND).spawn("main", main)
            other = world.host("other", wall_offset_ns=-3 * SECOND).spawn("main", main)
            world.run_for(1)
            assert one.exited.result()[-1] != other.exited.result()[-1], "every life has its own dice"
            return (*one.exited.result(), *other.exited.result())

    assert drawn(1) == drawn(1)
    assert not set(drawn(1)) & set(drawn(2))
