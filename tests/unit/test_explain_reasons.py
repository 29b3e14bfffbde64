"""Explanations: the filter, the numbers, the nearest miss, in words."""

from __future__ import annotations

from typing import Any

import pytest

from scheduler.explain import could_ever_fit, explain, why_not_placed
from tests.support.scheduler_world import BAD, GIB, MIB, OK, World, job


def of(world: World, name: str = "web", **options: Any) -> dict[str, Any]:
    found = explain(world.state, f"default/{name}", world.now_ms, **options)
    assert found is not None
    return found


def test_what_is_no_job_has_no_explanation() -> None:
    assert explain(World("a1").state, "default/web", 0) is None
    assert why_not_placed(World("a1").state, "default/web", 0) == ""


def test_a_waiting_allocation_names_the_filter_the_numbers_and_the_nearest_change() -> None:
    world = World("a1", "a2")
    world.register("a3", cpu=500)
    world.submit(job("base", replicas=2, cpu_millicores=3000))
    world.schedule()
    world.submit(job(cpu_millicores=1500))
    found = of(world)
    assert found["placed"] is False
    assert found["state"] == "pending"
    assert found["allocation"] == "default/web.0"
    assert found["nodes"][0] == {"node": "a1", "filter": "cpu", "need": 1500, "have": 1000}
    assert found["nodes"][2] == {"node": "a3", "filter": "cpu", "need": 1500, "have": 500}
    assert (found["counts"]["nodes"], found["counts"]["fit"], found["counts"]["cpu"]) == (3, 0, 3)
    assert found["nearest"] == {
        "node": "a1",
        "change": "free 500m more cpu on a1, or request at most 1 instead of 1500m",
    }
    assert found["scores"] == []
    assert "0 of 3 nodes fit: 3 fail cpu" in found["reason"]
    assert "nearest is a1" in found["reason"]
    assert why_not_placed(world.state, "default/web", world.now_ms) == found["reason"]


def test_doing_what_the_nearest_change_says_makes_it_fit() -> None:
    world = World("a1", "a2")
    world.submit(job("base", replicas=2, cpu_millicores=3000))
    world.schedule()
    world.submit(job(cpu_millicores=1500))
    assert world.schedule().placed == ()
    world.submit(job(cpu_millicores=1000))
    assert len(world.schedule().placed) == 1


def test_a_node_that_misses_in_one_thing_is_nearer_than_one_that_misses_in_two() -> None:
    world = World()
    world.register("small", cpu=90, memory=MIB)
    world.register("nearly", cpu=80, memory=GIB)
    world.submit(job())
    assert of(world)["nearest"]["node"] == "nearly"


def test_a_shortage_of_several_things_lists_every_change() -> None:
    world = World()
    world.register("small", cpu=50, memory=MIB, pids=1)
    world.submit(job())
    change = of(world)["nearest"]["change"]
    assert "at most 50m cpu instead of 100m" in change
    assert "at most 1Mi memory instead of 64Mi" in change
    assert "at most 1 pids instead of 10" in change


def test_cordoned_and_unconnected_nodes_are_named_with_what_to_do() -> None:
    world = World("a1", "a2")
    world.cordon("a1")
    world.submit(job())
    found = of(world, absent=["a2"])
    assert [item["filter"] for item in found["nodes"]] == ["node-ready", "node-connected"]
    assert found["nodes"][0]["have"] == "cordoned"
    assert found["nearest"] == {"node": "a1", "change": "uncordon a1"}
    world.cordon("a1", "ready")
    world.cordon("a2")
    assert of(world, absent=["a1"])["nearest"]["change"] == "uncordon a2"
    assert of(world, absent=["a1", "a2"])["nearest"]["change"] == "bring the agent of a1 back"


def test_a_taken_port_names_its_holder() -> None:
    world = World("a1")
    world.submit(job("first", ports=(80, 81)))
    world.schedule()
    world.submit(job(ports=(81, 82)))
    found = of(world)
    assert found["nodes"] == [{"node": "a1", "filter": "ports", "need": "ports 81, 82", "have": "taken: 81"}]
    assert found["nearest"]["change"] == "free port 81 on a1 (held by default/first.0)"


def test_a_placed_job_shows_the_scores_as_if_decided_now_without_itself() -> None:
    world = World("a1", "a2")
    world.submit(job(ports=(80,)))
    world.schedule()
    world.runs("default/web.0")
    free_before = world.free("a1"), world.free("a2")
    found = of(world)
    assert found["placed"] is True
    assert found["nearest"] is None
    assert [item["filter"] for item in found["nodes"]] == [None, None]
    scores = {item["node"]: item for item in found["scores"]}
    assert scores["a1"]["score"] == scores["a2"]["score"]
    assert scores["a1"]["parts"]["job-spread"] == scores["a1"]["of"]
    assert found["reason"].startswith("1 of 1 allocations run")
    assert (world.free("a1"), world.free("a2")) == free_before


def test_a_job_that_fits_but_was_not_placed_yet_says_so() -> None:
    world = World("a1")
    world.submit(job())
    found = of(world)
    assert found["nearest"] is None
    assert "the next plan places one" in found["reason"]
    assert [item["node"] for item in found["scores"]] == ["a1"]


def test_a_back_off_is_explained_with_its_length_and_the_last_exit() -> None:
    world = World("a1")
    world.submit(job())
    world.schedule()
    world.ends("default/web.0", BAD)
    found = of(world)
    assert "back off, the next for 1.0 s more" in found["reason"]
    assert "exited (code 1), 1 failures" in found["reason"]
    assert found["placed"] is False


@pytest.mark.parametrize(("end", "word"), [(OK, "1 complete"), (BAD, "1 failed")])
def test_a_finished_batch_says_how_it_ended(end: Any, word: str) -> None:
    world = World("a1")
    world.submit(job(kind="batch", backoff_limit=0))
    world.schedule()
    world.ends("default/web.0", end)
    assert word in of(world)["reason"]
    assert why_not_placed(world.state, "default/web", world.now_ms) == ""


def test_a_stopped_job_says_so() -> None:
    world = World("a1")
    world.submit(job())
    world.schedule()
    world.stop()
    assert of(world)["reason"] == "the job was stopped; 1 attempts are still to end"
    world.ends("default/web.0")
    assert of(world)["reason"] == "the job was stopped"


def test_a_job_without_nodes_is_explained_too() -> None:
    world = World()
    world.submit(job())
    found = of(world)
    assert (found["nodes"], found["nearest"]) == ([], None)
    assert "no node is registered" in found["reason"]


@pytest.mark.parametrize(("kind", "state"), [("service", "running"), ("batch", "complete")])
def test_a_job_of_nothing_is_placed(kind: str, state: str) -> None:
    world = World("a1")
    world.submit(job(replicas=0, kind=kind))
    assert (of(world)["placed"], of(world)["state"]) == (True, state)


def test_nodes_are_listed_by_name() -> None:
    world = World("b2", "a1", "c3")
    world.submit(job(cpu_millicores=10**6))
    assert [item["node"] for item in of(world)["nodes"]] == ["a1", "b2", "c3"]


def test_what_no_node_could_ever_hold_is_told_with_the_nearest_miss() -> None:
    world = World("a1", "a2")
    world.register("a3", memory=8 * GIB)
    misfit = could_ever_fit(world.state, job(memory_bytes=12 * GIB))
    assert misfit is not None
    assert misfit["nearest"] == {
        "node": "a3",
        "change": "request at most 8Gi memory instead of 12Gi, or add a node with 12Gi",
    }
    assert [item["have"] for item in misfit["nodes"]] == [4 * GIB, 4 * GIB, 8 * GIB]
    assert misfit["reason"].startswith("no node could ever hold it")


def test_what_would_fit_an_empty_node_may_wait_even_if_all_are_full_or_cordoned() -> None:
    world = World("a1", cpu=100)
    world.submit(job(ports=(80,)))
    world.schedule()
    world.cordon("a1")
    assert could_ever_fit(world.state, job("other", ports=(80,))) is None


def test_without_nodes_nothing_is_refused_for_ever() -> None:
    assert could_ever_fit(World().state, job(cpu_millicores=10**9)) is None


def test_huge_requests_do_not_overflow_the_distance() -> None:
    world = World("a1")
    world.register("a2", memory=1 << 60)
    assert could_ever_fit(world.state, job(memory_bytes=(1 << 60) + 1))["nearest"]["node"] == "a2"  # type: ignore[index]
