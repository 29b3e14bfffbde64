"""The oracle of a healed cluster: it names what is wrong, and is silent about what is not."""

from __future__ import annotations

import msgspec

from chaos.sim.swarm import oracle
from scheduler.model import Toleration
from tests.support.scheduler_world import World, job


class View(msgspec.Struct):
    name: str
    leader: str | None = "n1"
    term: int = 2
    applied_index: int = 9
    digest: str = "d"
    state: object = None
    sessions: tuple[str, ...] = ()


def test_one_leader_that_all_know():
    assert oracle.leaderless([View("n1"), View("n2")], 2) == ""
    assert "only 1" in oracle.leaderless([View("n1")], 2)
    assert "nobody" not in oracle.leaderless([View("n1"), View("n2", term=3)], 2)
    assert oracle.leaderless([View("n1"), View("n2", term=3)], 2)
    assert oracle.leaderless([View("n2"), View("n3")], 2), "n1 leads and is not among those that run"
    assert oracle.leaderless([View("n2"), View("n3")], 2, ["n1"]) == "", "but it may lead them"
    assert oracle.leaderless([View("n1", leader=None), View("n2", leader=None)], 2)


def test_states_at_the_same_index_are_the_same():
    assert oracle.unlike([View("n1"), View("n2")]) == ""
    assert "applied" in oracle.unlike([View("n1"), View("n2", applied_index=8)])
    assert "digests differ" in oracle.unlike([View("n1"), View("n2", digest="e")])


def test_every_node_has_a_session_and_is_registered():
    world = World("a1", "a2")
    views = [View("n1", state=world.state, sessions=("a1",)), View("n2", state=world.state, sessions=("a2",))]
    assert oracle.sessionless(views, ["a1", "a2"]) == ""
    assert oracle.sessionless(views[:1], ["a1", "a2"]) == "no session of a2"
    assert oracle.sessionless([View("n1", state=world.state, sessions=("a3",))], ["a3"]) == "no session of a3"


def test_an_acknowledged_job_that_is_not_there_is_forgotten():
    world = World("a1")
    result = world.submit(job("web"), request="web.1")
    assert oracle.forgotten(world.state, {"web.1": ("web", "submit", result.index)}) == ""
    assert "there is no job db" in oracle.forgotten(world.state, {"db.1": ("db", "submit", 3)})
    assert "does not know it" in oracle.forgotten(world.state, {"web.2": ("web", "submit", result.index + 5)})


def test_what_waits_while_a_node_has_room_is_unplaced():
    world = World("a1", cpu=250)
    world.submit(job("web", replicas=3))
    assert "room" in oracle.unplaced(world.state, ["a1"], world.now_ms)
    assert oracle.unplaced(world.state, [], world.now_ms) == "", "nobody can reach it"
    world.schedule()
    assert oracle.unplaced(world.state, ["a1"], world.now_ms) == "", "two fit, the third is explained"


def test_cordons_selectors_and_taints_explain_what_waits():
    world = World("a1")
    world.cordon("a1")
    world.submit(job("web"))
    assert oracle.unplaced(world.state, ["a1"], world.now_ms) == ""
    world.cordon("a1", "ready")
    assert oracle.unplaced(world.state, ["a1"], world.now_ms)
    elsewhere = World("a1")
    elsewhere.submit(job("web", node_selector=(("zone", "moon"),), tolerations=(Toleration("x", "Exists"),)))
    assert oracle.unplaced(elsewhere.state, ["a1"], elsewhere.now_ms) == ""


def running(world):
    world.submit(job("web"))
    world.schedule()
    (key,) = oracle.attempts_on(world.state, "a1")
    return key


def test_a_process_that_nobody_knows_is_a_stray():
    world = World("a1")
    key = running(world)
    assert oracle.strays(world.state, {"a1": {key}}) == ""
    assert "no such attempt" in oracle.strays(world.state, {"a1": {key, ("default/web.0", key[1] + 1)}})
    assert "no such attempt" in oracle.strays(world.state, {"a2": {key}})


def test_a_placement_that_never_starts_is_unfinished():
    world = World("a1")
    running(world)
    assert "still placed" in oracle.unfinished(world.state, ["a1"])
    assert oracle.unfinished(world.state, ["a2"]) == ""


def test_bookings_are_the_sum_of_live_attempts():
    world = World("a1")
    running(world)
    assert oracle.leaked(world.state) == ""
    slot = world.state.books.nodes.slot_of["a1"]
    world.state.books.nodes.table.columns["used_cpu"][slot] = 900
    assert "900m" in oracle.leaked(world.state)
