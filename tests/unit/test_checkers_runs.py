from __future__ import annotations

from typing import Any

import pytest

from chaos.scenario.measures import metrics, sometimes
from chaos.trace.checkers.base import RuleChecker
from chaos.trace.checkers.fencing import Fencing
from chaos.trace.checkers.placements import one_bind_per_attempt
from chaos.trace.checkers.runs import absence_never_stops, at_most_one_process
from chaos.trace.events import Event, Trace
from chaos.trace.runs import attempts, gap_ms, overlap_ms, successions
from chaos.trace.story import leases

START_MS = 1_790_000_000_000
EXIT = {"code": None, "signal": 15, "reason": "lease", "status_known": True}


class Run:
    """Events at given milliseconds."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    def at(self, ms: int, node: str, kind: str, /, **fields: Any) -> Run:
        number = 1 + sum(1 for event in self.events if event.n == node)
        self.events.append(Event(START_MS + ms << 16, node, "1", number, (START_MS + ms) / 1000, kind, fields))
        return self

    def start(self, ms: int, node: str, epoch: int, **more: Any) -> Run:
        return self.at(ms, node, "run", do="start", allocation="default/x.0", epoch=epoch, attempt=1, **more)

    def end(self, ms: int, node: str, epoch: int) -> Run:
        return self.at(ms, node, "run", do="exit", allocation="default/x.0", epoch=epoch, exit=EXIT)

    def stop(self, ms: int, node: str, epoch: int, do: str = "stop") -> Run:
        return self.at(ms, node, "run", do=do, allocation="default/x.0", epoch=epoch)

    @property
    def trace(self) -> Trace:
        return Trace(self.events)


fencing = RuleChecker(Fencing)


def test_one_after_the_other_is_a_gap_and_no_violation():
    trace = Run().start(10, "a1", 5).end(100, "a1", 5).start(250, "a2", 9).trace
    ((older, newer),) = successions(trace)
    assert (overlap_ms(older, newer), gap_ms(older, newer)) == (0, 150)
    found = at_most_one_process(trace)
    assert (found.ok, found.checked) == (True, 1)


def test_two_at_once_is_told_with_both_nodes_and_the_time():
    trace = Run().start(10, "a1", 5).start(60, "a2", 9).end(100, "a1", 5).trace
    found = at_most_one_process(trace)
    assert found.ok is False
    assert "for 40 ms" in found.detail
    assert {ref.split("/")[0] for ref in found.refs} == {"a1", "a2"}


def test_a_workload_that_never_ends_overlaps_its_successor():
    trace = Run().start(10, "a1", 5).start(60, "a2", 9).at(90, "a1", "note", text="still here").trace
    assert at_most_one_process(trace).ok is False


def test_two_attempts_on_one_node_must_not_overlap_either():
    assert at_most_one_process(Run().start(10, "a1", 5).start(60, "a1", 9).end(100, "a1", 5).trace).ok is False


def test_a_job_that_keeps_running_without_a_lease_may_run_twice():
    trace = Run().start(10, "a1", 5, on_disconnect="keep").start(60, "a2", 9).end(100, "a1", 5).trace
    assert at_most_one_process(trace).ok is None


def test_an_end_that_a_kill_took_with_it_is_unknown():
    run = Run().start(10, "a1", 5).at(20, "client", "fault", id="k", kind="kill", target="a1", args={}, by={})
    found = at_most_one_process(run.start(4000, "a2", 9).trace)
    assert found.ok is None
    assert "not in the trace" in found.detail


def test_an_adopted_attempt_goes_on_where_it_was():
    trace = Run().start(10, "a1", 5).at(50, "a1", "run", do="adopt", allocation="default/x.0", epoch=5).trace
    assert [len(found) for found in attempts(trace).values()] == [1]


def _stopped(run: Run) -> bool | None:
    return absence_never_stops(run.stop(100, "a1", 5).end(110, "a1", 5).trace).ok


@pytest.mark.parametrize(
    ("kind", "fields"),
    [
        ("job", {"do": "stop", "index": 9, "job": "default/x", "outcome": "stopped"}),
        ("job", {"do": "submit", "index": 9, "job": "default/x", "outcome": "replaced"}),
        ("node", {"do": "lost", "index": 9, "node": "a1", "state": "lost"}),
        ("node", {"do": "marks", "index": 9, "node": "a1", "taints": ["kill=1:NoExecute"]}),
        ("place", {"do": "bind", "index": 9, "allocation": "default/x.0", "epoch": 9, "node": "a2"}),
    ],
)
def test_a_committed_order_accounts_for_a_stop(kind, fields):
    assert _stopped(Run().start(10, "a1", 5).at(50, "n1", kind, **fields)) is True


@pytest.mark.parametrize(
    ("ms", "kind", "fields"),
    [
        (50, "job", {"do": "stop", "index": 4, "job": "default/x", "outcome": "stopped"}),
        (50, "job", {"do": "stop", "index": 9, "job": "default/y", "outcome": "stopped"}),
        (50, "job", {"do": "submit", "index": 9, "job": "default/x", "outcome": "unchanged"}),
        (50, "node", {"do": "lost", "index": 9, "node": "a2", "state": "lost"}),
        (50, "node", {"do": "marks", "index": 9, "node": "a1", "taints": ["keep=1:NoSchedule"]}),
        (50, "node", {"do": "marks", "index": 9, "node": "a2", "taints": ["kill=1:NoExecute"]}),
        (150, "job", {"do": "stop", "index": 9, "job": "default/x", "outcome": "stopped"}),
    ],
    ids=["older", "another-job", "nothing-changed", "another-node", "stops-nothing", "another-nodes-taint", "too-late"],
)
def test_what_orders_something_else_does_not_account_for_a_stop(ms, kind, fields):
    assert _stopped(Run().start(10, "a1", 5).at(ms, "n1", kind, **fields)) is False


def test_a_sandboxer_that_ends_in_order_may_stop_its_workloads():
    assert _stopped(Run().start(10, "a1", 5).at(50, "a1", "note", text="sandboxer stops its workloads")) is True
    assert _stopped(Run().start(10, "a1", 5).at(50, "a2", "note", text="sandboxer stops its workloads")) is False


def test_a_fence_needs_a_lease_that_ran_out_and_was_not_given_anew():
    def fenced(*leases: tuple[int, str]) -> bool | None:
        run = Run().start(10, "a1", 5)
        for ms, do in leases:
            run.at(ms, "a1", "lease", do=do, node="a1")
        return absence_never_stops(run.stop(100, "a1", 5, "fenced").trace).ok

    assert fenced((50, "expire")) is True
    assert fenced() is False
    assert fenced((50, "expire"), (80, "grant")) is False


def test_tokens_of_an_allocation_only_rise_on_a_node():
    assert fencing(Run().start(10, "a1", 5).end(20, "a1", 5).start(30, "a1", 9).trace).ok is True
    assert fencing(Run().start(10, "a1", 9).end(20, "a1", 9).start(30, "a1", 5).trace).ok is False
    assert fencing(Run().start(10, "a1", 9).end(20, "a1", 9).start(30, "a2", 5).trace).ok is True


def test_a_start_may_be_told_after_the_stop_of_what_was_let_through_but_never_after_its_exit():
    assert fencing(Run().stop(10, "a1", 5).start(11, "a1", 5).trace).ok is True
    assert fencing(Run().stop(10, "a1", 5, "fenced").start(11, "a1", 5).trace).ok is True
    assert fencing(Run().stop(10, "a1", 6).start(11, "a1", 5).trace).ok is False
    assert fencing(Run().start(9, "a1", 5).start(11, "a1", 5).trace).ok is False
    assert fencing(Run().start(9, "a1", 5).stop(10, "a1", 5).end(11, "a1", 5).start(12, "a1", 5).trace).ok is False


def test_what_needs_a_lease_does_not_start_without_one():
    expired = Run().at(10, "a1", "lease", do="expire", node="a1")
    assert fencing(expired.start(20, "a1", 5, on_disconnect="stop").trace).ok is False
    kept = Run().at(10, "a1", "lease", do="expire", node="a1")
    assert fencing(kept.start(20, "a1", 5, on_disconnect="keep").trace).ok is True


def test_the_metrics_tell_how_soon_others_took_over_and_the_gap():
    run = Run().start(0, "a1", 5)
    run.at(
        100, "client", "fault", id="r-i:a1", kind="isolate", target="a1", args={"links": []}, by={"rule": "scenario"}
    )
    run.end(1100, "a1", 5).start(1600, "a2", 9)
    found = metrics(run.trace, "r")
    assert (found["replaced"], found["replaced_ms"], found["overlap_ms"], found["gap_ms"]) == (1, 1500, 0, 500)
    assert sometimes(run.trace, "r")["replaced"]


def test_a_restart_on_the_same_node_is_no_replacement():
    run = Run().start(0, "a1", 5)
    run.at(
        100, "client", "fault", id="r-i:a1", kind="isolate", target="a1", args={"links": []}, by={"rule": "scenario"}
    )
    run.end(200, "a1", 5).start(300, "a1", 9)
    assert not sometimes(run.trace, "r")["replaced"]
    assert metrics(run.trace, "r")["gap_ms"] is None


def test_the_story_tells_the_fence_the_loss_and_the_takeover():
    run = Run().start(0, "a1", 5).at(1000, "a1", "lease", do="expire", node="a1", fenced=1)
    run.stop(1001, "a1", 5, "fenced").end(1010, "a1", 5)
    run.at(1500, "n1", "lease", do="lost", node="a1", silent_ms=1500)
    run.at(1510, "n1", "node", do="lost", index=8, node="a1", state="lost").start(1600, "a2", 9)
    trace = run.trace
    texts = [each.sentence.text for tell in (leases.expiries, leases.losses, leases.takeovers) for each in tell(trace)]
    assert texts == [
        "The lease of a1 ran out there: it fenced 1 workload by itself.",
        "Node a1 was declared lost at index 8 by n1, which had not heard it for 1500 ms.",
        "1 allocation of default/x went on from a1 to a2, at least 590 ms after the old process had ended.",
    ]


@pytest.mark.parametrize(("lost", "fine"), [("a1", True), ("a2", False), ("", False)])
def test_an_attempt_is_bound_again_only_in_front_of_one_on_a_lost_node(lost, fine):
    run = Run()
    place = {"allocation": "default/x.0", "job": "default/x", "requests": {}, "ports": [], "by": "n1"}
    run.at(1, "n1", "place", do="bind", index=5, attempt=1, epoch=5, node="a1", **place)
    if lost:
        run.at(2, "n1", "node", do="lost", index=6, node=lost, state="lost")
    run.at(3, "n1", "place", do="bind", index=7, attempt=2, epoch=7, node="a2", **place)
    run.at(4, "n1", "place", do="release", index=8, attempt=1, epoch=5, node="a1", **place)
    assert one_bind_per_attempt(run.trace).ok is fine


def test_the_release_of_an_attempt_on_a_lost_node_does_not_free_its_successor():
    run = Run()
    place = {"allocation": "default/x.0", "job": "default/x", "requests": {}, "ports": [], "by": "n1"}
    run.at(1, "n1", "place", do="bind", index=5, attempt=1, epoch=5, node="a1", **place)
    run.at(2, "n1", "node", do="lost", index=6, node="a1", state="lost")
    run.at(3, "n1", "place", do="bind", index=7, attempt=2, epoch=7, node="a2", **place)
    run.at(4, "n1", "place", do="release", index=8, attempt=1, epoch=5, node="a1", **place)
    run.at(5, "n1", "place", do="bind", index=9, attempt=3, epoch=9, node="a3", **place)
    assert one_bind_per_attempt(run.trace).ok is False


def lease(n: int, at_ms: int, do: str, left_ms: int | None = None, inc: str = "agent") -> Event:
    fields = {"do": do, "node": "a1"} | ({} if left_ms is None else {"left_ms": left_ms})
    return Event((at_ms << 16) + n, "a1", inc, n, at_ms / 1000, "lease", fields)


def stops(n: int, at_ms: int) -> Event:
    fields = {"do": "stop", "allocation": "default/j.0", "epoch": 4, "on_disconnect": "stop"}
    return Event((at_ms << 16) + n, "a1", "box", n, at_ms / 1000, "run", fields)


def test_within_a_millisecond_the_order_of_agent_and_sandboxer_says_nothing() -> None:
    ended = Trace([lease(1, 50, "expire", inc="box"), lease(2, 50, "grant", 900), stops(3, 50)])
    assert absence_never_stops(ended).ok is True
    later = Trace([lease(1, 50, "expire", inc="box"), lease(1, 51, "grant", 900), stops(2, 52)])
    assert absence_never_stops(later).ok is False


def test_a_confirmation_that_came_too_late_gives_no_lease() -> None:
    late = Trace([lease(1, 50, "expire", inc="box"), lease(1, 51, "grant", -20), stops(2, 52)])
    assert absence_never_stops(late).ok is True


def told(at_ms: int, node: str, inc: str, kind: str, /, **fields: object) -> Event:
    return Event(at_ms << 16, node, inc, at_ms, at_ms / 1000, kind, fields)


def ran(at_ms: int, do: str, node: str = "a1", epoch: int = 4) -> Event:
    return told(at_ms, node, "box", "run", do=do, allocation="default/j.0", epoch=epoch, on_disconnect="stop")


def registered(at_ms: int, replica: str, index: int, installation: str) -> Event:
    return told(at_ms, replica, "r", "node", do="register", node="a1", index=index, installation=installation)


def test_tokens_begin_anew_on_a_node_with_another_directory_and_only_there() -> None:
    run = [registered(1, "n1", 3, "one"), ran(10, "start"), ran(20, "exit")]
    again = [*run, ran(40, "start")]
    assert fencing(Trace(again)).ok is False
    assert fencing(Trace([*again, registered(30, "n1", 9, "two")])).ok is True
    replayed = [registered(32, "n1", 9, "one"), registered(30, "n2", 9, "one"), registered(33, "n2", 3, "two")]
    assert fencing(Trace([*again, *replayed])).ok is False, "a replica that applies its log again changes nothing"


def test_an_attempt_that_ran_twice_has_two_spans() -> None:
    run = [ran(10, "start"), ran(20, "exit"), ran(40, "start"), ran(60, "exit")]
    spans = attempts(Trace(run))["default/j.0"]
    assert [(each.start_ms, each.end_ms) for each in spans] == [(10, 20), (40, 60)]
    other = [ran(45, "start", "a2", 7), ran(50, "exit", "a2", 7)]
    assert at_most_one_process(Trace(run)).ok is True
    assert at_most_one_process(Trace([*run, *other])).ok is False


def test_an_attempt_that_never_ended_meets_more_than_the_next_one() -> None:
    long = [ran(10, "start", "a1", 4), ran(90, "exit", "a1", 4)]
    short = [ran(20, "start", "a2", 5), ran(30, "exit", "a2", 5), ran(50, "start", "a3", 6), ran(60, "exit", "a3", 6)]
    found = at_most_one_process(Trace([*long, *short]))
    assert (found.ok, "(and 1 more)" in found.detail) == (False, True)


def test_a_late_sandboxer_lets_an_older_lease_run_out_and_goes_on_under_the_newer_one() -> None:
    def lease_at(at_ms: int, inc: str, do: str, deadline_ns: int) -> Event:
        return told(at_ms, "a1", inc, "lease", do=do, deadline_ns=deadline_ns, left_ms=900)

    late = [lease_at(10, "agent", "grant", 500), lease_at(12, "box", "expire", 300), ran(14, "start")]
    assert fencing(Trace(late)).ok is True
    over = [lease_at(10, "agent", "grant", 500), lease_at(12, "box", "expire", 500), ran(14, "start")]
    assert fencing(Trace(over)).ok is False
