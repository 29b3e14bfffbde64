"""Labels, selectors, taints, tolerations and priorities, from the command to the decision and its explanation."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

from scheduler import commands
from scheduler.engine import draft
from scheduler.engine.marks import is_tolerated, tolerates
from scheduler.evaluations import pending
from scheduler.explain import explain
from scheduler.model import Capacity, Taint, TaintEffect, Toleration
from scheduler.state import NodeResult
from scheduler.taints import parse_label, parse_taint, spelled
from scheduler.units import UnitError
from tests.support.scheduler_world import World, job

NO, PREFER, EVICT = TaintEffect.NO_SCHEDULE, TaintEffect.PREFER_NO_SCHEDULE, TaintEffect.NO_EXECUTE
DB = Taint("dedicated", "db", NO)


def taint(world: World, node: str, *taints: Taint, remove: tuple[tuple[str, str], ...] = ()) -> NodeResult:
    return world.apply(commands.SetNodeTaints(node, taints, remove, world.now_ms))


def label(world: World, node: str, remove: tuple[str, ...] = (), **labels: str) -> NodeResult:
    return world.apply(commands.SetNodeLabels(node, labels, remove, world.now_ms))


def shown(world: World, node: str) -> dict[str, Any]:
    found = world.state.node(node)
    assert found is not None
    return found


def explained(world: World, name: str = "web") -> dict[str, Any]:
    found = explain(world.state, f"default/{name}", world.now_ms)
    assert found is not None
    return found


# The table of Kubernetes' ToleratesTaint: (toleration, taint, whether it matches).
MATCHES = [
    (Toleration("foo", "Exists", "", "NoSchedule"), Taint("foo", "bar", NO), True),
    (Toleration("foo", "Exists", "", ""), Taint("foo", "bar", NO), True),
    (Toleration("", "Exists", "", "NoSchedule"), Taint("foo", "bar", NO), True),
    (Toleration("", "Exists", "", ""), Taint("foo", "bar", EVICT), True),
    (Toleration("foo", "Exists", "", "NoSchedule"), Taint("foo", "bar", EVICT), False),
    (Toleration("foo", "Equal", "bar", "NoSchedule"), Taint("foo", "bar", NO), True),
    (Toleration("foo", "Equal", "bar", "NoSchedule"), Taint("foo", "bar2", NO), False),
    (Toleration("foo", "Equal", "bar", ""), Taint("foo", "bar", PREFER), True),
    (Toleration("foo", "Equal", "bar", "NoExecute"), Taint("foo", "bar", NO), False),
    (Toleration("foo2", "Equal", "bar", "NoSchedule"), Taint("foo", "bar", NO), False),
    (Toleration("foo", "Equal", "", ""), Taint("foo", "", NO), True),
    (Toleration("foo", "Equal", "", ""), Taint("foo", "bar", NO), False),
    (Toleration("foo", "Gt", "950", ""), Taint("foo", "999", NO), True),
    (Toleration("foo", "Gt", "950", ""), Taint("foo", "950", NO), False),
    (Toleration("foo", "Gt", "950", ""), Taint("foo", "high", NO), False),
    (Toleration("foo", "Lt", "950", ""), Taint("foo", "-1", NO), True),
    (Toleration("foo", "Lt", "950", "NoExecute"), Taint("foo", "7", NO), False),
]


@pytest.mark.parametrize(("toleration", "mark", "matches"), MATCHES)
def test_a_toleration_matches_as_in_kubernetes(toleration: Toleration, mark: Taint, matches: bool) -> None:
    assert tolerates(toleration, mark) is matches
    assert is_tolerated((Toleration("other", "Exists"), toleration), mark) is matches


def test_work_goes_only_where_every_label_of_its_selector_is() -> None:
    world = World("a1", "a2", "a3")
    label(world, "a2", disk="ssd", zone="x")
    label(world, "a3", disk="ssd")
    world.submit(job(replicas=3, node_selector=(("disk", "ssd"), ("zone", "x"))))
    assert {made.node for made in draft(world.state, world.now_ms).placements} == {"a2"}


def test_a_taint_with_a_number_keeps_out_those_that_want_more() -> None:
    world = World("a1", "a2")
    taint(world, "a1", Taint("sla", "900", NO))
    taint(world, "a2", Taint("sla", "990", NO))
    world.submit(job(replicas=2, tolerations=(Toleration("sla", "Gt", "950"),)))
    made = draft(world.state, world.now_ms).placements
    assert [placement.node for placement in made] == ["a2", "a2"]
    assert [row["filter"] for row in explained(world)["nodes"]] == ["taints", None]
    taint(world, "a2", Taint("sla", "940", NO))
    moved = tuple(replace(placement, node_generation=3) for placement in made)
    refused = world.apply(commands.Plan(moved, "n1", "test", world.now_ms)).refused
    assert [refusal.code for refusal in refused] == ["node-tainted", "node-tainted"]


def test_a_node_can_be_selected_by_its_own_name() -> None:
    world = World("a1", "a2")
    world.submit(job(replicas=2, node_selector=(("skerry/node", "a2"),)))
    assert {made.node for made in draft(world.state, world.now_ms).placements} == {"a2"}


def test_a_taint_keeps_work_off_unless_it_is_tolerated() -> None:
    world = World("a1", "a2")
    taint(world, "a1", DB)
    world.submit(job(replicas=2))
    world.submit(job("db", replicas=1, tolerations=(Toleration("dedicated", "Equal", "db", "NoSchedule"),),
                     node_selector=(("skerry/node", "a1"),)))  # fmt: skip
    made = {item.allocation: item.node for item in draft(world.state, world.now_ms).placements}
    assert made == {"default/web.0": "a2", "default/web.1": "a2", "default/db.0": "a1"}


def test_a_preferred_taint_is_avoided_but_not_at_any_price() -> None:
    world = World("a1", "a2")
    taint(world, "a1", Taint("old", "", PREFER))
    world.submit(job())
    world.schedule()
    assert world.shown("default/web.0")["node"] == "a2"
    world.cordon("a2")
    world.submit(job("api"))
    world.schedule()
    assert world.shown("default/api.0")["node"] == "a1"
    parts = explained(world, "api")["scores"][0]["parts"]
    assert parts["untainted"] == 1 << 15


def test_no_execute_stops_what_does_not_tolerate_it_and_places_it_elsewhere_after_its_exit() -> None:
    world = World("a1", "a2")
    world.submit(job(node_selector=()))
    world.submit(job("stays", tolerations=(Toleration("gone", "Exists"),)))
    world.schedule()
    for name in ("web", "stays"):
        world.runs(f"default/{name}.0")
    node = world.shown("default/web.0")["node"]
    for one in ("a1", "a2"):
        if one == node or world.shown("default/stays.0")["node"] == one:
            taint(world, one, Taint("gone", "", EVICT))
    assert (world.state_of("default/web.0"), world.state_of("default/stays.0")) == ("stopping", "running")
    assert world.schedule().placed == (), "capacity is free, and the attempt over, only when the node says so"
    taint(world, "a1", remove=(("gone", ""),)) if node == "a2" else taint(world, "a2", remove=(("gone", ""),))
    world.ends("default/web.0")
    world.schedule()
    moved = world.shown("default/web.0")
    assert (moved["attempt"], moved["node"] != node) == (2, True)


def test_what_a_node_is_marked_with_changes_its_generation_and_old_plans_are_refused() -> None:
    world = World("a1")
    world.submit(job())
    old = draft(world.state, world.now_ms)
    assert taint(world, "a1", DB).generation == 2
    assert taint(world, "a1", DB).outcome == "unchanged"
    assert world.plan(*old.placements).refused[0].code == "node-changed"
    refused = world.plan(world.at("default/web.0", "a1")).refused[0]
    assert (refused.code, "dedicated=db:NoSchedule" in refused.reason) == ("node-tainted", True)
    taint(world, "a1", remove=(("dedicated", "NoSchedule"),))
    world.submit(job(node_selector=(("disk", "ssd"),)))
    assert world.plan(world.at("default/web.0", "a1")).refused[0].code == "node-not-selected"


def test_an_agents_own_marks_come_and_go_with_it_and_an_operators_stay() -> None:
    world = World()

    def register(labels: dict[str, str], *taints: Taint) -> NodeResult:
        return world.apply(
            commands.RegisterNode(
                "a1", "i1", "b1", Capacity(1000, 1 << 30, 100), "full", "", "", world.now_ms, labels, taints
            )
        )

    register({"disk": "ssd", "zone": "x"}, DB)
    label(world, "a1", zone="y", rack="7")
    taint(world, "a1", Taint("slow", "", PREFER))
    assert shown(world, "a1")["labels"] == {"disk": "ssd", "zone": "y", "rack": "7", "skerry/node": "a1"}
    assert shown(world, "a1")["taints"] == ["dedicated=db:NoSchedule", "slow:PreferNoSchedule"]
    assert label(world, "a1", remove=("disk",)).code == "bad-node-mark"
    assert taint(world, "a1", remove=(("dedicated", ""),)).code == "bad-node-mark"
    assert register({"disk": "hdd"}).outcome == "updated"
    assert shown(world, "a1")["labels"] == {"disk": "hdd", "zone": "y", "rack": "7", "skerry/node": "a1"}
    assert shown(world, "a1")["taints"] == ["slow:PreferNoSchedule"]
    assert label(world, "a1", remove=("zone",)).outcome == "unlabelled"
    assert "zone" not in shown(world, "a1")["labels"]
    assert label(world, "a1", **{"skerry/node": "liar"}).code == "bad-node-mark"
    assert label(world, "nobody", a="b").code == "no-such-node"


def test_a_taint_with_which_an_agent_comes_back_evicts_too() -> None:
    world = World("a1")
    world.submit(job())
    world.schedule()
    world.apply(
        commands.RegisterNode(
            "a1", "i1", "b1", Capacity(4000, 4 << 30, 1000), "full", "", "10.0.0.1", 1, {}, (Taint("x", "", EVICT),)
        )
    )
    assert world.state_of("default/web.0") == "stopping"


def test_an_explanation_names_the_label_and_the_taint_that_are_in_the_way() -> None:
    world = World("a1", "a2", "a3")
    label(world, "a2", disk="hdd")
    taint(world, "a3", Taint("gone", "", EVICT), DB)
    world.submit(job(node_selector=(("disk", "ssd"),)))
    found = explained(world)
    rows = {row["node"]: row for row in found["nodes"]}
    assert rows["a2"] == {
        "node": "a2", "filter": "node-selector", "need": "labels disk=ssd", "have": "disk=hdd",
    }  # fmt: skip
    assert rows["a1"]["have"] == "none of these keys"
    assert found["nearest"]["change"].startswith(f"label {found['nearest']['node']} disk=ssd")
    label(world, "a3", disk="ssd")
    found = explained(world)
    rows = {row["node"]: row for row in found["nodes"]}
    assert rows["a3"]["filter"] == "taints"
    assert "dedicated=db:NoSchedule" in rows["a3"]["have"]
    assert "gone:NoExecute" in rows["a3"]["need"]
    assert "1 fail taints" in found["reason"]
    assert "2 fail node-selector" in found["reason"]


def test_a_higher_priority_is_placed_first_and_the_explanation_says_so() -> None:
    world = World("a1", cpu=300)
    world.submit(job("low", replicas=2))
    world.submit(job("high", replicas=2, priority=10))
    world.submit(job("lowest", priority=-5))
    assert [item.job for item in pending(world.state, world.now_ms)][:2] == ["default/high"] * 2
    reason = explained(world, "low")["reason"]
    assert "with priority 0, after 2 of higher priority" in reason
    assert explained(world, "lowest")["reason"].count("after 4 of higher priority") == 1
    assert "higher priority" not in explained(world, "high")["reason"]
    made = [item.allocation for item in draft(world.state, world.now_ms).placements]
    assert made == ["default/high.0", "default/high.1", "default/low.0"]
    assert draft(world.state, world.now_ms, limit=1).more


def test_a_blocked_job_of_high_priority_does_not_block_those_below() -> None:
    world = World("a1", cpu=1000)
    world.submit(job("huge", cpu_millicores=5000, priority=100))
    world.submit(job("small"))
    assert [item.allocation for item in draft(world.state, world.now_ms).placements] == ["default/small.0"]


def test_a_new_priority_alone_restarts_nothing() -> None:
    world = World("a1")
    world.submit(job())
    world.schedule()
    assert world.submit(job(priority=7)).outcome == "replaced"
    assert world.state_of("default/web.0") == "placed"
    world.submit(job(priority=7, node_selector=(("disk", "ssd"),)))
    assert world.state_of("default/web.0") == "stopping"


def test_taints_and_labels_are_read_as_they_are_written() -> None:
    for text in ("dedicated=db:NoSchedule", "gone:NoExecute", "example.org/x=1:PreferNoSchedule"):
        assert spelled(parse_taint(text)) == text
    assert parse_label("disk=ssd") == ("disk", "ssd")
    for bad in ("", "x", "x=y", "x:Never", "=v:NoSchedule", "x=a b:NoSchedule", "x/y/z:NoSchedule", "-x:NoSchedule"):
        with pytest.raises(UnitError):
            parse_taint(bad)
    for bad in ("disk", "=ssd", "disk=" + "v" * 64, "di sk=x", "disk=ssd\n"):
        with pytest.raises(UnitError):
            parse_label(bad)
