"""Affinity, spreading and neighbours, from the job file to the decision, the check at apply and the explanation."""

from __future__ import annotations

import collections
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from scheduler import commands
from scheduler.engine import draft
from scheduler.explain import could_ever_fit, explain
from scheduler.jobfile import load_job
from scheduler.model import ResolvedJob, Rules
from scheduler.state import State, snapshot
from scheduler.state.paged import Page
from scheduler.state.snapshot import FORMAT, thaw
from scheduler.state.submission import _digest
from tests.support.scheduler_world import World, job

REQUIRED, PREFERRED = (f"{word}DuringSchedulingIgnoredDuringExecution" for word in ("required", "preferred"))


def spec(name: str = "web", replicas: int = 1, **fields: Any) -> ResolvedJob:
    text = msgspec.json.encode({"name": name, "command": ["/bin/true"], "replicas": replicas, **fields})
    return load_job(text, format="json")


def is_in(key: str, *values: str) -> dict[str, Any]:
    return {"matchExpressions": [{"key": key, "operator": "In", "values": list(values)}]}


def nodes(*terms: dict[str, Any], prefer: dict[str, Any] | None = None) -> dict[str, Any]:
    found: dict[str, Any] = {REQUIRED: {"nodeSelectorTerms": list(terms)}} if terms else {}
    return {"nodeAffinity": found | ({PREFERRED: [{"weight": 50, "preference": prefer}]} if prefer else {})}


def neighbours(kind: str, app: str, key: str = "zone") -> dict[str, Any]:
    return {kind: {REQUIRED: [{"topologyKey": key, "labelSelector": {"matchLabels": {"app": app}}}]}}


def rather(kind: str, app: str, key: str = "zone") -> dict[str, Any]:
    term = {"topologyKey": key, "labelSelector": {"matchLabels": {"app": app}}}
    return {kind: {PREFERRED: [{"weight": 10, "podAffinityTerm": term}]}}


def evenly(key: str = "zone", **fields: Any) -> dict[str, Any]:
    return {"topologyKey": key, "labelSelector": {"matchLabels": {"skerry/job": "web"}}, **fields}


def zones(**by_node: str) -> World:
    world = World(*by_node)
    for node, zone in by_node.items():
        world.apply(commands.SetNodeLabels(node, {"zone": zone}, (), world.now_ms))
    return world


FOUR = {"a1": "a", "a2": "a", "b1": "b", "c1": "c"}


def homes(world: World, name: str = "web") -> list[str]:
    shown = world.state.job(f"default/{name}")
    assert shown is not None
    return [row["node"] for row in shown["allocations"] if row["node"]]


def per_zone(world: World, name: str = "web") -> dict[str, int]:
    return dict(collections.Counter(FOUR[node] for node in homes(world, name)))


def explained(world: World, name: str = "web") -> dict[str, Any]:
    found = explain(world.state, f"default/{name}", world.now_ms)
    assert found is not None
    return found


def filters(world: World, name: str = "web") -> dict[str, str | None]:
    return {row["node"]: row["filter"] for row in explained(world, name)["nodes"]}


def refusal(world: World, allocation: str, node: str) -> str:
    refused = world.plan(world.at(allocation, node)).refused
    return refused[0].code if refused else ""


def test_required_node_affinity_decides_and_is_checked_again() -> None:
    world = zones(**FOUR)
    world.submit(spec(replicas=6, affinity=nodes(is_in("zone", "b"), is_in("skerry/node", "a2"))))
    assert refusal(world, "default/web.0", "a1") == "node-affinity"
    assert filters(world) == {"a1": "node-affinity", "a2": None, "b1": None, "c1": "node-affinity"}
    world.schedule()
    assert set(homes(world)) == {"a2", "b1"}


def test_a_job_without_a_node_of_its_affinity_waits_and_says_which_label_would_help() -> None:
    world = zones(a1="a")
    world.submit(spec(affinity=nodes(is_in("zone", "x"))))
    world.schedule()
    found = explained(world)
    assert not homes(world)
    assert found["counts"]["node-affinity"] == 1
    assert found["nodes"][0] == {"node": "a1", "filter": "node-affinity", "need": "one of: zone In x", "have": "zone=a"}
    assert found["nearest"] == {"node": "a1", "change": "label a1 so that zone In x"}


def test_a_preferred_node_wins_over_an_emptier_one_but_not_over_none() -> None:
    world = zones(**FOUR)
    world.submit(job("filler", node_selector=(("skerry/node", "c1"),), cpu_millicores=2000))
    world.schedule()
    world.submit(spec(replicas=2, affinity=nodes(prefer=is_in("zone", "c"))))
    world.schedule()
    assert set(homes(world)) == {"c1"}
    parts = explained(world)["scores"]
    assert {row["node"]: row["parts"]["node-preference"] for row in parts} == {"a1": 0, "a2": 0, "b1": 0, "c1": 65536}
    world.cordon("c1")
    world.submit(spec(replicas=3, affinity=nodes(prefer=is_in("zone", "c"))))
    world.schedule()
    assert len(homes(world)) == 3


def test_a_hard_spread_keeps_the_skew_while_it_fills() -> None:
    world = zones(**FOUR)
    world.submit(spec(replicas=7, topologySpreadConstraints=[evenly(maxSkew=1)]))
    for _ in range(8):
        world.schedule(limit=1)
        counts = [per_zone(world).get(zone, 0) for zone in "abc"]
        assert max(counts) - min(counts) <= 1
    assert sum(per_zone(world).values()) == 7


def test_a_plan_that_would_break_the_spread_is_refused_at_apply() -> None:
    world = zones(**FOUR)
    world.submit(spec(replicas=3, topologySpreadConstraints=[evenly(maxSkew=1)]))
    both = (world.at("default/web.0", "a1"), world.at("default/web.1", "a2"))
    done = world.plan(*both)
    assert [row.code for row in done.refused] == ["not-spread"]
    assert filters(world) == {"a1": "topology-spread", "a2": "topology-spread", "b1": None, "c1": None}


def test_spreading_waits_for_the_domains_it_was_promised() -> None:
    world = zones(a1="a", b1="b")
    world.submit(spec(replicas=4, topologySpreadConstraints=[evenly(minDomains=3)]))
    world.schedule()
    assert sorted(homes(world)) == ["a1", "b1"]
    assert "topology-spread" in explained(world)["reason"]
    world.register("c1")
    world.apply(commands.SetNodeLabels("c1", {"zone": "c"}, (), world.now_ms))
    world.schedule()
    assert sorted(homes(world)) == ["a1", "a1", "b1", "c1"] or len(homes(world)) == 4


def test_a_soft_spread_gives_way_where_a_hard_one_would_wait() -> None:
    world = zones(a1="a", a2="a", a3="a", b1="b")
    world.submit(spec(replicas=8, topologySpreadConstraints=[evenly(whenUnsatisfiable="ScheduleAnyway")]))
    world.schedule()
    assert collections.Counter(node[0] for node in homes(world)) == {"a": 4, "b": 4}
    world.cordon("b1")
    world.submit(spec(replicas=9, topologySpreadConstraints=[evenly(whenUnsatisfiable="ScheduleAnyway")]))
    world.schedule()
    assert len(homes(world)) == 9


def test_apart_from_its_own_kind_means_one_a_domain() -> None:
    world = zones(**FOUR)
    world.submit(spec(replicas=4, labels={"app": "web"}, affinity=neighbours("podAntiAffinity", "web")))
    assert world.schedule().refused == ()
    assert per_zone(world) == {"a": 1, "b": 1, "c": 1}
    assert set(filters(world).values()) == {"anti-affinity"}
    assert refusal(world, "default/web.3", "a2") == "not-apart"


def test_apart_holds_in_both_directions_within_one_draft_and_at_apply() -> None:
    world = zones(a1="a", b1="b")
    world.submit(spec("loner", affinity=neighbours("podAntiAffinity", "web")))
    world.submit(spec("web", replicas=3, labels={"app": "web"}))
    assert world.schedule().refused == ()
    (home,) = homes(world, "loner")
    assert home not in homes(world)
    assert len(homes(world)) == 3
    world.submit(spec("late", labels={"app": "web"}))
    assert refusal(world, "default/late.0", home) == "not-apart"
    assert filters(world, "late")[home] == "anti-affinity"


def test_near_another_job_waits_for_it_and_then_follows() -> None:
    world = zones(**FOUR)
    world.submit(spec("side", replicas=2, affinity=neighbours("podAffinity", "web")))
    world.schedule()
    assert homes(world, "side") == []
    assert "affinity" in explained(world, "side")["reason"]
    world.submit(spec(labels={"app": "web"}, nodeSelector={"zone": "a"}))
    world.schedule()
    world.schedule()
    assert per_zone(world, "side") == {"a": 2}
    world.submit(spec("more", affinity=neighbours("podAffinity", "web")))
    assert refusal(world, "default/more.0", "b1") == "not-near"


def test_the_first_of_its_kind_may_be_near_nobody() -> None:
    world = zones(**FOUR)
    world.submit(spec(replicas=4, labels={"app": "web"}, affinity=neighbours("podAffinity", "web")))
    assert world.schedule().refused == ()
    assert len(homes(world)) == 4
    assert len(per_zone(world)) == 1


@pytest.mark.parametrize(("kind", "alike"), [("podAffinity", True), ("podAntiAffinity", False)])
def test_preferred_neighbours_draw_and_repel(kind: str, alike: bool) -> None:
    world = zones(**FOUR)
    world.submit(spec(labels={"app": "web"}, nodeSelector={"skerry/node": "b1"}))
    world.schedule()
    world.submit(spec("side", replicas=3, affinity=rather(kind, "web")))
    world.schedule()
    assert set(per_zone(world, "side")) == ({"b"} if alike else {"a", "c"})


def test_another_namespace_is_not_meant_unless_it_is_named() -> None:
    world = zones(a1="a", b1="b")
    world.submit(spec(labels={"app": "web"}, namespace="prod", nodeSelector={"zone": "a"}))
    world.schedule()
    apart = neighbours("podAntiAffinity", "web")
    world.submit(spec("one", affinity=apart))
    assert filters(world, "one")["a1"] is None
    apart["podAntiAffinity"][REQUIRED][0]["namespaces"] = ["prod"]
    world.submit(spec("two", affinity=apart))
    assert filters(world, "two")["a1"] == "anti-affinity"
    apart["podAntiAffinity"][REQUIRED][0] |= {
        "namespaces": [],
        "namespaceSelector": is_in("kubernetes.io/metadata.name", "prod"),
    }
    world.submit(spec("three", affinity=apart))
    assert filters(world, "three")["a1"] == "anti-affinity"


def test_a_placed_job_is_explained_without_itself() -> None:
    world = zones(a1="a", b1="b")
    world.submit(spec(labels={"app": "web"}, affinity=neighbours("podAntiAffinity", "web")))
    world.schedule()
    assert set(filters(world).values()) == {None}


def test_rules_of_others_do_not_make_a_job_impossible() -> None:
    world = zones(a1="a")
    everything = {"topologyKey": "zone", "labelSelector": {}, "namespaceSelector": {}}
    world.submit(spec("hermit", affinity={"podAntiAffinity": {REQUIRED: [everything]}}))
    world.schedule()
    assert could_ever_fit(world.state, job("other")) is None


def test_what_is_in_flight_counts_for_the_rules() -> None:
    world = zones(**FOUR)
    world.submit(spec(replicas=3, labels={"app": "web"}, affinity=neighbours("podAntiAffinity", "web")))
    first = draft(world.state, world.now_ms, limit=1).placements
    rest = draft(world.state, world.now_ms, in_flight=first).placements
    assert len({FOUR[made.node] for made in (*first, *rest)}) == 3


def test_a_job_with_rules_needs_the_new_version_and_shows_them() -> None:
    plain, ruled = spec(), spec(labels={"app": "web"}, topologySpreadConstraints=[evenly()])
    assert plain.rules == Rules()
    assert [commands.version_of(commands.SubmitJob(each, "r", -1, 0)) for each in (plain, ruled)] == [1, 2]
    world = zones(**FOUR)
    world.submit(ruled)
    shown = world.state.job("default/web")
    assert shown is not None
    assert shown["labels"] == {"app": "web"}
    assert shown["rules"]["topologySpreadConstraints"][0]["topologyKey"] == "zone"


def frozen(state: State) -> list[bytes]:
    return list(state.freeze().chunks())


def test_rules_outlive_a_snapshot() -> None:
    world = zones(**FOUR)
    world.submit(spec(replicas=4, labels={"app": "web"}, affinity=neighbours("podAntiAffinity", "web")))
    world.schedule()
    chunks = frozen(world.state)
    books = thaw(world.state.index, 1, chunks)
    assert list(books.jobs.ruled) == list(world.state.books.jobs.ruled) != []
    record = books.jobs.get("default/web")
    assert record is not None
    assert record.spec == spec(replicas=4, labels={"app": "web"}, affinity=neighbours("podAntiAffinity", "web"))


def as_before_there_were_rules(state: State) -> list[bytes]:
    """The stream that the program of format 1 wrote of this state."""
    sections = []
    for name, section in state.books.sections().items():
        pages = list(section.freeze())
        if name == "jobs/rows":
            rows = msgspec.msgpack.decode(msgspec.msgpack.encode(list(state.books.jobs.rows.items())))
            old = msgspec.msgpack.encode([[number, [row[0][:-1], *row[1:]]] for number, row in rows])
            pages = [Page(lambda old=old: old)]
        sections.append((name, pages))
    head = snapshot.Head(1, state.index, 1, tuple((name, len(pages)) for name, pages in sections))
    tail = snapshot.Tail(snapshot._digest(state.index, 1, tuple(sections)))
    packed = [[page.packed()] for _, pages in sections for page in pages]
    frames = [msgspec.msgpack.encode(frame) for frame in (head, *packed, tail)]
    return [len(frame).to_bytes(4, "little") + frame for frame in frames]


def test_a_snapshot_of_before_there_were_rules_is_read_and_compares_equal() -> None:
    world = zones(**FOUR)
    world.submit(job(replicas=2))
    world.schedule()
    books = thaw(world.state.index, 1, as_before_there_were_rules(world.state))
    assert books.jobs.by_id["default/web"].spec == job(replicas=2)
    assert snapshot.FrozenState(world.state.index, 1, books).digest() == world.state.freeze().digest()


def test_a_job_that_loses_its_rules_is_no_longer_looked_at() -> None:
    world = zones(**FOUR)
    ruled = spec(topologySpreadConstraints=[evenly()])
    world.submit(ruled)
    assert world.state.books.jobs.ruled
    world.submit(replace(ruled, rules=Rules()))
    assert not world.state.books.jobs.ruled


def test_a_repeated_submission_of_before_there_were_rules_is_recognised() -> None:
    """Its digest was made from the fields of then."""
    world = zones(a1="a")
    first = world.submit(job(), request="once")
    fields = list(msgspec.structs.astuple(job()))[:-1]
    record = world.state.books.jobs.get("default/web")
    assert record is not None
    assert record.requests["once"].digest == _digest("submit", [fields, -1])
    assert world.submit(job(), request="once").index == first.index
    assert FORMAT == 2


def test_one_plan_is_checked_against_what_it_has_placed_itself() -> None:
    """Also where the check had counted before: by then there was nothing of either job."""
    world = zones(**FOUR)
    web = {"labels": {"app": "web"}, "affinity": neighbours("podAntiAffinity", "web")}
    world.submit(spec("other", replicas=2, labels={"app": "other"}, affinity=neighbours("podAntiAffinity", "web")))
    world.submit(spec(replicas=3, **web))
    plan = [
        world.at("default/web.0", "b1"),
        world.at("default/other.0", "c1"),
        world.at("default/web.1", "c1"),
        world.at("default/other.1", "b1"),
        world.at("default/web.2", "a1"),
    ]
    done = world.plan(*plan)
    assert [(row.allocation, row.code) for row in done.refused] == [
        ("default/web.1", "not-apart"),
        ("default/other.1", "not-apart"),
    ]
    assert [placed[0] for placed in done.placed] == ["default/web.0", "default/other.0", "default/web.2"]


def test_what_a_plan_has_placed_is_counted_once_by_a_rule_that_is_asked_later() -> None:
    world = zones(**FOUR)
    world.submit(spec("first", affinity=neighbours("podAntiAffinity", "web")))
    world.submit(spec("seen", labels={"app": "seen"}))
    selector = {"matchLabels": {"app": "seen"}}
    world.submit(spec("later", topologySpreadConstraints=[evenly(labelSelector=selector)]))
    plan = [world.at("default/first.0", "b1"), world.at("default/seen.0", "a1"), world.at("default/later.0", "a2")]
    assert world.plan(*plan).refused == ()
