"""Plans are checked again at apply, one placement at a time."""

from __future__ import annotations

import pytest

from scheduler.commands import Placement
from tests.support.scheduler_world import GIB, MIB, OK, World, job


def refusals(world: World, *placements: Placement) -> list[str]:
    done = world.plan(*placements)
    assert len(done.placed) + len(done.refused) == len(placements)
    return [refusal.code for refusal in done.refused]


def test_a_placement_books_the_node_and_is_desired_there() -> None:
    world = World("a1")
    world.submit(job(ports=(80,)))
    done = world.plan(world.at("default/web.0", "a1"))
    assert done.placed == (("default/web.0", 1, done.index),)
    assert world.free("a1") == (3900, 4 * GIB - 64 * MIB, 990)
    shown = world.shown("default/web.0")
    assert (shown["node"], shown["epoch"], shown["state"]) == ("a1", done.index, "placed")
    (assignment,), stops = world.state.desired_for("a1")
    assert (assignment.allocation, assignment.epoch, assignment.attempt, stops) == ("default/web.0", done.index, 1, ())
    kind, fields = done.changes[0]
    assert kind == "place"
    assert fields == {
        "do": "bind", "index": done.index, "allocation": "default/web.0", "attempt": 1, "job": "default/web",
        "node": "a1", "epoch": done.index, "ports": [80], "by": "n1", "why": "test",
        "requests": {"cpu_millicores": 100, "memory_bytes": 64 * MIB, "pids": 10},
        "ring": 0, "ring_now": 0, "owner": None,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("spec", "code"),
    [({"cpu_millicores": 2500}, "no-cpu"), ({"memory_bytes": 3 * GIB}, "no-memory"), ({"pids": 600}, "no-pids"),
     ({"ports": (80,)}, "port-taken")],
)  # fmt: skip
def test_what_no_longer_fits_is_refused_and_what_fits_is_placed(spec: dict[str, object], code: str) -> None:
    world = World("a1", "a2")
    world.submit(job(replicas=3, **spec))
    both = [world.at("default/web.0", "a1"), world.at("default/web.1", "a1"), world.at("default/web.2", "a2")]
    done = world.plan(*both)
    assert [item[0] for item in done.placed] == ["default/web.0", "default/web.2"]
    assert [(item.allocation, item.code) for item in done.refused] == [("default/web.1", code)]
    assert done.refused[0].reason
    assert [fields["do"] for _, fields in done.changes] == ["bind", "refuse", "bind"]


def test_a_node_can_be_filled_to_the_last_unit() -> None:
    world = World("a1", cpu=200, memory=128 * MIB, pids=20)
    world.submit(job(replicas=3))
    assert refusals(world, *(world.at(f"default/web.{n}", "a1") for n in range(3))) == ["no-cpu"]
    assert world.free("a1") == (0, 0, 0)


@pytest.mark.parametrize(
    ("spec", "code"),
    [
        ({"cpu_millicores": 4001}, "no-cpu"),
        ({"memory_bytes": 4 * GIB + 1}, "no-memory"),
        ({"pids": 1001}, "no-pids"),
    ],
)
def test_one_unit_too_much_is_refused(spec: dict[str, object], code: str) -> None:
    world = World("a1")
    world.submit(job(**spec))
    assert refusals(world, world.at("default/web.0", "a1")) == [code]


def test_a_placement_for_what_changed_since_is_refused() -> None:
    world = World("a1", "a2")
    world.submit(job())
    good = world.at("default/web.0", "a1")
    assert refusals(world, world.at("default/none.0", "a1", attempt=1, job_version=1)) == ["no-such-job"]
    assert refusals(world, world.at("default/web.1", "a1")) == ["not-wanted"]
    assert refusals(world, world.at("web", "a1")) == ["no-such-job"]
    assert refusals(world, world.at("default/web.0", "a9")) == ["no-such-node"]
    assert refusals(world, world.at("default/web.0", "a1", attempt=2)) == ["already-placed"]
    world.submit(job(replicas=2))
    assert refusals(world, good) == ["job-changed"]
    world.stop()
    assert refusals(world, world.at("default/web.0", "a1")) == ["job-stopped"]


def test_a_node_that_was_cordoned_or_registered_anew_refuses_older_plans() -> None:
    world = World("a1")
    world.submit(job())
    made_before = world.at("default/web.0", "a1")
    world.cordon("a1")
    assert refusals(world, made_before) == ["node-not-ready"]
    world.cordon("a1", "ready")
    assert refusals(world, made_before) == ["node-changed"]
    assert refusals(world, world.at("default/web.0", "a1")) == []


def test_an_allocation_is_never_placed_twice() -> None:
    world = World("a1", "a2")
    world.submit(job())
    assert refusals(world, world.at("default/web.0", "a1"), world.at("default/web.0", "a2")) == ["already-placed"]
    assert refusals(world, world.at("default/web.0", "a2", attempt=2)) == ["already-placed"]
    world.runs("default/web.0")
    assert refusals(world, world.at("default/web.0", "a2")) == ["already-placed"]


def test_a_stopping_attempt_keeps_its_room_and_its_allocation() -> None:
    world = World("a1", cpu=100)
    world.submit(job())
    world.schedule()
    world.stop()
    world.submit(job())
    assert refusals(world, world.at("default/web.0", "a1")) == ["already-placed"]
    world.submit(job("other"))
    assert refusals(world, world.at("default/other.0", "a1")) == ["no-cpu"]
    world.ends("default/web.0")
    assert refusals(world, world.at("default/other.0", "a1")) == []


def test_a_complete_allocation_is_not_placed_again() -> None:
    world = World("a1")
    world.submit(job(kind="batch"))
    world.schedule()
    world.ends("default/web.0", OK)
    assert refusals(world, world.at("default/web.0", "a1")) == ["not-wanted"]


def test_the_same_port_number_is_free_on_another_node() -> None:
    world = World("a1", "a2")
    world.submit(job(replicas=3, ports=(80, 81)))
    world.submit(job("api", ports=(81,)))
    assert len(world.schedule().placed) == 2
    assert refusals(world, world.at("default/api.0", "a1")) == ["port-taken"]
    gone = next(n for n in range(3) if world.shown(f"default/web.{n}")["node"] == "a1")
    world.submit(job(replicas=3, ports=(82,)))
    world.ends(f"default/web.{gone}")
    assert refusals(world, world.at("default/api.0", "a1")) == []


@pytest.mark.parametrize("name", ["", ".", "web.0", "default/web.", "default/web.00", "default/web.-1", "default/web.٣",
                                  "default/web.0.0", "default/web.99999999999"])  # fmt: skip
def test_a_crooked_allocation_id_names_nothing(name: str) -> None:
    world = World("a1")
    world.submit(job())
    assert world.state.allocation(name) is None
    placement = Placement(name, 1, 1, "a1", 1)
    assert refusals(world, placement) in (["no-such-job"], ["not-wanted"])
