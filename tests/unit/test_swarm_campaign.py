"""A campaign's totals, its failures and their repeating lines, with runs that are made up."""

from __future__ import annotations

import signal

import msgspec
import pytest

from chaos.errors import ScenarioInvalid
from chaos.sim.swarm.campaign import Campaign
from chaos.sim.swarm.plan import draw_plan
from chaos.sim.swarm.report import as_json, in_words
from chaos.sim.swarm.repro import Wanted, parse_faults
from chaos.sim.swarm.result import Failure, SeedResult

TOTALS = ("seeds", "failures", "sometimes", "events", "virtual_s", "wall_s")


def outcome(plan, *, failures=(), unknown=(), digest="", **sometimes):
    return SeedResult(
        seed=plan.seed, transport=plan.profile.transport, failures=failures, unknown=unknown,
        sometimes=sometimes or {"leader-changed": True, "never": False}, events=100, steps=1000, virtual_ms=20_000,
        replicas=len(plan.profile.replicas), agents=len(plan.profile.agents), jobs=50, faults=len(plan.faults),
        digest=digest,
    )  # fmt: skip


def campaign(run, wanted=None, **options):
    said = []
    return Campaign(run, wanted or Wanted(), say=said.append, **options), said


def fails_with(*names):
    """A run that fails exactly when the schedule has a fault of each of these kinds."""

    def run(plan, digest):
        guilty = set(names) <= {fault.kind for fault in plan.faults}
        return outcome(plan, failures=(Failure("log-matching", "they differ"),) if guilty else ())

    return run


def test_totals_and_medians_of_a_clean_campaign():
    made, _ = campaign(lambda plan, digest: outcome(plan))
    report = made.carry_out(range(120))
    assert (report.ok, report.seeds, report.events, report.virtual_s) == (True, 120, 12_000, 2400)
    assert report.medians["virtual_s"] == 20
    assert report.sometimes == {"leader-changed": 120, "never": 0}
    assert report.weak == ("never",)
    assert set(TOTALS) <= set(as_json(report))
    assert any("no seed reached never" in line for line in in_words(report))


def test_a_few_seeds_are_not_blamed_for_what_they_missed():
    made, _ = campaign(lambda plan, digest: outcome(plan))
    assert made.carry_out(range(5)).weak == ()


def test_a_failure_names_its_checker_and_the_line_that_repeats_it():
    made, said = campaign(
        lambda plan, digest: outcome(plan, failures=(Failure("vote-once", "two votes"),) if plan.seed == 3 else ()),
        Wanted(breaks=("double-vote",), transport="direct"),
    )
    report = made.carry_out(range(5))
    (failed,) = report.failures
    assert (failed.seed, failed.checker) == (3, "vote-once")
    assert failed.repro == "skerry sim --seed 3 --break double-vote --transport direct"
    assert any("seed 3 FAILS vote-once" in line for line in said)
    assert not report.ok


def test_the_first_failure_can_end_a_campaign():
    made, _ = campaign(lambda plan, digest: outcome(plan, failures=(Failure("x", ""),)), fail_fast=True)
    assert made.carry_out(range(50)).seeds == 1


def test_what_cannot_be_decided_is_not_a_failure_and_not_clean():
    made, _ = campaign(lambda plan, digest: outcome(plan, unknown=("linearizable",)))
    report = made.carry_out(range(3))
    assert (report.ok, report.undecided, report.unknown) == (True, True, {"linearizable": 3})


def seed_with(*kinds):
    return next(seed for seed in range(1000) if set(kinds) <= {fault.kind for fault in draw_plan(seed).faults})


def test_a_failing_seed_is_shrunk_to_the_faults_that_matter():
    seed = seed_with("kill", "isolate")
    made, _ = campaign(fails_with("kill", "isolate"), shrink_trials=100)
    (failed,) = made.carry_out([seed]).failures
    words = failed.shrunk.split()
    numbers = parse_faults(words[words.index("--faults") + 1])
    kept = Wanted(faults=numbers).applied(draw_plan(seed)).faults
    assert sorted(fault.kind for fault in kept) == ["isolate", "kill"]
    assert ("--policy" in words) == (draw_plan(seed).profile.policy != "fifo")


def test_the_same_fault_drawn_twice_is_counted_twice_when_shrunk():
    plan = draw_plan(seed_with("kill"))
    doubled = plan.with_faults((plan.faults[0], plan.faults[0]))
    assert Wanted(faults=(0, 1)).applied(doubled).faults == doubled.faults


def test_seeds_that_differ_when_run_again_are_told():
    made, _ = campaign(lambda plan, digest: outcome(plan, digest=f"d{plan.seed}" if digest else ""))
    report = made.carry_out(range(10), twice=[2, 4], again=lambda seeds: {2: "d2", 4: "other"})
    assert report.compared is not None
    assert (report.compared.seeds, report.compared.differing, report.ok) == (2, (4,), False)


def test_a_seed_missing_from_the_second_run_differs():
    made, _ = campaign(lambda plan, digest: outcome(plan, digest="d" if digest else ""))
    report = made.carry_out(range(3), twice=[1], again=lambda seeds: {})
    assert report.compared is not None
    assert report.compared.differing == (1,)


def test_an_interruption_ends_with_what_was_found_so_far():
    def run(plan, digest):
        if plan.seed == 4:
            signal.raise_signal(signal.SIGINT)
        return outcome(plan, digest="d")

    before = signal.getsignal(signal.SIGINT)
    made, _ = campaign(run)
    report = made.carry_out(range(100), twice=range(100), again=lambda seeds: {})
    assert (report.interrupted, report.seeds) == (True, 5), "the seed under way ends as it would"
    assert (report.ok, report.compared) == (True, None)
    assert any("interrupted" in line for line in in_words(report))
    assert signal.getsignal(signal.SIGINT) is before


def test_a_second_interruption_ends_at_once():
    def run(plan, digest):
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
        return outcome(plan)

    made, _ = campaign(run)
    with pytest.raises(KeyboardInterrupt):
        made.carry_out(range(100))


def test_faults_are_named_by_their_numbers():
    plan = draw_plan(0)
    assert Wanted(faults=(0, 2)).applied(plan).faults == (plan.faults[0], plan.faults[2])
    assert Wanted(faults=()).applied(plan).faults == ()
    assert Wanted(faults=()).line(0) == "skerry sim --seed 0 --faults none"
    assert parse_faults("2,0,2") == (0, 2)
    with pytest.raises(ScenarioInvalid):
        Wanted(faults=(99,)).applied(plan)
    with pytest.raises(ScenarioInvalid):
        parse_faults("all")


def test_a_report_holds_numbers_alone():
    made, _ = campaign(lambda plan, digest: outcome(plan))
    report = made.carry_out(range(3))
    assert msgspec.json.decode(msgspec.json.encode(as_json(report)))["seeds"] == 3
