"""Whole simulated clusters with a deliberate bug: its invariant finds it, and the same seed is clean without it.

A few of the zoo, and bugs that are not in it; all of it, five times over: ``skerry sim breaks --docs docs/breaks.md``.
"""

from __future__ import annotations

import importlib

import pytest

from chaos.breaks import BREAKS
from chaos.sim.swarm.campaign import quietly
from chaos.sim.swarm.catching import Catch, Hunt, hunt, markdown
from chaos.sim.swarm.knobs import KNOBS, drawn, turned
from chaos.sim.swarm.plan import draw_plan
from chaos.sim.swarm.run import runner
from raft import quorum

QUICK = ("no-pre-vote", "commit-earlier-term-by-count", "ack-before-sync", "apply-twice", "truncate-committed")
SEEDS_MAX = 25


@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", QUICK)
def test_a_deliberate_bug_is_named_by_its_invariant_and_the_same_seed_is_clean_without_it(name: str) -> None:
    found = hunt(BREAKS[name], 0, runner, SEEDS_MAX)
    assert found.seed is not None, f"{SEEDS_MAX} seeds did not show {BREAKS[name].checker}"
    assert found.clean


@pytest.mark.timeout(300)
def test_a_majority_of_less_than_half_is_found_although_no_checker_was_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quorum, "majority", lambda voters: max(1, voters // 2))
    assert {"elected-by-quorum", "commit-by-quorum", "election-safety"} & _violated(SEEDS_MAX)


def _violated(seeds: int) -> set[str]:
    """What is violated in the first of so many seeds in which anything is."""
    with runner(()) as run:
        for seed in range(seeds):
            plan = draw_plan(seed, "direct")
            failures = quietly(lambda plan=plan: run(plan, False)).failures
            if failures:
                return {failure.checker for failure in failures}
    return set()


def test_the_table_of_the_documentation_says_when_a_break_was_not_always_caught() -> None:
    caught = Catch("a", "x", "why", (Hunt(0, 4, 5, clean=True), Hunt(1, 1, 1, clean=True), Hunt(2, 9, 8, clean=True)))
    missed = Catch("b", "y", "why", (Hunt(0, None, 500), Hunt(1, 1, 1, clean=True)))
    dirty = Catch("c", "z", "why", (Hunt(0, 4, 5, clean=False),))
    table = markdown([caught, missed, dirty]).splitlines()
    assert table[-1] == "1 of 3 were caught in every one of 3 campaigns; the median counts."
    assert table[2:5] == [
        "| `a` | why | `x` | 5 |",
        "| `b` | why | `y` | not always caught |",
        "| `c` | why | `z` | not always caught |",
    ]


def test_limits_are_drawn_small_in_some_seeds_and_put_back_after_each() -> None:
    before = [getattr(importlib.import_module(knob.module), knob.name) for knob in KNOBS]
    seen = {knob for seed in range(40) for knob in drawn(seed)}
    assert seen == set(KNOBS)
    seed = next(seed for seed in range(40) if KNOBS[0] in drawn(seed))
    with turned(seed):
        assert getattr(importlib.import_module(KNOBS[0].module), KNOBS[0].name) == drawn(seed)[KNOBS[0]]
    assert [getattr(importlib.import_module(knob.module), knob.name) for knob in KNOBS] == before
