"""Submitting and stopping jobs: request ids, versions, and what becomes of the attempts before."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from scheduler import commands
from scheduler.errors import CommandTooNew
from scheduler.evaluations import pending
from scheduler.model import Capacity, Toleration
from scheduler.state import submission
from scheduler.state.jobs import REQUESTS_KEPT
from tests.support.scheduler_world import BAD, OK, World, job


def waiting(world: World) -> list[str]:
    return [item.allocation for item in pending(world.state, world.now_ms)]


def test_a_new_job_is_version_one_and_all_of_it_waits() -> None:
    world = World("a1")
    done = world.submit(job(replicas=3))
    assert (done.ok, done.job, done.version, done.outcome, done.index) == (True, "default/web", 1, "created", 2)
    assert waiting(world) == ["default/web.0", "default/web.1", "default/web.2"]
    assert done.changes == (
        (
            "job",
            {"do": "submit", "index": 2, "job": "default/web", "version": 1, "request_id": "r1", "outcome": "created"},
        ),
    )


def test_the_same_request_id_again_gets_the_first_result_and_changes_nothing() -> None:
    world = World("a1")
    first = world.submit(job(), request="once")
    world.now_ms += 5000
    again = world.submit(job(), request="once")
    assert (again.index, again.version, again.outcome, again.repeated) == (first.index, 1, "created", True)
    assert again.changes == ()
    assert world.state.job_version("default/web") == 1


def test_the_first_result_is_kept_over_later_versions_and_a_stop() -> None:
    world = World("a1")
    first = world.submit(job(), request="once")
    world.submit(job(replicas=2))
    world.stop(request="halt")
    assert world.submit(job(), request="once").index == first.index
    assert world.stop(request="halt").repeated
    assert world.state.job("default/web")["state"] == "stopped"  # type: ignore[index]


def test_a_request_id_with_another_body_is_refused() -> None:
    world = World("a1")
    world.submit(job(), request="once")
    for refused in (
        world.submit(job(replicas=2), request="once"),
        world.submit(job(), request="once", expected=1),
        world.stop(request="once"),
    ):
        assert refused.code == "request-id-reused"
        assert refused.hint
        assert refused.changes == ()
    assert world.state.job("default/web")["replicas"] == 1  # type: ignore[index]


def test_a_request_id_belongs_to_its_job() -> None:
    world = World("a1")
    world.submit(job(), request="once")
    assert world.submit(job("api"), request="once").outcome == "created"
    assert world.submit(job(namespace="other"), request="once").outcome == "created"


def test_only_the_newest_request_ids_of_a_job_are_kept() -> None:
    world = World("a1")
    world.submit(job(), request="old")
    for number in range(REQUESTS_KEPT):
        world.submit(job(replicas=number % 5), request=f"n{number}")
    record = world.state.books.jobs.by_id["default/web"]
    assert len(record.requests) == REQUESTS_KEPT
    assert "old" not in record.requests
    assert world.submit(job(), request="n2").code == "request-id-reused"


def test_compare_and_set_refuses_another_version_and_is_not_remembered() -> None:
    world = World("a1")
    assert world.submit(job(), expected=1).code == "version-conflict"
    assert world.submit(job(), expected=0).version == 1
    refused = world.submit(job(replicas=2), request="cas", expected=0)
    assert (refused.code, refused.version) == ("version-conflict", 1)
    assert world.submit(job(replicas=2), request="cas", expected=1).version == 2


def test_submitting_what_is_there_already_makes_no_new_version() -> None:
    world = World("a1")
    world.submit(job())
    same = world.submit(job())
    assert (same.outcome, same.version) == ("unchanged", 1)


def test_scaling_down_stops_the_surplus_and_frees_it_only_when_its_exit_is_reported() -> None:
    world = World("a1")
    world.submit(job(replicas=3))
    world.schedule()
    for ordinal in range(3):
        world.runs(f"default/web.{ordinal}")
    world.submit(job(replicas=1))
    assert [world.state_of(f"default/web.{n}") for n in range(3)] == ["running", "stopping", "stopping"]
    assert world.free("a1")[0] == 4000 - 300
    world.ends("default/web.2")
    assert world.free("a1")[0] == 4000 - 200
    assert world.state.allocation("default/web.2") is None
    assert [shown["id"] for shown in world.state.job("default/web")["allocations"]] == [
        "default/web.0",
        "default/web.1",
    ]  # type: ignore[index]


def test_scaling_up_leaves_running_attempts_alone() -> None:
    world = World("a1")
    world.submit(job())
    world.schedule()
    world.runs("default/web.0")
    world.submit(job(replicas=3))
    assert waiting(world) == ["default/web.1", "default/web.2"]
    assert world.state_of("default/web.0") == "running"


def test_scaling_down_and_up_again_places_the_stopped_one_anew_after_its_exit() -> None:
    world = World("a1")
    world.submit(job(replicas=2, restart_policy="Never"))
    world.schedule()
    world.submit(job(replicas=1, restart_policy="Never"))
    world.submit(job(replicas=2, restart_policy="Never"))
    assert waiting(world) == []
    world.ends("default/web.1", BAD)
    assert waiting(world) == ["default/web.1"]


def test_a_new_shape_stops_old_attempts_and_places_each_after_its_own_exit() -> None:
    world = World("a1")
    world.submit(job(replicas=2))
    world.schedule()
    world.runs("default/web.0")
    world.submit(job(replicas=2, command=("/bin/other",)))
    assert [world.state_of(f"default/web.{n}") for n in range(2)] == ["stopping", "stopping"]
    assert waiting(world) == []
    world.ends("default/web.1")
    assert waiting(world) == ["default/web.1"]
    world.schedule()
    assert world.shown("default/web.1")["attempt"] == 2
    assignments, stops = world.state.desired_for("a1")
    assert [(item.allocation, item.workload.command) for item in assignments] == [("default/web.1", ("/bin/other",))]
    assert [stop.allocation for stop in stops] == ["default/web.0"]


def test_a_new_shape_gives_failed_allocations_a_fresh_start() -> None:
    world = World("a1")
    world.submit(job(kind="batch", backoff_limit=0))
    world.schedule()
    world.ends("default/web.0", BAD)
    assert world.state.job("default/web")["state"] == "failed"  # type: ignore[index]
    world.submit(job(kind="batch", backoff_limit=0, command=("/bin/fixed",)))
    assert waiting(world) == ["default/web.0"]
    world.schedule()
    world.ends("default/web.0", OK)
    assert world.state.job("default/web")["state"] == "complete"  # type: ignore[index]


def test_stopping_orders_every_live_attempt_to_stop_and_nothing_starts_again() -> None:
    world = World("a1")
    world.submit(job(replicas=2))
    world.schedule()
    world.runs("default/web.0")
    done = world.stop()
    assert (done.outcome, world.state.job("default/web")["state"]) == ("stopped", "stopping")  # type: ignore[index]
    assignments, stops = world.state.desired_for("a1")
    assert assignments == ()
    assert [(stop.allocation, stop.index) for stop in stops] == [
        ("default/web.0", done.index),
        ("default/web.1", done.index),
    ]
    world.ends("default/web.0")
    world.ends("default/web.1", BAD)
    world.now_ms += 100_000
    assert world.state.job("default/web")["state"] == "stopped"  # type: ignore[index]
    assert world.state.desired_for("a1") == ((), ())
    assert waiting(world) == []
    assert world.free("a1") == (4000, 4 << 30, 1000)


def test_stopping_what_is_not_there_is_refused_and_stopping_twice_changes_nothing() -> None:
    world = World("a1")
    assert world.stop("nothing").code == "no-such-job"
    world.submit(job())
    world.stop()
    assert world.stop().outcome == "unchanged"


def test_a_stopped_job_submitted_again_waits_for_the_exits_of_its_old_attempts() -> None:
    world = World("a1")
    world.submit(job(replicas=2))
    world.schedule()
    world.stop()
    again = world.submit(job(replicas=2))
    assert (again.outcome, again.version) == ("replaced", 2)
    assert waiting(world) == []
    world.ends("default/web.0")
    assert waiting(world) == ["default/web.0"]


def test_too_many_allocations_in_all_are_refused() -> None:
    world = World("a1")
    limit = submission.ALLOCATIONS_MAX
    for number in range(limit // 100_000):
        assert world.submit(job(f"j{number}", replicas=100_000)).ok
    refused = world.submit(job("last"))
    assert refused.code == "too-many-allocations"
    assert world.state.job("default/last") is None
    assert world.submit(job("j0", replicas=99_999)).ok
    assert world.submit(job("last")).ok


def test_what_is_no_command_is_refused_the_same_everywhere() -> None:
    world = World("a1")
    before = world.state.job_version("default/web")
    for data in (b"", b"\xff" * 10, b"\x92\x01\x93\x63\x01\x02", b"\x92\x01\xc0"):
        result = world.state.apply(world.state.index + 1, 1, data)
        assert result.code == "bad-command"
    assert world.state.job_version("default/web") == before


def test_a_command_of_a_newer_version_stops_the_replica() -> None:
    world = World("a1")
    newer = msgspec.msgpack.encode((commands.VERSION + 1, [99, "x"]))
    with pytest.raises(CommandTooNew) as caught:
        world.state.apply(world.state.index + 1, 1, newer)
    assert caught.value.hint
    assert world.state.index == 1


def test_a_command_has_the_lowest_version_that_can_say_it() -> None:
    def version(**changes: Any) -> int:
        data = commands.encode(commands.SubmitJob(job(**changes), "once", -1, 0))
        return int(msgspec.msgpack.decode(data)[0])

    assert version() == version(tolerations=(Toleration("sla", "Equal", "7"),)) == 1
    assert version(tolerations=(Toleration("sla", "Gt", "7"),)) == 2


def test_an_environment_in_another_order_is_the_same_body() -> None:
    world = World("a1")
    one = job(env={"A": "1", "B": "2"})
    other = replace(one, workload=replace(one.workload, env={"B": "2", "A": "1"}))
    world.submit(one, request="once")
    assert world.submit(other, request="once").repeated


@pytest.mark.parametrize(
    "command",
    [
        commands.SubmitJob(job(cpu_millicores=-1), "r", -1, 1),
        commands.SubmitJob(job(memory_bytes=1 << 62), "r", -1, 1),
        commands.SubmitJob(job(replicas=100_001), "r", -1, 1),
        commands.SubmitJob(job(), "r", -1, 1 << 62),
        commands.StopJob("default", "web", "r", -1),
        commands.RegisterNode("a1", "i", "b", Capacity(-1, 1, 1), "", "", "", 1),
        commands.RegisterNode("a1", "i", "b", Capacity(1, 1 << 63, 1), "", "", "", 1),
        commands.RegisterNode("", "i", "b", Capacity(1, 1, 1), "", "", "", 1),
        commands.RegisterNode("a" * 300, "i", "b", Capacity(1, 1, 1), "", "", "", 1),
        commands.ReportStatus("a1", "i", (commands.AllocationStatus("x", 1, 1 << 63, "running", 1, "", None),), 1),
    ],
)
def test_numbers_no_state_could_hold_make_a_bad_command(command: commands.Command) -> None:
    world = World("a1")
    assert world.apply(command).code == "bad-command"
