"""From the calls that a trace tells to a history."""

from __future__ import annotations

from typing import Any

from chaos.history.jobs import job_history
from chaos.history.operations import NEVER, UNKNOWN
from chaos.trace.events import Event, Trace


def told(*calls: tuple[str, float, str, str, dict[str, Any]]) -> Trace:
    """(who, seconds, request, phase, more)."""
    events = []
    for number, (node, t, request, phase, more) in enumerate(calls, 1):
        fields = {"id": request, "ph": phase, "op": "submit", "key": "default/a", "value": {}, **more}
        events.append(Event(int(t * 1000) << 16, node, "x", number, t, "op", fields))
    return Trace(events)


OK = {"value": {"version": 1, "index": 7}}


def test_a_request_told_by_caller_and_replica_and_asked_again_is_one_call() -> None:
    (call,) = job_history(
        told(
            ("client", 1.0, "r", "invoke", {}),
            ("n1", 1.1, "r", "invoke", {}),
            ("client", 3.0, "r", "info", {}),
            ("client", 4.0, "r", "invoke", {}),
            ("n2", 4.1, "r", "invoke", {}),
            ("n2", 4.2, "r", "ok", OK),
            ("client", 4.3, "r", "ok", OK),
        )
    )
    assert (call.key, call.called, call.returned, call.input, call.output) == ("default/a", 1.0, 4.2, "submit", (1, 7))


def test_what_was_refused_everywhere_is_no_call_and_what_nobody_answered_is_open() -> None:
    refused = told(("client", 1.0, "r", "invoke", {}), ("client", 2.0, "r", "fail", {}))
    assert job_history(refused) == []
    for phases in (("invoke", "info"), ("invoke",), ("invoke", "fail", "invoke")):
        (call,) = job_history(told(*[("c", 1.0 + n, "r", phase, {}) for n, phase in enumerate(phases)]))
        assert (call.called, call.returned, call.output) == (1.0, NEVER, UNKNOWN)


def test_reads_that_nobody_answered_stale_reads_and_collected_jobs_are_left_out() -> None:
    read = {"op": "read"}
    assert job_history(told(("c", 1.0, "q", "invoke", read), ("c", 2.0, "q", "info", read))) == []
    stale = read | {"stale": True} | OK
    assert job_history(told(("c", 1.0, "q", "invoke", stale), ("c", 2.0, "q", "ok", stale))) == []
    trace = told(("c", 1.0, "r", "invoke", {}), ("c", 2.0, "r", "ok", OK))
    assert len(job_history(trace)) == 1
    gone = Event(9 << 26, "n1", "y", 1, 9.0, "job", {"do": "collect", "job": "default/a"})
    assert job_history(Trace([*trace.events, gone])) == []
