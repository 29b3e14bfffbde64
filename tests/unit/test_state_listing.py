"""A job of any size is listed as of one moment, and its digest worked out, beside commands that are applied."""

from __future__ import annotations

import asyncio

import msgspec

from scheduler.fingerprint import Fingerprint
from scheduler.state.listing import PART
from tests.support.scheduler_world import BAD, World, job


def test_a_listing_that_is_held_shows_the_moment_at_which_it_was() -> None:
    world = World("a1", "a2", cpu=10**6, memory=1 << 44, pids=10**6)
    world.submit(job(replicas=2 * PART + 3))
    world.schedule(limit=2 * PART)
    world.runs("default/web.0")
    world.ends("default/web.1", BAD)
    world.now_ms += 60_000
    world.schedule(limit=1)
    before = world.state.job("default/web")
    assert before is not None
    held = world.state.listing("default/web")
    held.hold()
    world.ends("default/web.0", BAD)
    world.submit(job(replicas=1))
    world.register("a1", boot="b2")
    assert msgspec.json.decode(held.json()) == before["allocations"]
    assert len(held) == 2 * PART + 3
    after = world.state.job("default/web")
    assert after is not None
    assert after["allocations"] != before["allocations"]


def test_an_empty_job_is_an_empty_list() -> None:
    world = World()
    world.submit(job(replicas=0))
    assert world.state.listing("default/web").json() == b"[]"


async def test_fingerprints_are_those_of_the_state_and_made_once_an_index() -> None:
    world = World("a1")
    fingerprint = Fingerprint(world.state)
    world.submit(job(replicas=5))
    digest = world.state.digest()
    freezes = 0
    freeze = world.state.freeze

    def counted() -> object:
        nonlocal freezes
        freezes += 1
        return freeze()

    world.state.freeze = counted  # type: ignore[assignment]
    found = await asyncio.gather(*(fingerprint.now() for _ in range(10)))
    assert (set(found), freezes) == ({(world.state.index, digest)}, 1)
    asked = asyncio.ensure_future(fingerprint.now())
    world.schedule()
    assert (await fingerprint.now())[1] == world.state.digest()
    await asked
