"""Garbage: what finished is forgotten in time, and nothing else ever is."""

from __future__ import annotations

from typing import Any

from scheduler import commands
from scheduler.state import State
from scheduler.state.collecting import FINISHED_KEPT_MS, due
from scheduler.state.columns import GENERATION
from tests.support.scheduler_world import BAD, LOST, World, job

HOUR_MS = FINISHED_KEPT_MS


def collect(world: World, *, before_ms: int = 0, keep: int = 10**6, at_once: int = 10**6) -> tuple[str, ...]:
    result: Any = world.apply(commands.Collect(before_ms, keep, at_once, world.now_ms))
    return tuple(result.jobs)


def finished(world: World, name: str, **changes: Any) -> None:
    world.submit(job(name, kind="batch", **changes))
    world.schedule()
    for ordinal in range(changes.get("replicas", 1)):
        world.ends(f"default/{name}.{ordinal}")


def names(world: World) -> list[str]:
    return [item["job"].removeprefix("default/") for item in world.state.jobs()]


def test_a_finished_job_is_kept_for_an_hour_and_then_forgotten_with_its_rows() -> None:
    world = World("a1")
    finished(world, "done", replicas=3)
    assert due(world.state.books, world.now_ms + HOUR_MS) is None
    command = due(world.state.books, world.now_ms + HOUR_MS + 1)
    assert command is not None
    rows = world.state.books.attempts.table
    done = world.apply(command)
    assert (done.jobs, done.changes[0][1]["rows"]) == (("default/done",), 0)
    assert names(world) == []
    assert rows.rows == rows.free_rows() == 3
    assert world.state.job("default/done") is None
    assert due(world.state.books, 10**12) is None


def test_a_row_is_used_again_under_a_new_generation() -> None:
    world = World("a1")
    finished(world, "done")
    collect(world, keep=0)
    generation = world.state.books.attempts.table.columns[GENERATION]
    assert generation[0] == 1
    finished(world, "next")
    collect(world, keep=0)
    assert generation[0] == 2


def test_what_lives_waits_or_backs_off_is_never_collected() -> None:
    world = World("a1", "a2", cpu=1000)
    world.submit(job("runs"))
    world.submit(job("waits", cpu_millicores=50_000, kind="batch"))
    world.submit(job("fails", kind="batch"))
    world.submit(job("stopping"))
    world.submit(job("half", kind="batch", replicas=2))
    world.schedule()
    world.runs("default/runs.0")
    world.ends("default/fails.0", BAD)
    world.stop("stopping")
    world.ends("default/half.0")
    world.now_ms += 10 * HOUR_MS
    assert collect(world, before_ms=world.now_ms, keep=0) == ()
    assert due(world.state.books, world.now_ms) is None
    world.ends("default/stopping.0")
    world.ends("default/half.1")
    assert collect(world, before_ms=world.now_ms + 1, keep=0) == ("default/stopping", "default/half")
    assert names(world) == ["fails", "runs", "waits"]


def test_a_stopped_job_is_garbage_only_after_its_node_reported_the_exit_or_was_rebooted() -> None:
    world = World("a1", "a2")
    world.submit(job(replicas=2))
    world.schedule()
    world.stop()
    world.now_ms += 10 * HOUR_MS
    assert collect(world, before_ms=world.now_ms, keep=0) == ()
    world.ends("default/web.0")
    assert collect(world, before_ms=world.now_ms, keep=0) == ()
    world.register(world.shown("default/web.1")["node"], boot="b2")
    assert collect(world, before_ms=world.now_ms + 1, keep=0) == ("default/web",)
    assert world.free("a1") == world.free("a2") == (4000, 4 << 30, 1000)


def test_beyond_the_bound_the_longest_finished_go_first_whatever_their_age() -> None:
    world = World("a1")
    for name in ("j1", "j2", "j3"):
        finished(world, name, replicas=2)
        world.now_ms += 10
    assert collect(world, keep=6) == ("default/j1",)
    assert collect(world, keep=6) == ()
    assert collect(world, keep=0) == ("default/j2", "default/j3")


def test_one_command_collects_only_so_many_but_at_least_one_job() -> None:
    world = World("a1")
    for name in ("j1", "j2", "j3"):
        finished(world, name, replicas=4)
    assert collect(world, keep=0, at_once=1) == ("default/j1",)
    assert collect(world, keep=0, at_once=10) == ("default/j2", "default/j3")


def test_a_job_that_is_submitted_again_is_garbage_no_more() -> None:
    world = World("a1")
    finished(world, "again")
    world.stop("again")
    world.submit(job("again", kind="batch"))
    assert collect(world, before_ms=10**12, keep=0) == ()
    world.schedule()
    world.ends("default/again.0")
    assert collect(world, before_ms=10**12, keep=0) == ("default/again",)


def test_a_lost_and_a_failed_job_count_as_finished_when_nothing_more_will_be_tried() -> None:
    world = World("a1")
    world.submit(job("lost", kind="batch", restart_policy="Never"))
    world.submit(job("failed", kind="batch", backoff_limit=0))
    world.schedule()
    world.ends("default/lost.0", LOST)
    world.ends("default/failed.0", BAD)
    assert collect(world, before_ms=10**12) == ("default/lost", "default/failed")


def test_a_service_of_nothing_is_wanted_and_stays() -> None:
    world = World("a1")
    world.submit(job(replicas=0))
    assert collect(world, before_ms=10**12, keep=0) == ()


def test_request_ids_are_forgotten_with_their_job() -> None:
    world = World("a1")
    first = world.submit(job(), request="r-1")
    world.stop()
    collect(world, before_ms=10**12)
    again = world.submit(job(), request="r-1")
    assert (again.outcome, again.repeated, again.version) == ("created", False, 1)
    assert again.index > first.index


def test_every_replica_collects_the_same_also_one_that_was_restarted() -> None:
    world = World("a1")
    for name in ("j3", "j1", "j2"):
        finished(world, name)
    again = State()
    again.restore(world.state.index, 1, world.state.freeze().chunks())
    data = commands.encode(commands.Collect(0, 3, 100, world.now_ms))
    index = world.state.index + 1
    assert again.apply(index, 1, data) == world.state.apply(index, 1, data)
    assert again.digest() == world.state.digest()
