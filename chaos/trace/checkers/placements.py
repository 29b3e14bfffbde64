"""Capacity, ports, one binding an attempt, the same state on every replica, no run without a placement.

Owns: the scheduler's promises, as every replica's applied changes show them.
Must not know: how placements are chosen.
"""

from __future__ import annotations

from itertools import islice

from chaos.trace.checkers.base import REFS_MAX, Finding, Verdict
from chaos.trace.checkers.snapshots import AppliedRanges, installs
from chaos.trace.events import Event, Life, Trace

RESOURCES = ("cpu_millicores", "memory_bytes", "pids")


def _applied_streams(trace: Trace, *kinds: str) -> dict[Life, list[Event]]:
    """The changes that each life applied, in its own order; lives with gaps are left out.

    Whose state was replaced applies entries again: from there on it counts as another life.
    """
    streams: dict[Life, list[Event]] = {}
    replaced = {event.ref: event for events in installs(trace).values() for event in events}
    now: dict[Life, Life] = {}
    for event in trace.kind(*kinds, *(["disk"] if replaced else [])):
        life = (event.n, event.inc)
        if event.k == "disk":
            if event.ref in replaced:
                now[life] = (event.n, f"{event.inc}#{event.i}")
        elif event.number("index") > 0 and not trace.lives[life].gap:
            streams.setdefault(now.get(life, life), []).append(event)
    for events in streams.values():
        events.sort(key=lambda e: e.i)
    return streams


def _longest_views(trace: Trace, *kinds: str) -> list[tuple[Life, list[Event]]]:
    """Every life's view, complete from index 1 to where it ends, or takes a snapshot for what it did not see."""
    views = _applied_streams(trace, *kinds).items()
    return sorted((life, events) for life, events in views if "#" not in life[1])


class _Node:
    """What one node offers and what is booked on it."""

    def __init__(self) -> None:
        self.capacity: dict[str, int] = {}
        self.registered: Event | None = None
        self.booked: dict[str, Event] = {}
        self.totals = dict.fromkeys(RESOURCES, 0)
        self.ports: dict[int, Event] = {}

    def register(self, event: Event) -> None:
        """It offers this much from now on."""
        self.capacity = {key: value for key, value in event.part("capacity").items() if isinstance(value, int)}
        self.registered = event

    def book(self, event: Event) -> None:
        """An attempt takes its requests and ports."""
        self.release(event)
        self.booked[_attempt(event)] = event
        self._add(event, 1)
        for port in _ports(event):
            self.ports[port] = event

    def release(self, event: Event) -> None:
        """An attempt gives back what it booked."""
        booked = self.booked.pop(_attempt(event), None)
        if booked is not None:
            self._add(booked, -1)
            for port in _ports(booked):
                if self.ports.get(port) is booked:
                    del self.ports[port]

    def _add(self, event: Event, sign: int) -> None:
        requests = event.part("requests")
        for resource in RESOURCES:
            value = requests.get(resource, 0)
            self.totals[resource] += sign * value if isinstance(value, int) else 0


def _ports(event: Event) -> list[int]:
    found = event.f.get("ports")
    ports = (
        [p[-1] if isinstance(p, list | tuple) and p else p for p in found] if isinstance(found, list | tuple) else []
    )
    return [port for port in ports if isinstance(port, int)]


def _attempt(event: Event) -> str:
    return f"{event.text('allocation')}@{event.number('attempt')}"


def capacity(trace: Trace) -> Finding:
    """At every committed index the requests on a node fit its capacity, and a port is taken once."""
    verdict = Verdict("capacity")
    for life, events in _longest_views(trace, "place", "node"):
        nodes: dict[str, _Node] = {}
        for event in events:
            node = nodes.setdefault(event.text("node"), _Node())
            if event.k == "node":
                node.register(event)
            elif event.f.get("do") == "release":
                node.release(event)
            elif event.f.get("do") == "bind":
                verdict.checked += 1
                _check_ports(verdict, node, event)
                node.book(event)
                _check_fit(verdict, life[0], node, event)
    return verdict.finding("nothing was placed")


def _check_fit(verdict: Verdict, seen_by: str, node: _Node, event: Event) -> None:
    if node.registered is None:
        verdict.violated(
            f"{event.text('allocation')} was placed on {event.text('node')}, which never registered", event
        )
        return
    for resource, asked in node.totals.items():
        offered = node.capacity.get(resource)
        if offered is not None and asked > offered:
            others = [other for other in islice(node.booked.values(), REFS_MAX) if other is not event]
            verdict.violated(
                f"{event.text('node')} is over capacity at index {event.number('index')} (as applied by {seen_by}): "
                f"{resource} {asked} of {offered}",
                node.registered,
                event,
                *others,
            )
            return


def _check_ports(verdict: Verdict, node: _Node, event: Event) -> None:
    for port in _ports(event):
        other = node.ports.get(port)
        if other is not None and _attempt(other) != _attempt(event):
            verdict.violated(f"port {port} of {event.text('node')} is booked twice", other, event)


def one_bind_per_attempt(trace: Trace) -> Finding:
    """An attempt of an allocation is bound to one node, at one index, once.

    An attempt on a node that was declared lost stays booked there, and another may be bound in front of it.  A job that
    was collected begins anew, if it is submitted again.
    """
    verdict = Verdict("one-bind-per-attempt")
    for _, events in _longest_views(trace, "place", "node", "job"):
        bound: dict[str, Event] = {}
        live: dict[str, Event] = {}
        for event in events:
            if event.k == "job":
                if event.f.get("do") == "collect":
                    bound = {name: each for name, each in bound.items() if each.text("job") != event.text("job")}
                continue
            allocation, attempt = event.text("allocation"), _attempt(event)
            if event.k == "node":
                if event.f.get("do") == "lost":
                    live = {name: each for name, each in live.items() if each.text("node") != event.text("node")}
                continue
            if event.f.get("do") == "release" and allocation in live and _attempt(live[allocation]) == attempt:
                del live[allocation]
            if event.f.get("do") != "bind":
                continue
            verdict.checked += 1
            if attempt in bound:
                verdict.violated(f"{attempt} was bound twice", bound[attempt], event)
            elif allocation in live:
                verdict.violated(f"{allocation} was bound again while an attempt is booked", live[allocation], event)
            bound[attempt] = live[allocation] = event
    return verdict.finding("nothing was placed")


def applied_alike(trace: Trace) -> Finding:
    """Every replica makes the same changes at the same index (state machine safety, §5.4.3)."""
    verdict = Verdict("applied-alike")
    first_seen: dict[int, tuple[Life, list[Event]]] = {}
    streams = _applied_streams(trace, "place", "node", "job")
    ends = {life: max(event.number("index") for event in events) for life, events in streams.items()}
    for life, events in sorted(streams.items()):
        by_index: dict[int, list[Event]] = {}
        for event in events:
            by_index.setdefault(event.number("index"), []).append(event)
        for index, mine in by_index.items():
            other, theirs = first_seen.setdefault(index, (life, mine))
            if other == life:
                continue
            verdict.checked += 1
            # of the last index that a life wrote it may have written a part only
            partial = index in (ends[life], ends[other])
            _compare(verdict, index, theirs, mine, tolerant=partial)
    return verdict.finding("no index was applied twice")


def _compare(verdict: Verdict, index: int, one: list[Event], two: list[Event], *, tolerant: bool) -> None:
    for a, b in zip(one, two, strict=False):
        if a.k != b.k or a.f != b.f:
            verdict.violated(f"{a.n} and {b.n} applied different changes at index {index}", a, b)
            return
    if len(one) != len(two) and not tolerant:
        verdict.violated(f"{one[0].n} and {two[0].n} applied a different number of changes at {index}", one[0], two[0])


def run_was_placed(trace: Trace) -> Finding:
    """A node starts only what was committed to it, under the epoch of that placement."""
    verdict = Verdict("run-was-placed")
    bound: dict[tuple[str, int], Event] = {}
    applied = AppliedRanges(trace)
    for event in trace.kind("place"):
        if event.f.get("do") == "bind":
            bound.setdefault((event.text("allocation"), event.number("epoch")), event)
    for event in trace.kind("run"):
        if event.f.get("do") not in ("start", "began"):
            continue
        epoch = event.number("epoch")
        placement = bound.get((event.text("allocation"), epoch))
        if placement is None:
            if not applied.by_any(epoch):
                verdict.unknown(f"no replica's trace tells what index {epoch} did")
                continue
            verdict.checked += 1
            verdict.violated(
                f"{event.n} ran {event.text('allocation')} under epoch {epoch}, which bound nothing", event
            )
            continue
        verdict.checked += 1
        if placement.text("node") != event.n:
            verdict.violated(
                f"{event.n} ran {event.text('allocation')}, which was placed on {placement.text('node')}",
                placement,
                event,
            )
    return verdict.finding("nothing ran")
