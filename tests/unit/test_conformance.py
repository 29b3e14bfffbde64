"""The placement rules give kube-scheduler's answers, and would be caught if they did not."""

from __future__ import annotations

import importlib
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from scheduler.engine import normal, resources
from scheduler.units import whole_number
from skerry.cli import root
from skerry.conformance.run import report
from tests.support.placement_cases import CASES

SHARED = Path(os.environ.get("SKERRY_SHARED") or Path(__file__).parents[2].parent / "shared") / "data/k8s_cases.json"


GEN_3 = {"key": "gen", "operator": "In", "values": ["3"]}


def all_of(length: int) -> Any:
    return np.ones(length, dtype=bool)


BREAKS: dict[str, Any] = {
    "affinity.named": lambda names, wanted: all_of(len(names)),
    "affinity.in_term": lambda term, names, labels: all_of(len(names)),
    "affinity.required": lambda terms, names, labels: all_of(len(names)),
    "affinity.preferred": lambda terms, names, labels: np.zeros(len(names), dtype=np.int64),
    "affinity.nodes_accepted": lambda requirement, labels, count: all_of(count),
    "marks.selected": lambda selector, labels, count: all_of(count),
    "marks.schedulable": lambda cordoned, tolerations: all_of(len(cordoned)),
    "marks.admitted": lambda tolerations, taints, count: all_of(count),
    "marks.reluctance": lambda tolerations, taints, count: np.zeros(count, dtype=np.int64),
    "marks.tolerates": lambda toleration, taint: toleration.key == taint.key,
    "ports.clash": lambda one, other: one == other,
    "ports.free": lambda wanted, held, count: all_of(count),
    "resources.requested": lambda containers, first=(), overhead=None: containers[0] if containers else {},
    "resources.with_assumed": dict,
    "resources.room": lambda capacity, used, need: all_of(len(capacity)),
    "resources.short_of": lambda capacity, used, need, ignored=(): {},
    "resources.free_share": lambda capacity, used, need, unit: capacity * 0 + unit,
    "resources.used_share": lambda capacity, used, need, unit: capacity * 0 + unit,
    "resources.least_allocated": lambda capacity, used, need, weights: used["pods"] * 0,
    "resources.most_allocated": lambda capacity, used, need, weights: used["pods"] * 0,
    "resources.requested_to_capacity": lambda capacity, used, need, weights, shape: used["pods"] * 0,
    "resources.broken_line": lambda percent, shape: percent,
    "resources.balanced": lambda capacity, used, need, weights: used["pods"] * 0,
    "resources.weight_faults": lambda weights: [],
    "images.locality": lambda images, had, count: np.zeros(count, dtype=np.int64),
    "spread.verdicts": lambda constraints, namespace, labels, groups, nodes: np.zeros(
        len(nodes.topology), dtype=np.uint8
    ),
    "spread.crowding": lambda constraints, namespace, crowd, nodes, candidates, demanding: (
        np.zeros(len(nodes.topology), dtype=np.int64),
        candidates,
    ),
    "spread.defaults": lambda selector: (),
    "spread._eligible": lambda constraint, nodes: all_of(len(nodes.topology)),
    "spread._everywhere": lambda places, count: all_of(count),
    "spread._fewest": lambda constraint, sums, places: 0,
    "neighbours.near": lambda new, here: all_of(len(here.topology)),
    "neighbours.apart": lambda new, here: all_of(len(here.topology)),
    "neighbours.unopposed": lambda new, here: all_of(len(here.topology)),
    "neighbours.liking": lambda new, here, weight: np.zeros(len(here.topology), dtype=np.int64),
    "neighbours.means": lambda term, owner, namespace, labels, known: True,
    "neighbours.fault": lambda rules: "",
    "normal.by_highest": lambda raw, unit=100, reverse=False: raw,
    "normal.by_range": lambda raw, unit=100: raw,
    "normal.by_absence": lambda raw, counted, unit=100: raw,
    "preemption.victims_on": lambda slot, there, running, priority, budgets, fits: None,
    "preemption.over_budget": lambda order, running, budgets: [],
    "preemption.importance": lambda workload: (workload.priority, 0),
    "preemption.best": lambda candidates, running: candidates[0] if candidates else None,
    "preemption.may_preempt": lambda policy, priority, elsewhere: True,
}


def broken_ones(found: dict[str, Any]) -> list[str]:
    return [f"{row['id']}: expected {row['expected']}, got {row['got']}" for row in found["cases"] if not row["ok"]]


TABLES = {
    "by hand": CASES,
    **({"kube-scheduler's": json.loads(SHARED.read_text())["cases"]} if SHARED.exists() else {}),
}
"""Those of kube-scheduler only where somebody put them beside the project."""


@pytest.mark.parametrize("table", TABLES)
def test_every_rule_answers_as_the_table_says(table: str) -> None:
    assert broken_ones(report(TABLES[table])) == []


@pytest.mark.parametrize("function", BREAKS)
def test_a_broken_rule_is_caught(function: str, monkeypatch: pytest.MonkeyPatch) -> None:
    module, name = function.split(".")
    monkeypatch.setattr(importlib.import_module(f"scheduler.engine.{module}"), name, BREAKS[function])
    assert report(CASES)["failed"]


def run(tmp_path: Path, text: str, *options: str) -> int:
    file = tmp_path / "cases.json"
    file.write_text(text)
    return root.run(["conformance", str(file), *options])


def test_the_command_reports_every_case(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    wrong = {**CASES[0], "id": "wrong", "expect": [{"node": "a", "feasible": True}, {"node": "b", "feasible": True}]}
    assert run(tmp_path, json.dumps({"cases": [CASES[0], wrong]}), "-o", "json") == 1
    found = json.loads(capsys.readouterr().out)
    assert (found["v"], found["passed"], found["failed"]) == (1, 1, 1)
    assert [(row["id"], row["ok"]) for row in found["cases"]] == [(CASES[0]["id"], True), ("wrong", False)]
    assert found["cases"][1]["got"] == [{"node": "a", "feasible": False}, {"node": "b", "feasible": True}]
    assert run(tmp_path, json.dumps({"cases": [CASES[0]]})) == 0


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        '{"cases": 3}',
        '{"cases": [{"plugin": "nodename"}]}',
        '{"cases": ["\\ud800',
        '{"cases": ' + "[" * 99_999,
    ],
)
def test_what_is_no_file_of_cases_is_a_wrong_use(text: str, tmp_path: Path) -> None:
    assert run(tmp_path, text, "-o", "json") == 2


def test_a_file_that_is_not_there_is_a_wrong_use() -> None:
    assert root.run(["conformance", "/nowhere/cases.json"]) == 2


def test_a_case_that_is_not_understood_has_failed() -> None:
    deep: Any = 1
    for _ in range(3000):
        deep = {"a": deep}
    changes: list[dict[str, Any]] = [
        {"plugin": "astrology"},
        {"nodes": 3},
        {"expect": [{"node": "zz"}]},
        {"pod": deep},
        {"nodes": [{"name": "a", "allocatable": {"cpu": 1 << 70}}]},
    ]
    found = report([{**CASES[0], **change} for change in changes])
    assert found["failed"] == len(changes)
    assert all("not understood" in row["got"] for row in found["cases"])


def test_what_is_null_counts_as_left_out_and_required_terms_may_be_a_plain_list() -> None:
    pod = {
        "labels": None,
        "affinity": {"node": {"required": [None, {"matchExpressions": [GEN_3], "matchFields": None}]}},
    }
    nodes = [{"name": "a", "labels": {"gen": "3"}, "taints": None}, {"name": "b"}]
    expect = [{"node": "a", "feasible": True, "code": None}, {"node": "b", "feasible": False}]
    row = {"id": "x", "plugin": "nodeaffinity", "stage": "filter", "pod": pod, "nodes": nodes, "expect": expect}
    assert broken_ones(report([row])) == []


def test_the_deviation_of_shares_is_as_exact_as_a_fraction() -> None:
    for used in range(101):
        capacity = {"cpu": np.array([100, 1 << 44]), "memory": np.array([100, 1 << 44])}
        booked = {"cpu": np.array([used, used * (1 << 44) // 100])}
        score = resources.balanced(capacity, booked, {}, {"cpu": 1, "memory": 1})
        assert score[0] == (200 - used) // 2


def test_whole_numbers_are_plain_decimal_ones() -> None:
    assert [whole_number(text) for text in ("7", "-7", "+7", "7.0", "1_0", " 7", "", "x")] == [
        7, -7, 7, None, None, None, None, None,
    ]  # fmt: skip


def test_scores_of_no_node_are_none() -> None:
    nothing = np.zeros(0, dtype=np.int64)
    assert not len(normal.by_highest(nothing))
    assert not len(normal.by_range(nothing))
    assert not len(normal.by_absence(nothing, nothing.astype(bool)))
