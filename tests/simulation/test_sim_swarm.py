"""Whole clusters from seeds: none of the checkers objects, and a seed is one run, byte for byte.

A failure prints one line that repeats it.  Seeds that once failed are kept in `seeds/`.
"""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from chaos.sim.swarm.campaign import Campaign
from chaos.sim.swarm.plan import draw_plan, plan_from_builtins
from chaos.sim.swarm.repro import Wanted
from chaos.sim.swarm.run import run_plan, runner
from chaos.trace.check import check_directory

SEEDS = int(os.environ.get("SKERRY_SIM_SEEDS", "24"))
FIRST = 5_000
ROOT = Path(__file__).parents[2]
KEPT = sorted((Path(__file__).parent / "seeds").glob("*.json"))
EVENTS_MIN = 10_000
BUSY = 33


def test_no_checker_objects_to_any_of_these_seeds():
    with runner() as run:
        report = Campaign(run, Wanted(), say=print).carry_out(range(FIRST, FIRST + SEEDS))
    assert [failed.repro for failed in report.failures] == [], report.failures
    assert report.medians["virtual_s"] >= 20
    assert report.ranges["agents"][0] >= 4
    assert report.ranges["jobs"][0] >= 50
    assert report.ranges["faults"][0] >= 3
    assert report.ranges["replicas"][0] >= 3
    assert report.sometimes["leader-changed"] > 0


@pytest.mark.parametrize("kept", KEPT, ids=lambda path: path.stem)
def test_what_failed_once_holds_now(kept):
    plan = plan_from_builtins(json.loads(kept.read_text(encoding="utf-8")))
    with runner():
        assert run_plan(plan).failures == ()


SCRIPT = """
import json, sys
from chaos.sim.swarm.run import runner
from chaos.sim.swarm import configs
from tests.support.busy_plan import busy_plan
configs.HEARTBEAT_SAMPLE = 1  # every heartbeat: a long trace
with runner() as run:
    result = run(busy_plan(int(sys.argv[1]), sys.argv[2]), True)
print(json.dumps([result.digest, result.events, result.failures == ()]))
"""


def elsewhere(seed: int, transport: str, hash_seed: str) -> tuple[str, int, bool]:
    """(digest, events, clean) of a seed in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(seed), transport],
        env={**os.environ, "PYTHONHASHSEED": hash_seed}, cwd=ROOT, stdout=subprocess.PIPE, check=True, timeout=120,
    )  # fmt: skip
    digest, events, clean = json.loads(done.stdout)
    return digest, events, clean


@pytest.mark.parametrize("transport", ["direct", "http"])
def test_one_seed_is_one_trace_in_every_process_and_another_seed_is_another(transport):
    first, events, clean = elsewhere(BUSY, transport, "1")
    assert clean
    assert events >= EVENTS_MIN, "enough happened for a difference to show"
    assert elsewhere(BUSY, transport, "2")[0] == first
    assert elsewhere(BUSY + 1, transport, "1")[0] != first


def test_a_seeds_trace_can_be_written_and_checked_by_itself(tmp_path):
    with runner(out=tmp_path) as run:
        result = run(draw_plan(BUSY, "direct"), True)
    checked = check_directory(tmp_path)
    assert result.failures == ()
    assert checked.ok
    assert checked.weak == ()
    assert len(checked.violated) == 0
    assert checked.events >= result.events


def test_a_campaign_does_not_grow_with_its_seeds(monkeypatch):
    monkeypatch.setattr("chaos.sim.swarm.campaign.COLLECT_EVERY", 1)
    objects = []
    with runner() as run:
        campaign = Campaign(run, Wanted(), say=print)
        for seed in range(FIRST, FIRST + 3):
            campaign.run_seed(seed)
            objects.append(len(gc.get_objects()))
    assert objects[-1] - objects[0] < 5_000, "what a seed made stays: about 30,000 objects each"
