"""`skerry sim`: its options, exit codes and the keys of its answer."""

from __future__ import annotations

import json
import signal
from contextlib import contextmanager

import pytest

from chaos.sim.swarm import catching
from chaos.sim.swarm import run as run_module
from chaos.sim.swarm.result import Failure, SeedResult
from chaos.sim.swarm.twice import SecondRun, SecondRunFailed
from skerry.cli.root import run
from tests.support.raft_breaks import acknowledgement_before_the_write


def result(plan, failures=(), unknown=()):
    return SeedResult(
        seed=plan.seed, transport=plan.profile.transport, failures=failures, unknown=unknown,
        sometimes={"leader-changed": True}, events=10, steps=20, virtual_ms=20_000, replicas=3, agents=4, jobs=50,
        faults=len(plan.faults), digest="",
    )  # fmt: skip


@pytest.fixture
def seeds(monkeypatch):
    """Runs that are made up: what fails is chosen by seed."""
    failing, unknown, ran = {}, {}, []

    def made_up(plan, digest):
        ran.append(plan)
        return result(plan, failing.get(plan.seed, ()), unknown.get(plan.seed, ()))

    @contextmanager
    def runner(breaks=(), *, out=None):
        yield made_up

    monkeypatch.setattr(run_module, "runner", runner)
    made_up.failing, made_up.unknown, made_up.ran = failing, unknown, ran
    return made_up


def answer(capsys, *arguments):
    code = run(["sim", *arguments, "-o", "json"])
    return code, json.loads(capsys.readouterr().out)


def test_a_clean_campaign_exits_0_with_the_keys_of_the_contract(seeds, capsys):
    code, found = answer(capsys, "--seeds", "5", "--from", "100")
    assert code == 0
    assert {"v", "seeds", "failures", "sometimes", "events", "virtual_s", "wall_s"} <= set(found)
    assert (found["seeds"], found["failures"]) == (5, [])
    assert [plan.seed for plan in seeds.ran] == [100, 101, 102, 103, 104]


def test_a_failing_seed_exits_1_and_names_seed_checker_and_repro(seeds, capsys):
    seeds.failing[2] = (Failure("vote-once", "two votes"),)
    code, found = answer(capsys, "--seeds", "3", "--no-shrink")
    assert code == 1
    (failure,) = found["failures"]
    assert (failure["seed"], failure["checker"]) == (2, "vote-once")
    assert failure["repro"] == "skerry sim --seed 2"


def test_what_could_not_be_decided_exits_6(seeds, capsys):
    seeds.unknown[1] = ("linearizable",)
    assert answer(capsys, "--seeds", "2")[0] == 6


def test_one_seed_with_some_of_its_faults(seeds, capsys):
    code, _ = answer(capsys, "--seed", "4", "--faults", "0", "--policy", "fifo", "--transport", "http")
    assert code == 0
    (plan,) = seeds.ran
    assert (len(plan.faults), plan.profile.policy, plan.profile.transport) == (1, "fifo", "http")


@pytest.mark.parametrize(
    "wrong",
    [
        ("--seed", "1", "--seeds", "2"),
        ("--out", "somewhere"),
        ("--faults", "1"),
        ("--seeds", "0"),
        ("--transport", "pigeon"),
        ("--seed", "1", "--out", "/proc/nowhere"),
    ],
)
def test_what_makes_no_sense_is_a_usage_error(seeds, capsys, wrong):
    assert run(["sim", *wrong]) == 2
    assert seeds.ran == []


def test_a_trace_is_not_mixed_with_another_run(seeds, tmp_path, capsys):
    (tmp_path / "n1-aa.jsonl").write_text("{}")
    assert run(["sim", "--seed", "1", "--out", str(tmp_path)]) == 2
    assert "holds a trace" in capsys.readouterr().err
    assert (seeds.ran, [each.name for each in tmp_path.iterdir()]) == ([], ["n1-aa.jsonl"])


def test_breaks_are_listed_with_the_checker_that_catches_each(capsys):
    code, found = answer(capsys, "breaks")
    assert code == 0
    assert {"name": "no-fencing", "checker": "at-most-one-process"}.items() <= next(
        each for each in found["breaks"] if each["name"] == "no-fencing"
    ).items()


def test_every_state_of_a_small_scope_is_visited(capsys):
    code, found = answer(capsys, "exhaustive", "replication", "--states", "2000")
    assert (code, found["violated"], found["scopes"][0]["scope"]) == (0, [], "replication")
    assert found["states"] >= 2_000
    assert run(["sim", "exhaustive", "replication", "--states", "2000"]) == 0
    assert "replication" in capsys.readouterr().out
    assert run(["sim", "exhaustive", "nonsense"]) == 2


def test_a_violated_state_is_told_with_the_way_to_it(capsys, monkeypatch):
    acknowledgement_before_the_write(monkeypatch)
    assert run(["sim", "exhaustive", "candidacy"]) == 1
    assert "vote-persistence: its vote of term 2 leaves before it is on disk\n  timeout n1\n" in capsys.readouterr().out


def test_a_break_that_nobody_knows_is_refused(capsys):
    assert run(["sim", "--break", "nonsense", "--seed", "1"]) == 2
    assert "nonsense" in capsys.readouterr().err
    assert run(["sim", "breaks", "nonsense"]) == 2
    assert "nonsense" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("failing", "code", "row"), [({}, 1, "not always caught"), ({1, 1_001}, 0, "| `capacity` | 2 |")]
)
def test_how_long_a_break_survives_is_measured_into_a_document(tmp_path, monkeypatch, capsys, failing, code, row):
    document = tmp_path / "breaks.md"
    document.write_text("before\n<!-- begin sim breaks -->\nold\n<!-- end sim breaks -->\nafter\n")
    monkeypatch.setattr(catching, "SEEDS_MAX", 3)

    @contextmanager
    def runner(breaks=(), *, out=None):
        failed = (Failure("capacity", "too much"),)
        yield lambda plan, digest: result(plan, failed if breaks and plan.seed in failing else ())

    monkeypatch.setattr(run_module, "runner", runner)
    assert run(["sim", "breaks", "plan-not-rechecked", "--docs", str(document), "--starts", "2"]) == code
    lines = document.read_text().splitlines()
    assert (lines[0], lines[-1], len(lines)) == ("before", "after", 9)
    assert lines[4].startswith("| `plan-not-rechecked` |")
    assert row in lines[4]
    capsys.readouterr()


def test_a_plan_is_shown_without_running_it(seeds, capsys):
    code, found = answer(capsys, "--seed", "7", "--plan")
    assert (code, found["plan"]["profile"]["seed"], seeds.ran) == (0, 7, [])
    assert run(["sim", "--seed", "7", "--plan"]) == 0
    assert "phase one" in capsys.readouterr().out


def test_a_second_run_does_not_outlive_the_first():
    with SecondRun(range(1_000), ()) as second:
        pass
    assert second._process.returncode == -signal.SIGKILL


def test_a_second_run_that_says_nothing_is_an_error():
    with SecondRun([1], ["--transport", "pigeon"]) as second, pytest.raises(SecondRunFailed):
        second.digests([1])
