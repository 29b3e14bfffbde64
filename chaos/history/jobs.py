"""The calls about jobs that a trace tells, as a history.

Owns: from `op` events to operations.  Must not know: how histories are judged.

A request that is asked again, wherever, is one call: from when it was first asked until it was first answered.  A call
that was refused everywhere was not done.  Jobs that were collected begin anew, and are left out.
"""

from __future__ import annotations

from chaos.history.operations import NEVER, UNKNOWN, Operation
from chaos.trace.events import Event, Trace

CALLS = ("submit", "stop", "read")


class _Call:
    """Everything told about one request."""

    def __init__(self, first: Event) -> None:
        self.first = first
        self.answer: Event | None = None
        self.refused = True

    def take(self, event: Event) -> None:
        if event.t < self.first.t:
            self.first = event
        phase = event.f.get("ph")
        if phase == "ok":
            if self.answer is None or event.t < self.answer.t:
                self.answer = event
        elif phase == "invoke":
            pass
        elif phase != "fail":
            self.refused = False


def job_history(trace: Trace) -> list[Operation]:
    """Calls by key, in order of their first events."""
    collected = {event.text("job") for event in trace.kind("job") if event.f.get("do") == "collect"}
    calls: dict[tuple[str, str], _Call] = {}
    open_phases: dict[tuple[str, str], int] = {}
    for event in trace.kind("op"):
        name = str(event.f.get("op"))
        if name not in CALLS or event.f.get("stale") is True or event.text("key") in collected:
            continue
        key = (name, event.text("id"))
        call = calls.get(key)
        if call is None:
            call = calls[key] = _Call(event)
        open_phases[key] = open_phases.get(key, 0) + (1 if event.f.get("ph") == "invoke" else -1)
        call.take(event)
    return [
        operation for (name, _), call in calls.items() if (operation := _operation(name, call, open_phases)) is not None
    ]


def _operation(name: str, call: _Call, open_phases: dict[tuple[str, str], int]) -> Operation | None:
    first, answer = call.first, call.answer
    key, ref = first.text("key"), (answer or first).ref
    if answer is None:
        if name != "submit" or (call.refused and open_phases[name, first.text("id")] <= 0):
            return None  # it was not done, or it changes nothing that could be seen
        return Operation(key, first.t, NEVER, name, UNKNOWN, ref)
    value = answer.part("value")
    version, index = value.get("version"), value.get("index")
    if not isinstance(version, int) or not isinstance(index, int):
        return None
    return Operation(key, first.t, answer.t, name, (version, index), ref)
