"""What ran on the nodes, against what was placed, reported and freed.

Owns: capacity as processes take it, capacity freed by exits alone, nothing left running.
Must not know: leases, or how nodes run anything.

Where a simulated kernel tells its own truth, that counts (`run` do=began, do=ended of the main process, do=emptied of
the last); elsewhere what the sandboxer saw (do=start and do=exit).
"""

from __future__ import annotations

from typing import Any

from chaos.trace.checkers.base import Finding, Verdict
from chaos.trace.events import Event, Trace
from chaos.trace.faults import afflictions
from chaos.trace.runs import powered_off

RESOURCES = ("cpu_millicores", "memory_bytes", "pids")
Attempt = tuple[str, int]
"""(allocation, epoch)."""


def attempt_of(event: Event) -> Attempt:
    """Which attempt a `run` or `place` event is about."""
    return event.text("allocation"), event.number("epoch")


def truth(trace: Trace) -> tuple[str, str]:
    """(what a beginning is called, what an end is called) by whoever knows best in this trace."""
    told = any(event.f.get("do") == "began" for event in trace.kind("run"))
    return ("began", "emptied") if told else ("start", "exit")


def capacity_on_nodes(trace: Trace) -> Finding:
    """What really runs on a node fits what it offers, at every moment."""
    verdict = Verdict("capacity-on-nodes")
    begin, end = trace.derive(truth)
    offers: dict[str, dict[str, int]] = {}
    asks: dict[Attempt, dict[str, Any]] = {}
    running: dict[str, dict[Attempt, Event]] = {}
    off = {id(fault): node for node, faults in trace.derive(powered_off).items() for fault in faults}
    for event in trace.kind("node", "place", "run", "fault"):
        if event.k == "node":
            offered = offers.setdefault(event.text("node"), {})
            for name, value in event.part("capacity").items():
                offered[name] = max(offered.get(name, 0), value)
        elif event.k == "place":
            if event.f.get("do") == "bind":
                asks.setdefault(attempt_of(event), event.part("requests"))
        elif event.k == "fault":
            if id(event) in off:
                running.pop(off[id(event)], None)
        elif event.f.get("do") == end:
            running.get(event.n, {}).pop(attempt_of(event), None)
        elif event.f.get("do") == begin:
            mine = running.setdefault(event.n, {})
            mine[attempt_of(event)] = event
            if trace.lives[event.n, event.inc].gap:
                verdict.unknown(f"the trace of {event.n} has gaps")
                continue
            verdict.checked += 1
            _check_fit(verdict, event, mine, offers.get(event.n, {}), asks)
    return verdict.finding("nothing ran")


def _check_fit(
    verdict: Verdict,
    event: Event,
    mine: dict[Attempt, Event],
    offered: dict[str, int],
    asks: dict[Attempt, dict[str, Any]],
) -> None:
    for resource in RESOURCES:
        if resource not in offered:
            continue
        asked = sum(asks.get(attempt, {}).get(resource, 0) for attempt in mine)
        if asked > offered[resource]:
            verdict.violated(
                f"{event.n} runs {resource} {asked} of {offered[resource]}", event, *list(mine.values())[-5:]
            )
            return


ORDER_S = 0.001
"""Kernel, sandboxer and replicas tell without hearing each other at once: within a millisecond their order is open."""


def freed_by_exit(trace: Trace) -> Finding:
    """An attempt's room is freed only when nothing of it runs: after its exit, or with its machine (DESIGN.md §4)."""
    verdict = Verdict("freed-only-by-exit")
    begin, end = trace.derive(truth)
    began: dict[Attempt, Event] = {}
    ended: dict[Attempt, Event] = {}
    freed: dict[Attempt, Event] = {}
    for event in trace.kind("run", "place"):
        if event.f.get("do") == "release":
            freed.setdefault(attempt_of(event), event)
        elif event.k == "run" and event.f.get("do") == end:
            ended[attempt_of(event)] = event
        elif event.k == "run" and event.f.get("do") == begin:
            began[attempt_of(event)] = event
    for attempt, release in freed.items():
        start = began.get(attempt)
        if start is not None:
            _check_freed(verdict, trace, release, start, ended.get(attempt))
    return verdict.finding("nothing that ran was freed")


def _check_freed(verdict: Verdict, trace: Trace, release: Event, start: Event, gone: Event | None) -> None:
    allocation, epoch = attempt_of(release)
    off = trace.derive(powered_off).get(start.n, [])
    if start.t > release.t + ORDER_S:
        verdict.checked += 1
        verdict.violated(f"{allocation} began on {start.n} after its room was freed", release, start)
    elif (gone is not None and gone.t <= release.t + ORDER_S) or any(start.t <= f.t <= release.t for f in off):
        verdict.checked += 1
    elif start.f.get("do") == "start" and not _tells_all(trace, start):
        verdict.unknown(f"the end of {allocation} on {start.n} may be missing")
    else:
        verdict.checked += 1
        told = [start, release] if gone is None else [start, release, gone]
        verdict.violated(
            f"{allocation} (epoch {epoch}) was freed at index {release.number('index')}, and nothing tells that it had "
            f"ended on {start.n}",
            *told,
        )


def _tells_all(trace: Trace, start: Event) -> bool:
    """Whether the sandboxer that started it went on to tell: one that was killed leaves an end to others to report."""
    facts = trace.lives[start.n, start.inc]
    later = any(event.n == start.n and event.f.get("do") == "adopt" for event in trace.kind("run"))
    return not facts.gap and not facts.cut_short and not later


LEASE_S = 10.0
"""The default, where no lease tells its length."""
SETTLES_S = 5.0
"""Beyond two leases: an election, the stop grace, reports and their commits."""
SETTLED = "settles: holds"
"""A simulated run says so when nothing is on its way any more: then there is nothing to wait for."""


def no_orphan(trace: Trace) -> Finding:
    """Two leases and a grace after the last heal nothing runs that is not wanted any more.

    That is: whose room was freed, whose job was stopped, or whose allocation was placed again.
    """
    verdict = Verdict("no-orphan")
    found = trace.derive(afflictions)
    healed_s = max((each.until_s for each in found if each.heal is not None), default=0.0)
    last_s = max((event.t for event in trace.kind("apply", "run", "role")), default=0.0)
    leases_ms = [event.number("lease_ms") for event in trace.kind("lease")]
    settled_s = last_s - 2 * (max(leases_ms, default=0) / 1000 or LEASE_S) - SETTLES_S
    settled = any(event.text("text") == SETTLED for event in trace.kind("note"))
    if healed_s > settled_s and not settled:
        return verdict.finding("the trace ends before the grace after the last heal is over")
    settled_s = last_s if settled else settled_s
    sick = {node for each in found if each.heal is None for node in each.nodes}
    over, running = _Over(), dict[Attempt, Event]()
    begin, end = trace.derive(truth)
    for event in trace.kind("run", "place", "job"):
        if event.k != "run":
            over.take(event)
        elif event.f.get("do") == begin:
            running[attempt_of(event)] = event
        elif event.f.get("do") == end:
            running.pop(attempt_of(event), None)
    off = trace.derive(powered_off)
    for attempt, start in running.items():
        if start.n in sick or any(start.hlc < fault.hlc for fault in off.get(start.n, ())):
            continue
        verdict.checked += 1
        order = over.of(attempt)
        if order is not None and order.t < settled_s:
            verdict.violated(f"{attempt[0]} (epoch {attempt[1]}) still runs on {start.n}", order, start)
    verdict.checked += len(over.freed)
    return verdict.finding("nothing ran")


class _Over:
    """What was committed that ends an attempt."""

    def __init__(self) -> None:
        self.freed: dict[Attempt, Event] = {}
        self._bound: dict[str, Event] = {}
        self._stopped: dict[str, Event] = {}

    def take(self, event: Event) -> None:
        """A change."""
        do = event.f.get("do")
        if event.k == "place" and do == "release":
            self.freed.setdefault(attempt_of(event), event)
        elif event.k == "place" and do == "bind":
            before = self._bound.get(event.text("allocation"))
            if before is None or before.number("epoch") < event.number("epoch"):
                self._bound[event.text("allocation")] = event
        elif event.k == "job" and event.f.get("outcome") == "stopped":
            before = self._stopped.get(event.text("job"))
            if before is None or before.number("index") < event.number("index"):
                self._stopped[event.text("job")] = event

    def of(self, attempt: Attempt) -> Event | None:
        """What ended it, if anything did."""
        allocation, epoch = attempt
        later = [self._bound.get(allocation), self._stopped.get(allocation.rpartition(".")[0])]
        newer = [event for event in later if event is not None and event.number("index") > epoch]
        return self.freed.get(attempt) or (newer[0] if newer else None)
