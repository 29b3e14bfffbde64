"""What a run cost is counted from its trace."""

from __future__ import annotations

import itertools
from pathlib import Path

from chaos.scenario.measures import double_run_ms, metrics, sometimes
from tests.support.trace_maker import ALL, TraceMaker, good_run


def run_of(name: str = "c1") -> TraceMaker:
    """The good run under a scenario's names."""
    made = good_run()
    for line in made.lines("op"):
        line["id"] = f"{name}.{line['id']}"
    for line in made.lines("job"):
        line["request_id"] = f"{name}.{line['request_id']}"
    for line in made.lines("fault") + made.lines("heal"):
        if line["n"] == "client":
            line["id"] = f"{name}-{line['id']}"
    return made


def test_the_metrics_of_a_run(tmp_path: Path) -> None:
    made = run_of()
    times = [line["hlc"] >> 16 for line in made.lines("op") if line["ph"] == "ok"]
    gap = max(b - a for a, b in itertools.pairwise(times))
    fault = next(line for line in made.lines("fault") if line["n"] == "client")
    elected = next(line for line in made.lines("role", "n2") if line["role"] == "leader")
    assert metrics(made.trace(tmp_path), "c1") == {
        "unavailable_ms": gap,
        "elect_ms": (elected["hlc"] >> 16) - (fault["hlc"] >> 16),
        "acked": 4,
        "acked_lost": 0,
        "double_run_ms": 0,
        "replaced": 0,
        "replaced_ms": None,
        "overlap_ms": None,
        "gap_ms": None,
        "elections": 1,
    }


def test_a_lost_write_is_counted(tmp_path: Path) -> None:
    made = run_of()
    for line in made.lines("job"):
        if line["request_id"] == "c1.r3":
            line["request_id"] = "c1.other"
    assert metrics(made.trace(tmp_path), "c1")["acked_lost"] == 1


def test_another_runs_writes_do_not_count(tmp_path: Path) -> None:
    numbers = metrics(run_of().trace(tmp_path), "c2")
    assert (numbers["acked"], numbers["unavailable_ms"], numbers["elect_ms"], numbers["elections"]) == (
        0,
        None,
        None,
        0,
    )


def test_two_attempts_that_run_at_once_are_counted_in_milliseconds(tmp_path: Path) -> None:
    made = TraceMaker()
    made.start("a1", "00000001")
    made.start("a2", "00000002")
    run = {"allocation": "default/x.0", "pid": 1, "cgroup": "/"}
    start = made.emit("a1", "run", do="start", attempt=1, epoch=1, **run)
    made.ms += 100
    second = made.emit("a2", "run", do="start", attempt=2, epoch=2, **run)
    made.ms += 50
    end = made.emit("a1", "run", do="exit", attempt=1, epoch=1, exit={"reason": "exited"}, **run)
    made.emit("a2", "run", do="exit", attempt=2, epoch=2, exit={"reason": "exited"}, **run)
    assert start["hlc"] < second["hlc"]
    assert double_run_ms(made.trace(tmp_path)) == (end["hlc"] - second["hlc"]) >> 16


def test_the_situations_that_a_run_reached(tmp_path: Path) -> None:
    reached = sometimes(run_of().trace(tmp_path), "c1")
    assert reached == {
        "leader-changed": True,
        "write-during-fault": True,
        "unknown-outcome": True,
        "link-cut": True,
        "process-restarted": True,
        "replaced": False,
    }
    quiet = TraceMaker()
    for number, node in enumerate(ALL):
        quiet.start(node, f"{number:08x}")
    quiet.elect("n1", ALL)
    assert not any(sometimes(quiet.trace(tmp_path / "quiet"), "c1").values())
