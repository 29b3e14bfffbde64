"""A cut link is silent.

Owns: the proof that what chaos says it cut carried nothing.  Must not know: how cuts are made.
"""

from __future__ import annotations

from chaos.trace.checkers.base import Finding, Verdict
from chaos.trace.events import FLUSH_MS, Event, Trace


def full_cuts(trace: Trace) -> list[tuple[Event, Event | None]]:
    """Every fault that silences a stream wholly, with its heal if it was told."""
    heals = {event.text("id"): event for event in trace.kind("heal")}
    return [
        (fault, heals.get(fault.text("id")))
        for fault in trace.kind("fault")
        if fault.f.get("kind") == "timeout"
        and fault.part("args").get("timeout") == 0
        and fault.part("args").get("toxicity") in (1, 1.0)
    ]


def link_cut_silent(trace: Trace) -> Finding:
    """Between fault and heal not one byte is forwarded, and no message sent after the cut arrives before the heal."""
    verdict = Verdict("link-cut-silent")
    cuts = full_cuts(trace)
    if not cuts:
        return verdict.finding("no link was cut")
    received = {event.text("m"): event for event in trace.kind("recv")}
    sent: dict[tuple[str, str], list[Event]] = {}
    for event in trace.kind("send"):
        sent.setdefault((event.n, event.text("to")), []).append(event)
    for fault, heal in cuts:
        if heal is None:
            verdict.unknown(f"the heal of {fault.text('target')} is not in the trace")
            continue
        verdict.checked += 1
        before = fault.part("counters").get("bytes_forwarded")
        after, since = (heal.part("counters").get(name) for name in ("bytes_forwarded", "bytes_since_fault"))
        if not all(isinstance(each, int) for each in (before, after, since)):
            verdict.violated(f"the counters of the cut of {fault.text('target')} are missing", fault, heal)
        elif since != 0 or after != before:
            verdict.violated(f"{since} bytes crossed {fault.text('target')} while it was cut", fault, heal)
        if fault.part("by").get("stream") == "upstream":
            _check_messages(verdict, fault, heal, sent, received)
    return verdict.finding("no link was cut")


def _check_messages(
    verdict: Verdict,
    fault: Event,
    heal: Event,
    sent: dict[tuple[str, str], list[Event]],
    received: dict[str, Event],
) -> None:
    """Compare message ids; clocks of different machines may differ by up to the margin."""
    source, _, target = fault.text("target").partition("~")
    for send in sent.get((source, target), []):
        arrived = received.get(send.text("m"))
        if arrived is None or not fault.ms + FLUSH_MS < send.ms:
            continue
        if send.ms < heal.ms - FLUSH_MS:
            verdict.checked += 1
            if arrived.ms < heal.ms - FLUSH_MS:
                verdict.violated(
                    f"a message from {source} reached {target} through their cut link", fault, send, arrived
                )
