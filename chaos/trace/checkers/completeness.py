"""Whether the trace is whole, and whether anything in it could have gone wrong.

Owns: missing events that no note admits, violations that processes reported themselves, and what
makes a clean result weak.  Must not know: consensus or placement.
"""

from __future__ import annotations

from chaos.trace.checkers.base import Finding, Verdict
from chaos.trace.events import Event, Life, Trace


def trace_complete(trace: Trace) -> Finding:
    """Every life's events are numbered 1..n without holes, but for those its notes admit to have dropped."""
    verdict = Verdict("trace-complete")
    numbered: dict[Life, list[Event]] = {}
    for event in trace.events:
        if event.i > 0:
            numbered.setdefault((event.n, event.inc), []).append(event)
    for life, events in numbered.items():
        events.sort(key=lambda e: e.i)
        verdict.checked += 1
        missing, around = 0, None
        before = 0
        for event in events:
            if event.i == before:
                verdict.violated(f"event {event.ref} is there twice", event)
            elif event.i > before + 1:
                missing += event.i - before - 1
                around = around or event
            before = event.i
        if missing > trace.lives[life].dropped and around is not None:
            verdict.violated(f"{missing} events of {life[0]} are missing before the end of its trace", around)
    return verdict.finding("no events")


def own_invariants(trace: Trace) -> Finding:
    """No process reported a broken invariant of its own (`inv`)."""
    verdict = Verdict("own-invariants")
    verdict.checked = len(trace.events)
    for event in trace.kind("inv"):
        if event.f.get("ok") is False:
            verdict.violated(f"{event.n} reports: {event.text('name')}: {event.text('why')}", event)
    return verdict.finding("no events")


def weaknesses(trace: Trace) -> list[str]:
    """Why a clean result would prove little; empty if it proves something."""
    reasons = []
    if not trace.kind("fault"):
        reasons.append("no fault was injected")
    if not any(event.f.get("ph") == "ok" for event in trace.kind("op")):
        reasons.append("no operation was answered")
    if not trace.kind("commit"):
        reasons.append("nothing was committed")
    gaps = sorted({facts.life[0] for facts in trace.lives.values() if facts.gap})
    if gaps:
        reasons.append(f"events of {', '.join(gaps)} are missing")
    return reasons
