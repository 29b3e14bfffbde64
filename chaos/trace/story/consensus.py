"""Who led when and why, who stepped down, who came back and how it caught up.

Owns: sentences about replicas.  Must not know: the scheduler.
"""

from __future__ import annotations

import itertools

from chaos.trace.events import Event, LifeFacts, Trace
from chaos.trace.story.sentence import Told, listed, span, tell


def opening(trace: Trace) -> list[Told]:
    """What was recorded."""
    if not trace.events:
        return []
    first, last = trace.events[0], trace.events[-1]
    metas = trace.kind("meta")
    others = sorted({n for n, _ in trace.lives} - set(trace.voters))
    replicas = f"the replicas {listed(trace.voters)}" if trace.voters else "no replica"
    text = f"The trace holds {len(trace.events)} events over {span(first, last)}: {replicas}"
    text += f", besides {listed(others)}." if others else "."
    scenarios = [e for e in metas if e.text("scenario")]
    for meta in scenarios:
        text += f" It ran the scenario {meta.text('scenario')} with seed {meta.f.get('seed')}."
    return [tell(first, text, metas or [first], rank=-2)]


def elections(trace: Trace) -> list[Told]:
    """Every leader with its votes, and what came before."""
    told: list[Told] = []
    votes: dict[tuple[int, str], list[Event]] = {}
    for vote in trace.kind("vote"):
        votes.setdefault((vote.number("term"), vote.text("candidate")), []).append(vote)
    seen: set[tuple[int, str]] = set()
    faults = trace.kind("fault")
    for event in trace.kind("role"):
        key = (event.number("term"), event.n)
        if event.f.get("role") != "leader" or key in seen:
            continue
        seen.add(key)
        granted = {vote.n: vote for vote in votes.get(key, [])}
        text = f"{event.n} became leader of term {key[0]}"
        if granted:
            text += f" with the votes of {listed(sorted(granted))}"
        text += f" ({event.text('why')})." if event.text("why") else "."
        refs = [event, *granted.values()]
        before = [fault for fault in faults if fault.hlc < event.hlc]
        if before and event.ms - before[-1].ms < 10_000:
            fault = _burst_start(before)
            text = text[:-1] + f", {span(fault, event)} after the fault on {fault.text('target')}."
            refs.append(fault)
        told.append(tell(event, text, refs))
    return told


def _burst_start(faults: list[Event]) -> Event:
    """The first of the faults that came together with the last one."""
    start = faults[-1]
    for fault in reversed(faults):
        if start.ms - fault.ms > 1000:
            break
        start = fault
    return start


def step_downs(trace: Trace) -> list[Told]:
    """Every leader that became something else within one life."""
    told: list[Told] = []
    leading: dict[tuple[str, str], Event] = {}
    for event in trace.kind("role"):
        life = (event.n, event.inc)
        led = leading.get(life)
        if event.f.get("role") == "leader":
            leading.setdefault(life, event)
        elif led is not None:
            del leading[life]
            why = event.text("why") or "no reason told"
            text = f"{event.n} stopped leading term {led.number('term')} after {span(led, event)}: {why}."
            told.append(tell(event, text, [led, event]))
    return told


def restarts(trace: Trace) -> list[Told]:
    """Every later life of a replica: what it found on its disk, and when it had caught up."""
    told: list[Told] = []
    for voter in trace.voters:
        lives = trace.lives_of(voter)
        for before, after in itertools.pairwise(lives):
            told += _restart(trace, voter, before, after)
    return told


def _restart(trace: Trace, voter: str, before: LifeFacts, after: LifeFacts) -> list[Told]:
    mine = [e for e in trace.kind("meta", "append", "apply", "role") if (e.n, e.inc) == after.life]
    if not mine:
        return []
    started = mine[0]
    text = f"{voter} started again"
    refs = [started]
    recovered = next((e for e in mine if e.k == "append" and e.f.get("recovered")), None)
    if recovered is not None:
        text += f" and found its log up to index {recovered.number('index')} on its disk"
        refs.append(recovered)
    told = [tell(started, text + ".", refs)]
    committed = [e for e in trace.kind("commit") if e.hlc < after.first_hlc]
    if committed:
        goal = max(committed, key=lambda e: e.number("index"))
        reached = next((e for e in mine if e.k == "apply" and e.number("index") >= goal.number("index")), None)
        if reached is not None:
            words = (
                f"{voter} had caught up {span(started, reached)} after its start: index {reached.number('index')} was "
                f"applied, and {goal.number('index')} was the highest committed when it came back."
            )
            told.append(tell(reached, words, [started, goal, reached]))
    return told


def unknown_ends(trace: Trace) -> list[Told]:
    """Lives whose last events are missing, and notes of dropped events."""
    told: list[Told] = []
    for facts in trace.lives.values():
        if facts.truncated:
            last = next(e for e in reversed(trace.events) if (e.n, e.inc) == facts.life)
            text = f"The last line of {facts.life[0]} is cut in the middle: what it did at its end is unknown."
            told.append(tell(last, text, [last]))
    for note in trace.kind("note"):
        if note.number("dropped") > 0:
            told.append(tell(note, f"{note.n} dropped {note.number('dropped')} events of its trace here.", [note]))
    return told
