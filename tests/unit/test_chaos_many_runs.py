from __future__ import annotations

import pytest

from chaos.scenario.runner import RunResult
from skerry.cli.chaos import _print_summary, _summary


def _result(verdict: str, gap_ms: int | None) -> RunResult:
    return RunResult("isolated-agent", verdict, (), (), {}, {"gap_ms": gap_ms, "elect_ms": None}, "trace")


@pytest.mark.parametrize(
    ("verdicts", "worst"),
    [(["pass", "pass"], "pass"), (["pass", "unknown"], "unknown"), (["unknown", "fail", "pass"], "fail")],
)
def test_the_worst_of_many_runs_counts(verdicts, worst):
    assert _summary([_result(verdict, 1) for verdict in verdicts])["verdict"] == worst


def test_metrics_are_told_as_least_median_and_greatest_of_the_runs_that_have_them(capsys):
    summary = _summary([_result("pass", 9), _result("pass", None), _result("pass", 5), _result("fail", 6)])
    assert summary["metrics"] == {"gap_ms": {"min": 5, "median": 6, "max": 9}}
    assert len(summary["runs"]) == 4
    _print_summary(summary)
    assert "3 of 4 runs passed" in capsys.readouterr().out
