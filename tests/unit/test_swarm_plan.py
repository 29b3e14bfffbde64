"""What a seed decides: reproducible, varied, fair, and of the size that a campaign promises."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from chaos.sim.swarm.kinds import KINDS, LOSING, Fault
from chaos.sim.swarm.load import job_names
from chaos.sim.swarm.plan import draw_plan, plan_from_builtins, plan_to_builtins
from chaos.sim.swarm.profile import draw_profile
from chaos.sim.swarm.schedule import fair, losers
from scheduler.jobfile import resolve_object

SEEDS = range(400)


@pytest.fixture(scope="module")
def plans():
    return [draw_plan(seed) for seed in SEEDS]


def test_a_seed_is_the_same_plan_in_every_process(plans):
    script = (
        "import json; from chaos.sim.swarm.plan import draw_plan, plan_to_builtins;"
        "print(json.dumps([plan_to_builtins(draw_plan(seed)) for seed in range(20)]))"
    )
    said = [
        subprocess.run(
            [sys.executable, "-c", script], capture_output=True, check=True, env={"PYTHONHASHSEED": hash_seed}
        ).stdout
        for hash_seed in ("0", "1")
    ]
    assert said[0] == said[1]
    assert json.loads(said[0]) == json.loads(json.dumps([plan_to_builtins(plan) for plan in plans[:20]]))


def test_a_plan_survives_being_written_down(plans):
    for plan in plans[:20]:
        assert plan_from_builtins(json.loads(json.dumps(plan_to_builtins(plan)))) == plan


def test_every_seed_is_of_the_promised_size(plans):
    assert {len(plan.profile.replicas) for plan in plans} == {3, 4, 5}
    assert all(len(plan.profile.agents) >= 4 for plan in plans)
    assert all(len(job_names(plan.load)) >= 50 for plan in plans)
    assert all(len(plan.faults) >= 3 for plan in plans)
    assert statistics.median(plan.profile.safety_ms for plan in plans) >= 14_000


def test_about_one_seed_in_twenty_runs_over_http(plans):
    share = sum(plan.profile.transport == "http" for plan in plans) / len(plans)
    assert 0.02 < share < 0.09
    assert draw_profile(1, "http").transport == "http"
    assert msgspec.structs.replace(draw_profile(1, "http"), transport=draw_profile(1).transport) == draw_profile(1)


def test_every_kind_of_fault_is_drawn_and_no_seed_has_them_all(plans):
    drawn = {fault.kind for plan in plans for fault in plan.faults}
    assert drawn == set(KINDS)
    assert max(len({fault.kind for fault in plan.faults}) for plan in plans) <= 9


def test_faults_lie_within_phase_one(plans):
    for plan in plans:
        for fault in plan.faults:
            assert fault.at_ms >= 2_000
            assert fault.at_ms + fault.for_ms <= max(plan.profile.safety_ms, 2_001 + fault.for_ms), fault


def test_synced_bytes_are_never_lost_on_half_of_the_replicas(plans):
    for plan in plans:
        assert len(losers(plan.faults)) <= (len(plan.profile.replicas) - 1) // 2
        assert len(set(losers(plan.faults))) == len(losers(plan.faults))
    assert any(losers(plan.faults) for plan in plans)


def test_a_second_loss_becomes_a_loss_of_power():
    profile = msgspec.structs.replace(draw_profile(0), replicas=draw_profile(0).replicas[:3])
    schedule = fair((Fault("wipe", 1, 1, ("n1",)), Fault("rot", 2, 1, ("n2",)), Fault("wipe", 3, 1, ("n1",))), profile)
    assert [fault.kind for fault in schedule] == ["wipe", "power", "power"]
    assert all(KINDS[kind].group == "disk" for kind in LOSING)


def test_the_core_is_a_majority_of_replicas_that_kept_their_disks(plans):
    for plan in plans:
        replicas = [name for name in plan.core if name in plan.profile.replica_names]
        assert len(replicas) > len(plan.profile.replicas) / 2
        assert not set(replicas) & set(losers(plan.faults))
        everybody = {*plan.profile.replica_names, *plan.profile.agent_names}
        assert set(plan.core) | {name for name, _ in plan.rest} == everybody
        assert not set(plan.core) & {name for name, _ in plan.rest}
    assert any(len(plan.core) < len(plan.profile.replicas) + len(plan.profile.agents) for plan in plans)


def test_every_job_of_the_load_is_one_that_the_api_takes(plans):
    kinds = set()
    for plan in plans[:40]:
        for call in plan.load:
            if call.kind == "submit":
                job = resolve_object(call.job)
                kinds.add((job.workload.kind, job.workload.on_disconnect))
    assert kinds == {("batch", "keep"), ("batch", "stop"), ("service", "keep"), ("service", "stop")}


def test_streams_are_separate_another_length_of_faults_leaves_the_load_alone(plans):
    other = msgspec.structs.replace(plans[3], faults=plans[3].faults[:1])
    assert other.load == draw_plan(3).load
    assert len({json.dumps(plan_to_builtins(plan)["load"]) for plan in plans[:50]}) == 50


def test_the_documentation_lists_every_fault_as_it_is():
    text = (Path(__file__).parents[2] / "docs" / "simulator.md").read_text(encoding="utf-8")
    listed = [line for line in text.splitlines() if line.startswith("| `") and line.count("|") == 4]
    rows = [f"| `{kind.name}` | {kind.group} | {kind.does} |" for kind in KINDS.values()]
    assert [line for line in listed if line in rows] == rows
