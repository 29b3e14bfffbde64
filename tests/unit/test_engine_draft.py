"""Drafting plans: turns between jobs, limits, what is in flight, and what is blocked."""

from __future__ import annotations

import collections

from scheduler.engine import draft
from scheduler.engine.resources import AMOUNT_MAX
from scheduler.engine.scores import UNIT, WEIGHT_TOTAL, WEIGHTS, free_share_of
from scheduler.evaluations import pending
from tests.support.scheduler_world import BAD, World, job


def nodes_of(world: World, name: str = "web") -> list[str]:
    shown = world.state.job(f"default/{name}")
    assert shown is not None
    return [item["node"] for item in shown["allocations"]]


def test_replicas_spread_over_equal_nodes() -> None:
    world = World("a1", "a2", "a3", "a4")
    world.submit(job(replicas=8))
    world.schedule()
    assert sorted(collections.Counter(nodes_of(world)).values()) == [2, 2, 2, 2]


def test_replicas_that_ask_for_next_to_nothing_spread_too() -> None:
    world = World("a1", "a2", "a3")
    world.register("big", cpu=400_000, memory=1 << 42)
    world.submit(job(replicas=4, cpu_millicores=1, memory_bytes=1))
    world.schedule()
    assert len(set(nodes_of(world))) == 4


def test_the_emptier_node_is_preferred() -> None:
    world = World("a1", "a2")
    world.submit(job("heavy", cpu_millicores=3000))
    world.schedule()
    world.submit(job("light"))
    world.schedule()
    assert nodes_of(world, "light") != nodes_of(world, "heavy")


def test_different_jobs_do_not_all_prefer_the_same_of_equal_nodes() -> None:
    first = set()
    for number in range(20):
        world = World("a1", "a2", "a3")
        world.submit(job(f"j{number}"))
        world.schedule()
        first.update(nodes_of(world, f"j{number}"))
    assert first == {"a1", "a2", "a3"}


def test_every_replica_drafts_the_same_plan() -> None:
    worlds = [World("a1", "a2", "a3"), World("a1", "a2", "a3")]
    for world in worlds:
        world.submit(job(replicas=20))
        world.submit(job("api", replicas=7, cpu_millicores=333))
    drafts = [draft(world.state, world.now_ms) for world in worlds]
    assert drafts[0] == drafts[1]
    assert len(drafts[0].placements) == 27


def test_a_draft_never_books_more_than_fits() -> None:
    world = World("a1", "a2", cpu=1000)
    world.submit(job(replicas=30))
    made = draft(world.state, world.now_ms)
    assert len(made.placements) == 20
    assert made.blocked == {"default/web": "0 of 2 nodes fit: 2 cpu"}
    assert world.plan(*made.placements).refused == ()


def test_a_large_job_does_not_keep_a_small_one_waiting() -> None:
    world = World("a1", "a2", cpu=10**6, pids=10**6, memory=1 << 42)
    world.submit(job("large", replicas=10_000))
    world.submit(job("small", replicas=2))
    made = draft(world.state, world.now_ms, limit=64)
    assert len(made.placements) == 64
    assert made.more
    assert [item.allocation for item in made.placements if "small" in item.allocation] == [
        "default/small.0",
        "default/small.1",
    ]
    assert len(pending(world.state, world.now_ms, limit=40)) == 40


def test_a_job_that_fits_nowhere_does_not_block_the_next() -> None:
    world = World("a1")
    world.submit(job("huge", cpu_millicores=10**6, replicas=3))
    world.submit(job("small"))
    made = draft(world.state, world.now_ms)
    assert [item.allocation for item in made.placements] == ["default/small.0"]
    assert list(made.blocked) == ["default/huge"]
    assert not made.more


def test_nodes_without_a_session_get_nothing() -> None:
    world = World("a1", "a2")
    world.submit(job(replicas=3))
    made = draft(world.state, world.now_ms, absent=["a2", "never-heard-of"])
    assert {item.node for item in made.placements} == {"a1"}
    assert draft(world.state, world.now_ms, absent=["a1", "a2"]).blocked == {
        "default/web": "0 of 2 nodes fit: 2 node-connected"
    }


def test_what_is_in_flight_is_neither_placed_again_nor_overbooked() -> None:
    world = World("a1", "a2", cpu=200)
    world.submit(job(replicas=5, ports=()))
    first = draft(world.state, world.now_ms, limit=2)
    second = draft(world.state, world.now_ms, in_flight=first.placements)
    names = [item.allocation for item in first.placements + second.placements]
    assert sorted(names) == [f"default/web.{n}" for n in range(4)]
    assert world.plan(*first.placements).refused == ()
    assert world.plan(*second.placements).refused == ()


def test_in_flight_placements_that_no_longer_apply_are_ignored() -> None:
    world = World("a1")
    world.submit(job())
    first = draft(world.state, world.now_ms)
    world.plan(*first.placements)
    world.submit(job("api"))
    assert len(draft(world.state, world.now_ms, in_flight=first.placements).placements) == 1


def test_skipped_attempts_are_left_out_but_not_later_attempts_of_them() -> None:
    world = World("a1")
    world.submit(job(replicas=2))
    skip = frozenset({("default/web.0", 1)})
    assert [item.allocation for item in draft(world.state, world.now_ms, skip=skip).placements] == ["default/web.1"]
    world.schedule()
    world.ends("default/web.0", BAD)
    world.now_ms += 60_000
    assert [item.attempt for item in draft(world.state, world.now_ms, skip=skip).placements] == [2]


def test_back_off_is_waited_for() -> None:
    world = World("a1")
    world.submit(job())
    world.schedule()
    world.ends("default/web.0", BAD)
    assert draft(world.state, world.now_ms + 999).placements == ()
    assert len(draft(world.state, world.now_ms + 1000).placements) == 1


def test_without_nodes_everything_is_blocked() -> None:
    world = World()
    world.submit(job())
    assert draft(world.state, world.now_ms).blocked == {"default/web": "0 of 0 nodes fit"}


def test_weights_sum_to_one_and_the_largest_amounts_do_not_overflow() -> None:
    assert sum(WEIGHTS.values()) == WEIGHT_TOTAL
    assert AMOUNT_MAX * UNIT < 1 << 63
    world = World()
    world.register("vast", cpu=1 << 60, memory=1 << 60)
    world.submit(job())
    world.schedule()
    assert nodes_of(world) == ["vast"]
    assert free_share_of(1 << 60, 0, 1) > 0
