"""What callers were told, what was placed, what ran, and what ended how.

Owns: sentences about operations, placements and workloads.  Must not know: consensus.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import Counter

from chaos.trace.checkers.acknowledged import WRITES, acknowledged_index
from chaos.trace.events import Event, Trace
from chaos.trace.story.sentence import Told, counted, listed, span, tell

GAP_MS = 100
"""A pause shorter than this is not told."""
AFTER_FAULT_MS = 30_000
"""A pause that ends later than this after a fault is not blamed on it."""


def answers(trace: Trace) -> list[Told]:
    """How many writes were asked for, and what became of them."""
    outcome: dict[str, Event] = {}
    asked: dict[str, Event] = {}
    was_unknown: set[str] = set()
    for event in trace.kind("op"):
        id, phase = event.text("id"), event.f.get("ph")
        if event.f.get("op") not in WRITES:
            continue
        asked.setdefault(id, event)
        if phase == "info":
            was_unknown.add(id)
        known = outcome.get(id)
        if phase == "ok" and (known is None or known.f.get("ph") != "ok"):
            outcome[id] = event
        elif phase in ("fail", "info"):
            outcome.setdefault(id, event)
    if not asked:
        return []
    kinds = Counter(str(event.f.get("ph")) for event in outcome.values())
    codes = Counter(e.text("code") or "no code" for e in outcome.values() if e.f.get("ph") == "fail")
    refusals = f" ({', '.join(f'{code} {count}' for code, count in sorted(codes.items()))})" if codes else ""
    text = (
        f"{counted(len(asked), 'write')} {'was' if len(asked) == 1 else 'were'} asked for: {kinds['ok']} acknowledged, "
        f"{kinds['fail']} refused as certainly not done{refusals}, {kinds['info']} left with an unknown outcome"
    )
    resolved = [id for id in was_unknown if outcome.get(id) is not None and outcome[id].f.get("ph") == "ok"]
    if resolved:
        text += f"; of those acknowledged, {len(resolved)} had been unknown to one of their callers at first"
    last = max(outcome.values() or asked.values(), key=lambda e: e.hlc)
    shown = [event for event in outcome.values() if event.f.get("ph") != "ok"][:10]
    oks = [event for event in outcome.values() if event.f.get("ph") == "ok"]
    return [tell(trace.events[-1], text + ".", [*oks[:1], *oks[-1:], *shown, last], rank=1)]


def pauses(trace: Trace) -> list[Told]:
    """The longest time around each fault in which writes were asked for and none was acknowledged."""
    writes = [e for e in trace.kind("op") if e.f.get("op") in WRITES]
    oks = [e for e in writes if e.f.get("ph") == "ok" and acknowledged_index(e) > 0]
    asked = [e for e in writes if e.f.get("ph") == "invoke"]
    told: list[Told] = []
    reported: set[str] = set()
    for fault in trace.kind("fault"):
        gap = _longest_gap(fault, oks, asked)
        if gap is None or gap[1].ms - gap[0].ms < GAP_MS or gap[1].ref in reported:
            continue
        begin, end, before, count = gap
        reported.add(end.ref)
        text = f"For {span(begin, end)} no write was acknowledged, though {counted(count, 'request')} asked for one"
        if before is not None:
            text += f"; the last before was {before.text('id')} at index {acknowledged_index(before)}"
        text += f", the next {end.text('id')} at index {acknowledged_index(end)}."
        told.append(tell(end, text, [begin, *([before] if before is not None else []), end]))
    return told


def _longest_gap(fault: Event, oks: list[Event], asked: list[Event]) -> tuple[Event, Event, Event | None, int] | None:
    """(begin, end, last answer before, requests meanwhile): from the first unserved request to the next answer."""
    first = bisect_right(oks, fault.hlc, key=lambda e: e.hlc)
    until = bisect_right(oks, fault.hlc + (AFTER_FAULT_MS << 16), key=lambda e: e.hlc)
    best: tuple[Event, Event, Event | None, int] | None = None
    for position in range(first, until):
        before = oks[position - 1] if position else None
        low = bisect_right(asked, before.hlc if before is not None else fault.hlc, key=lambda e: e.hlc)
        high = bisect_left(asked, oks[position].hlc, key=lambda e: e.hlc)
        if low >= high:
            continue
        begin = asked[low]
        if best is None or oks[position].ms - begin.ms > best[1].ms - best[0].ms:
            best = (begin, oks[position], before, high - low)
    return best


def cut_off_answers(trace: Trace) -> list[Told]:
    """What became of writes that a replica was asked for after a scenario had cut it off, before the heal."""
    heals = {e.text("id"): e for e in trace.kind("heal")}
    told: list[Told] = []
    for fault in trace.kind("fault"):
        heal = heals.get(fault.text("id"))
        if fault.f.get("kind") not in ("partition", "isolate") or heal is None:
            continue
        start, end = _cut_span(trace, fault, heal)
        for node in fault.text("target").split(","):
            sentence = _while_cut_off(trace, node, start, end)
            if sentence is not None:
                told.append(sentence)
    return told


def _cut_span(trace: Trace, fault: Event, heal: Event) -> tuple[Event, Event]:
    """From the last toxic that the fault put into force to the first that was removed."""
    prefix = fault.text("id").partition(":")[0] + "_"
    toxics = [e for e in trace.kind("fault", "heal") if str(e.part("by").get("toxic") or "").startswith(prefix)]
    begun = [e for e in toxics if e.k == "fault"]
    ended = [e for e in toxics if e.k == "heal"]
    return (begun[-1] if begun else fault), (ended[0] if ended else heal)


def _while_cut_off(trace: Trace, node: str, start: Event, end: Event) -> Told | None:
    clients = (f"client-{node}", f"api-{node}")
    during = [
        e
        for e in trace.kind("op")
        if e.f.get("client") in clients and start.hlc < e.hlc < end.hlc and e.f.get("op") in WRITES
    ]
    asked = {e.text("id"): e for e in during if e.f.get("ph") == "invoke"}
    if not asked:
        return None
    fine = {e.text("id"): e for e in during if e.f.get("ph") == "ok" and e.text("id") in asked}
    text = (
        f"While it was cut off, {node} was asked for {counted(len(asked), 'write')} and "
        f"acknowledged {len(fine) or 'none'} of them before the heal."
    )
    return tell(end, text, [start, end, *fine.values(), *asked.values()], rank=-1)


def placements(trace: Trace) -> list[Told]:
    """Where each job's allocations went, one sentence a job; refusals by reason."""
    told: list[Told] = []
    bound: dict[str, dict[tuple[int, str], Event]] = {}
    refused: dict[str, dict[tuple[int, str], Event]] = {}
    for event in trace.kind("place"):
        key = (event.number("index"), f"{event.text('allocation')}@{event.number('attempt')}")
        if event.f.get("do") == "bind":
            bound.setdefault(event.text("job"), {}).setdefault(key, event)
        elif event.f.get("do") == "refuse":
            refused.setdefault(event.text("why"), {}).setdefault(key, event)
    for job, found in bound.items():
        events = sorted(found.values(), key=lambda e: (e.number("index"), e.hlc))
        first, last = events[0], events[-1]
        where = Counter(e.text("node") for e in events)
        if len(events) == 1:
            text = f"{first.text('allocation')} was placed on {first.text('node')} at index {first.number('index')}"
            text += (
                f" by {first.text('by')} ({first.text('why')})." if first.text("why") else f" by {first.text('by')}."
            )
        else:
            spread = listed([f"{node} ({count})" for node, count in sorted(where.items())])
            again = sum(1 for e in events if e.number("attempt") > 1)
            low, high = first.number("index"), last.number("index")
            when = f"at index {low}" if low == high else f"between index {low} and {high}"
            restarted = f"; {counted(again, 'restart')} among them" if again else ""
            text = f"{len(events)} attempts of {job} were placed {when}: {spread}{restarted}."
        told.append(tell(first, text, events))
    for why, found in refused.items():
        events = list(found.values())
        text = f"{counted(len(events), 'placement')} {'was' if len(events) == 1 else 'were'} refused at apply: {why}."
        told.append(tell(events[0], text, events))
    return told


def workloads(trace: Trace) -> list[Told]:
    """Workloads killed for memory, adopted ones, and how the others ended."""
    told: list[Told] = []
    starts: dict[tuple[str, int], Event] = {}
    for event in trace.kind("run"):
        if event.f.get("do") == "start":
            starts.setdefault((event.text("allocation"), event.number("epoch")), event)
    told += _ooms(trace, starts)
    for event in trace.kind("run"):
        if event.f.get("do") != "adopt":
            continue
        start = starts.get((event.text("allocation"), event.number("epoch")))
        since = f", running for {span(start, event)} by then" if start is not None else ""
        text = f"The agent of {event.n} adopted {event.text('allocation')} (pid {event.f.get('pid')}){since}."
        told.append(tell(event, text, [start, event] if start is not None else [event]))
    return told + _exits(trace)


def _is_oom(event: Event) -> bool:
    return event.f.get("do") == "oom" or event.part("exit").get("reason") == "oom"


def _ooms(trace: Trace, starts: dict[tuple[str, int], Event]) -> list[Told]:
    """One sentence an allocation: the first kill, how often in all, and whether it ran again."""
    kills: dict[str, dict[int, Event]] = {}
    for event in trace.kind("run"):
        if _is_oom(event):
            kills.setdefault(event.text("allocation"), {}).setdefault(event.number("epoch"), event)
    told: list[Told] = []
    for allocation, found in kills.items():
        events = list(found.values())
        first = events[0]
        times = f" {len(events)} times" if len(events) > 1 else ""
        where = listed(sorted({event.n for event in events}))
        text = f"{allocation} was killed{times} on {where} for passing its memory limit"
        again = [e for (name, _), e in starts.items() if name == allocation and e.hlc > first.hlc]
        if again:
            text += f"; attempt {again[0].number('attempt')} started {span(first, again[0])} after the first kill"
        told.append(tell(first, text + ".", [*events, *again[:1]]))
    return told


def _exits(trace: Trace) -> list[Told]:
    """How the workloads of each job ended, one sentence a job and reason."""
    ends: dict[tuple[str, str], dict[tuple[str, int], Event]] = {}
    for event in trace.kind("run"):
        if event.f.get("do") != "exit" or _is_oom(event):
            continue
        result = event.part("exit")
        reason = str(result.get("reason") or "unknown")
        if reason == "exited" and isinstance(result.get("code"), int):
            reason = f"exited with code {result['code']}"
        if result.get("status_known") is False:
            reason += ", exit status unknown"
        job = event.text("allocation").rpartition(".")[0]
        ends.setdefault((job, reason), {}).setdefault((event.text("allocation"), event.number("epoch")), event)
    told = []
    for (job, reason), found in ends.items():
        events = list(found.values())
        text = f"{counted(len(events), 'attempt')} of {job} ended: {reason}."
        told.append(tell(events[-1], text, events))
    return told
