"""Every scenario that breaks live processes runs in the simulator too, with the same verdict."""

from __future__ import annotations

import pytest

from chaos.scenario.library import load_scenario, scenarios
from chaos.scenario.model import parse_scenario
from chaos.sim.scenarios import run_scenario
from chaos.trace.check import check_directory
from chaos.trace.explain import explain_directory

NAMES = [scenario.name for scenario in scenarios()]

BROKEN_PROMISE = """
name = "no-patience"
duration = "6s"
[load]
rate = "20/s"
jobs = 3
[[at]]
t = "1s"
fault = "isolate"
target = "leader"
id = "i"
for = "4s"
[expect]
always = ["election-safety"]
budget = { unavailable_ms = 1 }
"""


@pytest.mark.parametrize("name", NAMES)
def test_a_scenario_passes_in_virtual_time(name, tmp_path):
    result = run_scenario(load_scenario(name), out=tmp_path)
    assert result.reasons == ()
    assert result.verdict == "pass"
    assert check_directory(tmp_path).ok
    assert explain_directory(tmp_path)


def test_a_scenario_over_its_budget_fails_and_says_by_how_much(tmp_path):
    result = run_scenario(parse_scenario(BROKEN_PROMISE, "x.toml"), out=tmp_path)
    assert result.verdict == "fail"
    assert any(reason.startswith("unavailable_ms is") for reason in result.reasons)


def test_the_same_seed_is_the_same_verdict_and_another_transport_passes_too(tmp_path):
    scenario = load_scenario("minority-leader")
    first = run_scenario(scenario, seed=5, out=tmp_path / "a")
    again = run_scenario(scenario, seed=5, out=tmp_path / "b")
    assert (first.metrics, first.sometimes) == (again.metrics, again.sometimes)
    files = [{path.name: path.read_bytes() for path in (tmp_path / each).iterdir()} for each in "ab"]
    assert files[0] == files[1]
    assert run_scenario(scenario, out=tmp_path / "c", transport="http").verdict == "pass"
