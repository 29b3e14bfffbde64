"""What lasts: roles, absences, workloads, operations.

Owns: turning pairs of events into spans on a lane, and into rows where they overlap.
Must not know: the page, messages, faults of links.
"""

from __future__ import annotations

import heapq
from itertools import pairwise
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from chaos.trace.events import Event, Life, Trace
from chaos.view.lanes import Lane

ROWS_MAX = 24
STARTING = "starting"


class Bar(Struct, frozen=True):
    """A span on a lane, in microseconds of the axis.

    `first`, `last`: places in the trace of the events that open and close it; -1 = none.
    """

    lane: int
    start: int
    end: int
    what: str
    first: int
    last: int
    label: str = ""
    row: int = 0
    number: int = 0


class Timeline:
    """The trace with its axis and lane numbers: what every maker of bars reads."""

    def __init__(self, trace: Trace, lanes: list[Lane], axis: list[int]) -> None:
        self.trace = trace
        self.lanes = lanes
        self.axis = axis
        self.end = max(axis, default=0)
        self.number = {lane.name: number for number, lane in enumerate(lanes)}
        self.place = {id(event): at for at, event in enumerate(trace.events)}
        self.heals = {event.text("id"): event for event in reversed(trace.kind("heal"))}
        self.of_life: dict[Life, list[Event]] = {}
        for event in trace.events:
            self.of_life.setdefault((event.n, event.inc), []).append(event)

    def at(self, event: Event | None) -> int:
        """Its place in the trace; -1 for None."""
        return -1 if event is None else self.place[id(event)]

    def us(self, event: Event) -> int:
        """Its place on the axis."""
        return self.axis[self.place[id(event)]]

    def lane_of(self, target: str) -> int:
        """The lane of a fault's target (``n1``, ``a1.sandboxer``); -1 if there is none."""
        head = target.replace(":", ".").replace("/", ".").partition(".")[0]
        return self.number.get(target, self.number.get(head, -1))

    def life_end_us(self, life: Life) -> int:
        """Where a life ends: with its last event, or later with its kill."""
        last = max(self.us(event) for event in self.of_life[life])
        for fault in self.trace.kind("fault"):
            if fault.text("kind") == "kill" and fault.hlc == self.trace.lives[life].killed_hlc:
                last = max(last, self.us(fault))
        return last


def roles(line: Timeline) -> list[Bar]:
    """Role and term of every replica, through all its lives."""
    found: list[Bar] = []
    for life, events in line.of_life.items():
        lane = line.number[life[0]]
        if line.lanes[lane].kind == "replica":
            found += _roles_of_life(line, lane, events, line.life_end_us(life))
    return sorted(found, key=lambda bar: (bar.start, bar.lane))


def _roles_of_life(line: Timeline, lane: int, events: list[Event], end: int) -> list[Bar]:
    """A term that rises without a role event (a grant, an append) starts a new span of the same role."""
    found: list[Bar] = []
    open_ = Bar(lane, line.us(events[0]), end, STARTING, line.at(events[0]), -1, number=0)
    for event in events:
        role, term = open_.what, max(event.number("term"), open_.number)
        if event.k == "role":
            role, term = event.text("role") or STARTING, max(event.number("term"), 0)
        elif event.k not in ("append", "commit"):
            continue
        if (role, term) == (open_.what, open_.number):
            continue
        if line.us(event) > open_.start:
            found.append(replace(open_, end=line.us(event), last=line.at(event)))
        open_ = Bar(lane, line.us(event), end, role, line.at(event), -1, number=term)
    return [*found, open_]


def absences(line: Timeline) -> list[Bar]:
    """Who was killed or paused by chaos, which replica was away between two lives, which node was declared lost."""
    found = _declared_lost(line)
    for fault in line.trace.kind("fault"):
        lane = line.lane_of(fault.text("target"))
        if fault.text("kind") in ("kill", "pause") and lane >= 0:
            heal = line.heals.get(fault.text("id"))
            end = line.us(heal) if heal is not None else line.end
            found.append(Bar(lane, line.us(fault), end, fault.text("kind"), line.at(fault), line.at(heal)))
    for number, replica in enumerate(line.lanes):
        if replica.kind != "replica":
            continue
        lives = [events for life, events in line.of_life.items() if life[0] == replica.name]
        for before, after in pairwise(sorted(lives, key=lambda events: events[0].hlc)):
            start, end = line.us(before[-1]), line.us(after[0])
            found.append(Bar(number, start, max(start, end), "away", line.at(before[-1]), line.at(after[0])))
    return sorted(found, key=lambda bar: (bar.start, bar.lane))


def _declared_lost(line: Timeline) -> list[Bar]:
    """From the first replica's word that a node is lost to the first word of its return."""
    found: list[Bar] = []
    lost: dict[str, Event] = {}
    for event in line.trace.kind("node"):
        node = event.text("node")
        if event.text("do") == "lost" and node in line.number:
            lost.setdefault(node, event)
        elif node in lost and event.number("index") > lost[node].number("index"):
            start = lost.pop(node)
            found.append(Bar(line.number[node], line.us(start), line.us(event), "lost", line.at(start), line.at(event)))
    found += [Bar(line.number[node], line.us(e), line.end, "lost", line.at(e), -1) for node, e in lost.items()]
    return found


def workloads(line: Timeline) -> list[Bar]:
    """Every attempt that ran, as its node saw it: from start (or adoption) to exit."""
    open_: dict[tuple[str, str, int], tuple[Event, str]] = {}
    made: list[Bar] = []
    for event in line.trace.kind("run"):
        key, do = (event.n, event.text("allocation"), event.number("epoch")), event.text("do")
        if do in ("start", "adopt"):
            open_.setdefault(key, (event, ""))
        elif key in open_ and do in ("oom", "fenced", "stop"):
            started, why = open_[key]
            open_[key] = (started, why if why in ("oom", "fenced") else {"stop": "stopped"}.get(do, do))
        elif key in open_ and do == "exit":
            started, why = open_.pop(key)
            made.append(_ran(line, started, event, why or _end_of(event.part("exit"))))
    made += [_ran(line, started, None, why or "running") for started, why in open_.values()]
    return _in_rows(made)


def _ran(line: Timeline, started: Event, ended: Event | None, what: str) -> Bar:
    start, end = line.us(started), line.us(ended) if ended is not None else line.end
    label, number = started.text("allocation"), started.number("attempt")
    lane = line.number[started.n]
    return Bar(lane, start, max(start, end), what, line.at(started), line.at(ended), label, number=number)


def _end_of(exit_: dict[str, Any]) -> str:
    """``ok``, ``failed``, ``oom``, ``lost`` …"""
    reason = exit_.get("reason")
    if not exit_.get("status_known"):
        return "lost"
    if isinstance(reason, str) and reason not in ("exited", "signaled"):
        return reason
    return "ok" if exit_.get("code") == 0 else "failed"


_PHASES = {"ok": "acked", "fail": "refused", "info": "unknown"}


def operations(line: Timeline) -> list[Bar]:
    """What callers asked for and were told; what nobody answered is unknown."""
    asked: dict[tuple[str, str], Event] = {}
    made: list[Bar] = []
    for event in line.trace.kind("op"):
        lane = line.number[event.n]
        if line.lanes[lane].kind != "client":
            continue
        key = (event.n, event.text("id"))
        if event.f.get("ph") == "invoke":
            asked.setdefault(key, event)
        elif key in asked:
            start = asked.pop(key)
            made.append(_asked(line, lane, start, event))
    made += [_asked(line, line.number[event.n], event, None) for event in asked.values()]
    return _in_rows(made)


def _asked(line: Timeline, lane: int, asked: Event, told: Event | None) -> Bar:
    end = line.us(told) if told is not None else line.end
    what = _PHASES.get(told.text("ph"), "unknown") if told is not None else "unknown"
    label = f"{asked.text('op')} {asked.text('key')}"
    return Bar(lane, line.us(asked), end, what, line.at(asked), line.at(told), label)


def _in_rows(bars: list[Bar]) -> list[Bar]:
    """Give overlapping bars of a lane different rows; past `ROWS_MAX` they share the last."""
    free: dict[int, list[int]] = {}
    busy: dict[int, list[tuple[int, int]]] = {}
    used: dict[int, int] = {}
    placed = []
    for bar in sorted(bars, key=lambda each: (each.start, each.first)):
        rows, running = free.setdefault(bar.lane, []), busy.setdefault(bar.lane, [])
        while running and running[0][0] <= bar.start:
            heapq.heappush(rows, heapq.heappop(running)[1])
        if rows:
            row = heapq.heappop(rows)
        else:
            row = used.get(bar.lane, 0)
            used[bar.lane] = row + 1
        heapq.heappush(running, (bar.end, row))
        placed.append(replace(bar, row=min(row, ROWS_MAX - 1)))
    return placed
