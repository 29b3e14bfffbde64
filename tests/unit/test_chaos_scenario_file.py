"""Scenario files: the built-in ones are right, wrong ones are refused with where and why; roles resolve."""

from __future__ import annotations

from pathlib import Path
from random import Random

import pytest

from chaos.errors import ScenarioInvalid, SelectorUnresolved
from chaos.links import Matrix
from chaos.scenario.library import load_scenario, scenarios
from chaos.scenario.model import leases, parse_scenario
from chaos.scenario.selectors import Roles, resolve, resolve_groups

GOOD = """
name = "mine"
duration = "10s"
[cluster]
replicas = 5
[load]
rate = "2.5/s"
[[at]]
t = "1s"
fault = "partition"
groups = ["minority", "rest"]
id = "p"
[[at]]
t = "1500ms"
fault = "kill"
target = "follower"
for = "2s"
[[at]]
t = "4s"
heal = "*"
[expect]
always = ["election-safety"]
eventually = { leader = "2s" }
budget = { acked_lost = 0 }
"""

ROLES = Roles("n2", ("n1", "n2", "n3", "n4", "n5"), ("a1", "a2"))


def test_the_built_in_scenarios_are_valid_and_found_by_name() -> None:
    assert [scenario.name for scenario in scenarios()] == [
        *("bridge", "flapping", "isolated-agent", "isolated-agent-killed", "isolated-agent-paused"),
        *("isolated-replica", "leader-killed", "minority-leader", "one-way-in", "one-way-out"),
    ]
    assert all(scenario.lesson for scenario in scenarios())
    assert load_scenario("minority-leader").expect.budget["acked_lost"] == 0
    with pytest.raises(ScenarioInvalid, match="there is no scenario"):
        load_scenario("majority-follower")


def test_a_scenario_is_read_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text(GOOD)
    assert load_scenario(str(file)).load.per_second == 2.5
    with pytest.raises(ScenarioInvalid, match="cannot read"):
        load_scenario(str(tmp_path / "none.toml"))


def test_every_fault_is_a_lease_with_an_end() -> None:
    found = leases(parse_scenario(GOOD, "mine.toml"))
    assert [(lease.id, lease.start_s, lease.end_s) for lease in found] == [("p", 1.0, 4.0), ("f2", 1.5, 3.5)]


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('name = "mine"', 'name = "Mine!"', "name"),
        ('name = "mine"', 'name = "mine"\ncolour = 1', "colour"),
        ('name = "mine"', "name = ", "not TOML"),
        ('duration = "10s"', 'duration = "10"', "duration"),
        ('duration = "10s"', 'duration = "3s"', "after the scenario's end"),
        ('rate = "2.5/s"', 'rate = "fast"', "load.rate"),
        ('rate = "2.5/s"', 'rate = "0/s"', "load.rate"),
        ("replicas = 5", "replicas = 9", "replicas"),
        ('t = "1s"', 't = "soon"', r"at\[1\].t"),
        ('fault = "partition"', 'fault = "explode"', "explode"),
        ('groups = ["minority", "rest"]', 'groups = ["minority"]', "two groups"),
        ('groups = ["minority", "rest"]', 'groups = ["everyone", "rest"]', "'everyone' selects nothing"),
        ('groups = ["minority", "rest"]', 'target = "leader"', "needs groups"),
        ('target = "follower"', 'target = "follower"\nlatency = "1s"', "has no latency"),
        ('for = "2s"', 'for = "20s"', "before the scenario ends"),
        ('for = "2s"', 'id = "p"', "used twice"),
        ('heal = "*"', 'heal = "q"', "no earlier fault"),
        ('heal = "*"', 'heal = "f2"', "'p' never ends"),
        ('heal = "*"', 'heal = "*"\nfault = "kill"', "either fault or heal"),
        ('always = ["election-safety"]', 'always = ["luck"]', "luck"),
        ('eventually = { leader = "2s" }', 'eventually = { leader = "two" }', "duration"),
        ("acked_lost = 0", "patience = 0", "patience"),
    ],
)
def test_a_wrong_scenario_is_refused_and_the_message_says_why(old: str, new: str, words: str) -> None:
    assert old in GOOD
    with pytest.raises(ScenarioInvalid, match=words) as refused:
        parse_scenario(GOOD.replace(old, new, 1), "mine.toml")
    assert "mine.toml" in str(refused.value)
    assert refused.value.code == "scenario-invalid"


def test_a_scenario_file_has_a_size_limit() -> None:
    with pytest.raises(ScenarioInvalid, match="larger"):
        parse_scenario("# " + "x" * (1 << 20), "big.toml")


@pytest.mark.parametrize(
    ("selector", "nodes"),
    [
        ("leader", ("n2",)),
        ("followers", ("n1", "n3", "n4", "n5")),
        ("replicas", ("n1", "n2", "n3", "n4", "n5")),
        ("minority", ("n2", "n1")),
        ("majority", ("n3", "n4", "n5")),
        ("replica:n4", ("n4",)),
        ("agent:*", ("a1", "a2")),
        ("agent:2", ("a2",)),
        ("leader+agent:a1", ("n2", "a1")),
    ],
)
def test_selectors_mean_what_they_say(selector: str, nodes: tuple[str, ...]) -> None:
    assert resolve(selector, ROLES, Random(1)) == nodes


def test_the_minority_of_three_is_the_leader_alone_and_of_one_the_leader() -> None:
    assert resolve("minority", Roles("n1", ("n1", "n2", "n3"), ()), Random(1)) == ("n1",)
    assert resolve("minority", Roles("n1", ("n1",), ()), Random(1)) == ("n1",)


def test_the_seed_chooses_followers() -> None:
    chosen = {seed: resolve("leader+1", ROLES, Random(seed)) for seed in range(20)}
    assert all(nodes[0] == "n2" and len(nodes) == 2 for nodes in chosen.values())
    assert len(set(chosen.values())) > 1
    assert chosen[3] == resolve("leader+1", ROLES, Random(3))


def test_rest_is_what_no_other_group_names() -> None:
    assert resolve_groups(["rest+agent:*", "leader"], ROLES, Random(1)) == [
        ("n1", "n3", "n4", "n5", "a1", "a2"),
        ("n2",),
    ]


def test_a_role_that_nobody_holds_is_refused() -> None:
    nobody = Roles(None, ("n1", "n2", "n3"), ())
    for selector in ("leader", "followers", "minority", "replica:n9", "agent:1", "agent:*"):
        with pytest.raises(SelectorUnresolved):
            resolve(selector, nobody, Random(1))
    with pytest.raises(SelectorUnresolved, match="two groups"):
        resolve_groups(["leader", "replica:n2"], ROLES, Random(1))


def test_the_matrix_knows_directed_links_and_links_that_only_one_side_dials() -> None:
    matrix = Matrix([("n1", "n2"), ("n2", "n1"), ("n1", "n3"), ("n3", "n1"), ("n2", "n3"), ("n3", "n2"), ("a1", "n1")])
    assert matrix.directed(["n1"], ["n2"]) == [("n1", "n2")]
    assert matrix.directed(["n1"], ["a1"]) == [("a1", "n1")]
    assert matrix.between([["n1"], ["n2", "n3", "a1"]]) == [
        ("a1", "n1"),
        ("n1", "n2"),
        ("n1", "n3"),
        ("n2", "n1"),
        ("n3", "n1"),
    ]
