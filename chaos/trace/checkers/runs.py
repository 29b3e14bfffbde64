"""At most one process, and nothing stopped without an order.

Owns: what the nodes' own events must not show.  Must not know: how leases are kept.
"""

from __future__ import annotations

from chaos.trace.checkers.base import Finding, Verdict
from chaos.trace.events import Event, Trace
from chaos.trace.faults import Affliction, beyond_promise
from chaos.trace.runs import Attempt, attempts, meetings, overlap_ms

ORDERED_END = "sandboxer stops its workloads"
"""What a sandboxer writes before it stops everything because it was told to end."""
GIVEN = ("grant", "renew")
STOPPING_JOB = ("submit", "stop", "collect")
STOPPING_NODE = ("lost", "state")
EVICTING = ":NoExecute"
"""How a taint ends that stops what runs and does not tolerate it."""


def at_most_one_process(trace: Trace) -> Finding:
    """No two attempts of an allocation run at once, unless its job said that it keeps running without a lease."""
    verdict = Verdict("at-most-one-process")
    for older, newer in meetings(trace):
        if older.keeps:
            continue
        both = overlap_ms(older, newer)
        if older.ended is None and not older.certain:
            verdict.unknown(f"the end of {older.allocation} epoch {older.epoch} on {older.node} is not in the trace")
            continue
        beyond = _beyond(trace, older, newer) if both else None
        if beyond is not None:
            verdict.unknown(f"{older.allocation} ran twice at once under {beyond.kind}: beyond what is promised")
            continue
        verdict.checked += 1
        if both:
            shown = [event for event in (older.started, newer.started, older.ended) if event is not None]
            verdict.violated(
                f"{older.allocation} ran on {older.node} (epoch {older.epoch}) and on {newer.node} "
                f"(epoch {newer.epoch}) at once, for {both} ms",
                *shown,
            )
    if verdict.checked == 0:
        verdict.checked = sum(1 for found in attempts(trace).values() if len(found) == 1)
    return verdict.finding("nothing ran")


def _beyond(trace: Trace, older: Attempt, newer: Attempt) -> Affliction | None:
    """What took the promise away (DESIGN.md §6): of the older one's node, or of whoever may have declared it lost."""
    return beyond_promise(trace, (older.node, *trace.voters), older.start_ms / 1000, newer.start_ms / 1000)


def absence_never_stops(trace: Trace) -> Finding:
    """A node stops a workload only by a committed order, its lease's end, or its sandboxer's ordered end."""
    verdict = Verdict("absence-never-stops")
    orders = _orders(trace)
    expired: dict[str, Event] = {}
    ends = [event for event in trace.kind("note") if event.text("text") == ORDERED_END]
    reached = max((event.number("index") for event in trace.kind("apply")), default=0)
    for event in trace.kind("run", "lease"):
        if event.k == "lease":
            _note_lease(event, expired)
            continue
        if event.f.get("do") not in ("stop", "fenced"):
            continue
        ordered = event.f.get("do") == "stop" and (_ordered(event, orders) or _leaves(event, ends))
        if ordered or event.n in expired:
            verdict.checked += 1
            continue
        if trace.lives[event.n, event.inc].gap:
            verdict.unknown(f"the trace of {event.n} has gaps")
            continue
        verdict.checked += 1
        verdict.violated(
            f"{event.n} ended {event.text('allocation')} (epoch {event.number('epoch')}), and up to index {reached} "
            "nothing was committed that orders it, nor had its lease run out",
            event,
        )
    return verdict.finding("nothing was stopped")


def _note_lease(event: Event, expired: dict[str, Event]) -> None:
    """Keep `expired` the nodes whose lease has run out and was not given anew, by whom and when.

    Agent and sandboxer tell without hearing each other, so within a millisecond their order says nothing: what the
    sandboxer ends at that moment it ends for the lease that ran out.
    """
    if event.f.get("do") == "expire":
        expired[event.n] = event
    elif is_given(event) and event.n in expired and event.ms > expired[event.n].ms:
        del expired[event.n]


def is_given(event: Event) -> bool:
    """Whether a lease is given that lasts: a confirmation may come too late to be worth anything."""
    left_ms = event.f.get("left_ms", 1)
    return event.f.get("do") in GIVEN and isinstance(left_ms, int) and left_ms > 0


def _orders(trace: Trace) -> dict[str, list[Event]]:
    """Committed changes that may order a stop: by job and by node."""
    found: dict[str, list[Event]] = {}
    for event in trace.kind("job"):
        if event.f.get("do") in STOPPING_JOB and event.f.get("outcome") != "unchanged":
            found.setdefault(f"job {event.text('job')}", []).append(event)
    for event in trace.kind("node"):
        evicts = any(str(taint).endswith(EVICTING) for taint in event.f.get("taints") or ())
        if event.f.get("do") in STOPPING_NODE or evicts:
            found.setdefault(f"node {event.text('node')}", []).append(event)
    for event in trace.kind("place"):
        if event.f.get("do") == "bind":
            found.setdefault(f"allocation {event.text('allocation')}", []).append(event)
    return found


def _ordered(stop: Event, orders: dict[str, list[Event]]) -> bool:
    """Whether something committed after the placement, and told before the stop, accounts for it."""
    allocation, epoch = stop.text("allocation"), stop.number("epoch")
    job = allocation.rpartition(".")[0]
    wanted = [f"job {job}", f"node {stop.n}", f"allocation {allocation}"]
    told = [event for key in wanted for event in orders.get(key, [])]
    return any(event.number("index") > epoch and event.hlc <= stop.hlc for event in told)


def _leaves(stop: Event, ends: list[Event]) -> bool:
    """Whether the sandboxer of this life had been told to end before."""
    return any((end.n, end.inc) == (stop.n, stop.inc) and end.i < stop.i for end in ends)
