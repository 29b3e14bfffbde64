"""A trace from tracers' memory is the trace that their files would give."""

from __future__ import annotations

from pathlib import Path

from chaos.trace.check import check_records, check_trace
from chaos.trace.checkers.base import Rule, Watch, walk
from chaos.trace.events import Event, Trace
from chaos.trace.records import trace_of
from tests.support.long_run import records
from tests.support.trace_maker import good_run


def test_memory_and_files_give_the_same_order_and_the_same_findings(tmp_path: Path) -> None:
    made = good_run()
    from_files, from_memory = made.trace(tmp_path), trace_of(records(made), whole=False)
    assert [(e.ref, e.hlc, e.k, e.f) for e in from_memory] == [(e.ref, e.hlc, e.k, e.f) for e in from_files]
    assert check_trace(from_memory) == check_trace(from_files)


def test_a_sink_that_outlives_its_processes_misses_nothing(tmp_path: Path) -> None:
    lives = records(good_run())
    killed = next(life for life in lives if life[0] == "n3")
    just_before = trace_of(lives, whole=False).lives[killed].last_hlc + 1
    assert trace_of(lives, whole=False).lives[killed].may_have_lost(just_before)
    assert not trace_of(lives).lives[killed].may_have_lost(just_before)
    assert check_records(lives).ok


class _Falling(Rule):
    """A number never falls."""

    name = "falling"
    nothing = "no number"

    def __init__(self) -> None:
        super().__init__()
        self._last: Event | None = None

    def on_number(self, event: Event) -> None:
        self.verdict.checked += 1
        if self._last is not None and event.number("x") < self._last.number("x"):
            self.verdict.violated("it fell", self._last, event)
        self._last = event


def test_a_watched_rule_speaks_at_the_event_that_breaks_it_and_a_walk_agrees() -> None:
    events = [Event(i << 16, "n1", "a", i, i / 1000, kind, {"x": x}) for i, (kind, x) in enumerate(
        [("number", 1), ("other", 0), ("number", 3), ("number", 2), ("number", 5)], 1)]  # fmt: skip
    watch = Watch([_Falling])
    told = [watch.feed(event) for event in events]
    assert [bool(findings) for findings in told] == [False, False, False, True, True]
    (walked,) = walk(Trace(events), [_Falling])
    assert walked == told[-1][0]
    assert walked.refs == ("n1/a/3", "n1/a/4")
