"""Nodes join, return with another sandboxer, reboot, shrink and are cordoned."""

from __future__ import annotations

from scheduler.evaluations import next_due_ms
from tests.support.scheduler_world import GIB, LOST, World, job


def filled() -> World:
    world = World("a1")
    world.submit(job(replicas=2, ports=()))
    world.schedule()
    world.runs("default/web.0")
    return world


def test_the_same_registration_again_changes_nothing() -> None:
    world = filled()
    done = world.register("a1")
    assert (done.outcome, done.generation, done.changes) == ("unchanged", 1, ())
    assert world.state_of("default/web.0") == "running"


def test_a_replaced_sandboxer_keeps_bookings_until_its_agent_reports_each_attempt() -> None:
    world = filled()
    world.report("default/web.0", "running", sequence=50)
    done = world.register("a1", incarnation="i2")
    assert (done.outcome, done.generation) == ("replaced", 2)
    assert world.free("a1")[0] == 3800
    assert world.report("default/web.0", "exited", LOST, sequence=60).code == "stale-incarnation"
    assert world.report("default/web.0", "exited", LOST, sequence=1, incarnation="i2").applied == 1
    assert world.free("a1")[0] == 3900
    assert world.state_of("default/web.0") == "lost"


def test_a_reboot_ends_everything_that_was_on_the_node() -> None:
    world = filled()
    world.submit(job("gone"))
    world.schedule()
    world.stop("gone")
    done = world.register("a1", incarnation="i2", boot="b2")
    assert done.outcome == "rebooted"
    assert world.free("a1") == (4000, 4 * GIB, 1000)
    assert [world.state_of(f"default/web.{n}") for n in range(2)] == ["lost", "lost"]
    assert world.state.job("default/gone")["state"] == "stopped"  # type: ignore[index]
    assert world.state.desired_for("a1") == ((), ())
    assert [fields["do"] for _, fields in done.changes] == ["release", "release", "release", "register"]
    assert world.shown("default/web.0")["exit"]["detail"] == "the node was rebooted"
    assert next_due_ms(world.state) == world.now_ms + 1000


def test_capacity_that_shrank_keeps_bookings_and_takes_no_new_work() -> None:
    world = filled()
    done = world.register("a1", cpu=150)
    assert done.outcome == "updated"
    node = world.state.node("a1")
    assert node is not None
    assert (node["capacity"]["cpu_millicores"], node["allocated"]["cpu_millicores"]) == (150, 200)
    world.submit(job("more"))
    assert world.plan(world.at("default/more.0", "a1")).refused[0].code == "no-cpu"
    assert world.schedule().placed == ()


def test_a_cordoned_node_keeps_its_work_and_gets_no_more() -> None:
    world = filled()
    done = world.cordon("a1")
    assert (done.outcome, done.changes[0][1]["state"]) == ("cordoned", "cordoned")
    world.submit(job("more"))
    assert world.schedule().placed == ()
    assert len(world.state.desired_for("a1")[0]) == 2
    assert world.cordon("a1").outcome == "unchanged"
    assert world.register("a1", incarnation="i2").ok
    assert world.state.node("a1")["state"] == "cordoned"  # type: ignore[index]
    world.cordon("a1", "ready")
    assert len(world.schedule().placed) == 1


def test_impossible_node_commands_are_refused_with_a_code() -> None:
    world = filled()
    assert world.cordon("a9").code == "no-such-node"
    assert world.cordon("a1", "broken").code == "bad-node-state"


def test_an_unknown_node_desires_nothing() -> None:
    world = filled()
    assert world.state.desired_for("a9") == ((), ())
    assert world.state.node("a9") is None
    assert world.state.registration("a9") is None


def test_nodes_are_shown_with_the_documented_keys() -> None:
    world = filled()
    (shown,) = world.state.nodes()
    assert {"id", "state", "owner", "isolation", "capacity", "allocated"} <= shown.keys()
    assert shown["isolation"] == {"level": "full", "why": ""}
    detail = world.state.node("a1")
    assert detail is not None
    assert [item["id"] for item in detail["allocations"]] == ["default/web.0", "default/web.1"]
