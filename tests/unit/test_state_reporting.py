"""What nodes report: order, repetition, unknown work, and when capacity comes free."""

from __future__ import annotations

import pytest

from scheduler import commands
from scheduler.evaluations import next_due_ms, pending
from scheduler.model import Exit
from scheduler.state.allocations import HISTORY_KEPT
from tests.support.scheduler_world import BAD, LOST, OK, OOM, STOPPED, World, job


def placed(**changes: object) -> World:
    world = World("a1", "a2")
    world.submit(job(**changes))
    world.schedule()
    return world


def node_of(world: World) -> str:
    return str(world.shown("default/web.0")["node"])


def due(world: World) -> list[str]:
    return [item.allocation for item in pending(world.state, world.now_ms)]


def test_a_running_report_shows_pid_and_cgroup() -> None:
    world = placed()
    done = world.runs("default/web.0")
    assert (done.applied, done.stale, done.unknown, done.changes) == (1, 0, (), ())
    shown = world.shown("default/web.0")
    assert (shown["state"], shown["pid"], shown["cgroup"]) == ("running", 4242, "/skerry/default/web.0")
    assert world.state.job("default/web")["state"] == "running"  # type: ignore[index]


def test_the_trace_is_told_which_reports_counted_and_callers_elsewhere_are_not() -> None:
    world = placed()
    done = world.runs("default/web.0")
    epoch = world.shown("default/web.0")["epoch"]
    ((kind, fields),) = done.traced
    assert (kind, fields["index"], fields["node"]) == ("status", done.index, node_of(world))
    ((allocation, of_epoch, sequence, state),) = fields["reports"]
    assert (allocation, of_epoch, state) == ("default/web.0", epoch, "running")
    assert sequence >= 0
    assert (done.for_caller().taken, done.for_caller().applied) == ((), 1)


def test_only_the_exit_report_frees_capacity() -> None:
    world = placed(ports=(80,))
    node = node_of(world)
    world.runs("default/web.0")
    world.stop()
    world.cordon(node)
    assert world.free(node)[0] == 3900
    done = world.ends("default/web.0", STOPPED)
    assert world.free(node) == (4000, 4 << 30, 1000)
    assert [(kind, fields["do"]) for kind, fields in done.changes] == [("place", "release")]
    assert world.state.node(node)["ports"] == []  # type: ignore[index]


def test_a_repeated_or_older_report_is_stale() -> None:
    world = placed()
    world.report("default/web.0", "running", sequence=5)
    assert world.report("default/web.0", "running", sequence=5).stale == 1
    assert world.report("default/web.0", "exited", OK, sequence=4).stale == 1
    assert world.state_of("default/web.0") == "running"
    assert world.report("default/web.0", "exited", OK, sequence=6).applied == 1
    assert world.report("default/web.0", "exited", BAD, sequence=7).stale == 1
    assert world.shown("default/web.0")["exit"]["code"] == 0


def test_a_late_running_report_after_the_exit_is_no_news() -> None:
    world = placed(kind="batch")
    epoch, node = world.shown("default/web.0")["epoch"], node_of(world)
    world.report("default/web.0", "exited", OK, sequence=9)
    done = world.report("default/web.0", "running", epoch=epoch, node=node, sequence=8)
    assert (done.stale, done.unknown) == (1, ())
    assert world.state_of("default/web.0") == "complete"


def test_what_runs_on_though_it_ended_is_unknown() -> None:
    world = placed(kind="batch")
    epoch, node = world.shown("default/web.0")["epoch"], node_of(world)
    world.report("default/web.0", "exited", LOST, sequence=9)
    done = world.report("default/web.0", "running", epoch=epoch, node=node, sequence=10)
    assert done.unknown == (("default/web.0", epoch),)


def test_reports_of_an_unregistered_incarnation_or_node_are_refused_whole() -> None:
    world = placed()
    assert world.report("default/web.0", "exited", OK, incarnation="i0").code == "stale-incarnation"
    assert world.report("default/web.0", "exited", OK, node="a9").code == "no-such-node"
    assert world.state_of("default/web.0") == "placed"


def test_work_reported_by_a_node_that_was_not_given_it_is_unknown_there() -> None:
    world = placed()
    epoch, other = world.shown("default/web.0")["epoch"], "a2" if node_of(world) == "a1" else "a1"
    done = world.report("default/web.0", "running", node=other)
    assert done.unknown == (("default/web.0", epoch),)
    assert world.report("default/web.0", "exited", OK, node=other).unknown == ()
    assert world.state_of("default/web.0") == "placed"


def test_unknown_work_gets_a_stop_record_until_its_exit_is_reported() -> None:
    world = placed()
    node = node_of(world)
    assert world.report("default/gone.0", "running", node=node, epoch=3).unknown == (("default/gone.0", 3),)
    done = world.apply(commands.StopUnknown(node, (("default/gone.0", 3),), world.now_ms))
    assert done.stops == (("default/gone.0", 3),)
    _, stops = world.state.desired_for(node)
    assert [(stop.allocation, stop.epoch, stop.index) for stop in stops] == [("default/gone.0", 3, done.index)]
    assert world.report("default/gone.0", "running", node=node, epoch=3).unknown == ()
    again = world.apply(commands.StopUnknown(node, (("default/gone.0", 3),), world.now_ms))
    assert world.state.desired_for(node)[1][0].index == done.index != again.index
    world.report("default/gone.0", "exited", STOPPED, node=node, epoch=3)
    assert world.state.desired_for(node)[1] == ()


def test_wanted_work_called_unknown_is_not_stopped() -> None:
    world = placed()
    node, epoch = node_of(world), world.shown("default/web.0")["epoch"]
    assert world.apply(commands.StopUnknown(node, (("default/web.0", epoch),), world.now_ms)).stops == ()
    assert len(world.state.desired_for(node)[0]) == 1
    other = "a2" if node == "a1" else "a1"
    assert world.apply(commands.StopUnknown(other, (("default/web.0", epoch),), world.now_ms)).stops != ()
    assert world.apply(commands.StopUnknown("a9", (), world.now_ms)).code == "no-such-node"


@pytest.mark.parametrize(
    ("end", "state"), [(OK, "complete"), (BAD, "failed"), (OOM, "failed"), (LOST, "lost"), (STOPPED, "stopped")]
)
def test_the_exit_decides_the_state_and_is_shown_as_reported(end: Exit, state: str) -> None:
    world = placed()
    world.ends("default/web.0", end)
    shown = world.shown("default/web.0")
    assert shown["state"] == state
    assert shown["exit"]["reason"] == end.reason
    assert (shown["exit"]["code"], shown["exit"]["signal"]) == (end.code, end.signal)


def test_an_exit_without_evidence_is_lost_never_success() -> None:
    world = placed(kind="batch")
    world.report("default/web.0", "exited", None)
    shown = world.shown("default/web.0")
    assert (shown["state"], shown["exit"]["code"], shown["exit"]["status_known"]) == ("lost", None, False)


def test_a_crashing_service_restarts_with_growing_back_off_from_the_committed_exit_time() -> None:
    world = placed()
    waits = []
    for _ in range(7):
        world.now_ms += 10
        world.ends("default/web.0", BAD)
        due_at = next_due_ms(world.state)
        assert due_at is not None
        waits.append(due_at - world.now_ms)
        assert due(world) == []
        world.now_ms = due_at
        assert due(world) == ["default/web.0"]
        world.schedule()
    assert waits == [1000, 2000, 4000, 8000, 16_000, 30_000, 30_000]
    assert world.shown("default/web.0")["attempt"] == 8


def test_a_minute_of_running_starts_the_back_off_anew() -> None:
    world = placed()
    for wait_ms in (1000, 2000):
        world.ends("default/web.0", BAD)
        assert next_due_ms(world.state) == world.now_ms + wait_ms
        world.now_ms += 30_000
        world.schedule()
    world.runs("default/web.0")
    world.now_ms += 60_000
    world.ends("default/web.0", BAD)
    assert next_due_ms(world.state) == world.now_ms + 1000


def test_a_batch_allocation_stays_failed_after_its_limit_of_failures() -> None:
    world = placed(kind="batch", backoff_limit=2)
    for _ in range(3):
        assert world.state.job("default/web")["state"] != "failed"  # type: ignore[index]
        world.ends("default/web.0", BAD)
        world.now_ms += 60_000
        world.schedule()
    assert world.shown("default/web.0")["attempt"] == 3
    assert world.state.job("default/web")["state"] == "failed"  # type: ignore[index]
    assert due(world) == []


def test_lost_attempts_do_not_count_as_failures() -> None:
    world = placed(kind="batch", backoff_limit=0)
    for _ in range(3):
        world.ends("default/web.0", LOST)
        world.now_ms += 60_000
        world.schedule()
    world.ends("default/web.0", OK)
    assert world.state.job("default/web")["state"] == "complete"  # type: ignore[index]


def test_the_last_attempts_are_kept_newest_first() -> None:
    world = placed()
    for _ in range(HISTORY_KEPT + 3):
        world.ends("default/web.0", OOM)
        world.now_ms += 60_000
        world.schedule()
    shown = world.shown("default/web.0")
    assert [old["attempt"] for old in shown["previous"]] == [7, 6, 5, 4]
    assert {old["exit"]["reason"] for old in shown["previous"]} == {"oom"}
    table = world.state.books.attempts.table
    assert table.rows - table.free_rows() == HISTORY_KEPT + 1


def test_pushing_to_nodes_needs_only_those_that_changed() -> None:
    world = World(*(f"a{n}" for n in range(20)))
    world.submit(job())
    before = world.state.index
    world.schedule()
    assert world.state.changed_nodes(before) == [node_of(world)]
    before = world.state.index
    world.runs("default/web.0")
    assert world.state.changed_nodes(before) == []
    world.stop()
    assert world.state.changed_nodes(before) == [node_of(world)]
    assert world.state.changed_nodes(world.state.index) == []
    assert len(world.state.changed_nodes(0)) == 20


def test_the_words_of_a_node_are_bounded() -> None:
    world = placed()
    world.ends("default/web.0", Exit(None, None, "start-failed", False, "x" * 10**5))
    assert len(world.shown("default/web.0")["exit"]["detail"]) == 1024
