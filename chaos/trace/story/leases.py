"""Leases that ran out, nodes declared lost, and who took over.

Owns: sentences about `lease` events and replaced attempts.  Must not know: how leases are kept.
"""

from __future__ import annotations

from chaos.trace.events import Event, Trace
from chaos.trace.runs import Attempt, gap_ms, overlap_ms, successions
from chaos.trace.story.sentence import Told, counted, span, tell


def expiries(trace: Trace) -> list[Told]:
    """A lease's end as the node's own sandboxer saw it, and what it fenced then."""
    told: list[Told] = []
    for event in trace.kind("lease"):
        if event.f.get("do") != "expire":
            continue
        fenced = [
            e for e in trace.kind("run") if e.n == event.n and e.f.get("do") == "fenced" and abs(e.ms - event.ms) < 1000
        ]
        number = event.number("fenced") if event.number("fenced") >= 0 else len(fenced)
        text = f"The lease of {event.n} ran out there: it fenced {counted(number, 'workload')} by itself."
        told.append(tell(event, text, [event, *fenced]))
    return told


def losses(trace: Trace) -> list[Told]:
    """Nodes that the leader gave up, and how long it had not heard them."""
    told: list[Told] = []
    seen: set[tuple[str, int]] = set()
    orders = [e for e in trace.kind("lease") if e.f.get("do") == "lost"]
    for event in trace.kind("node"):
        key = (event.text("node"), event.number("index"))
        if event.f.get("do") != "lost" or key in seen:
            continue
        seen.add(key)
        before = [e for e in orders if e.text("node") == key[0] and e.hlc <= event.hlc]
        text = f"Node {key[0]} was declared lost at index {key[1]}"
        if before and before[-1].number("silent_ms") >= 0:
            text += f" by {before[-1].n}, which had not heard it for {before[-1].number('silent_ms')} ms"
        told.append(tell(event, text + ".", [event, *before[-1:]]))
    return told


def takeovers(trace: Trace) -> list[Told]:
    """Attempts that went on elsewhere, node by node: the gap, or the overlap."""
    groups: dict[tuple[str, str], list[tuple[Attempt, Attempt]]] = {}
    for older, newer in successions(trace):
        if older.node != newer.node:
            groups.setdefault((older.node, older.allocation.rpartition(".")[0]), []).append((older, newer))
    return [_takeover(node, job, pairs) for (node, job), pairs in groups.items()]


def _takeover(node: str, job: str, pairs: list[tuple[Attempt, Attempt]]) -> Told:
    first = pairs[0][1].started
    names = ", ".join(sorted({newer.node for _, newer in pairs}))
    text = f"{counted(len(pairs), 'allocation')} of {job} went on from {node} to {names}"
    gaps = [gap for older, newer in pairs if (gap := gap_ms(older, newer)) is not None]
    both = sum(overlap_ms(older, newer) for older, newer in pairs)
    if both:
        text += f"; both ran at once for {both} ms together"
    elif gaps:
        text += f", at least {min(gaps)} ms after the old process had ended"
    refs: list[Event] = []
    for older, newer in pairs:
        refs += [event for event in (older.ended or older.started, newer.started) if event is not None]
    last = max((newer.started for _, newer in pairs), key=lambda e: e.hlc)
    took = f" (all within {span(first, last)})" if len(pairs) > 1 else ""
    return tell(first, f"{text}{took}.", refs, rank=1)
