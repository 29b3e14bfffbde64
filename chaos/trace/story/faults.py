"""What was broken, by which proxy and toxic, how many bytes crossed, and when it was healed.

Owns: sentences about `fault` and `heal`.  Must not know: how faults are injected.
"""

from __future__ import annotations

from collections import Counter

from chaos.trace.events import Event, Trace
from chaos.trace.story.sentence import Told, amount, listed, span, tell

TOGETHER_MS = 1500
LINKS_SHOWN = 8


def process_faults(trace: Trace) -> list[Told]:
    """Kills and pauses, with the role of whom they hit."""
    told: list[Told] = []
    heals = {e.text("id"): e for e in trace.kind("heal")}
    for fault in trace.kind("fault"):
        kind, target = fault.text("kind"), fault.text("target")
        if kind not in ("kill", "pause"):
            continue
        done = "killed" if kind == "kill" else "paused"
        role = _leader_event(trace, target, fault)
        who = f"{target}, then leader of term {role.number('term')}," if role is not None else target
        rule = fault.part("by").get("rule")
        told.append(
            tell(fault, f"{who} was {done}{f' with {rule}' if rule else ''}.", [fault, role] if role else [fault])
        )
        heal = heals.get(fault.text("id"))
        if heal is not None:
            verb = "was started again" if kind == "kill" else "was let run on"
            told.append(tell(heal, f"{target} {verb} {span(fault, heal)} later.", [fault, heal], rank=-1))
    return told


def _leader_event(trace: Trace, node: str, at: Event) -> Event | None:
    """The event that made `node` the leader it was at that time; None if it did not lead."""
    led = None
    for event in trace.kind("role"):
        if event.hlc > at.hlc:
            break
        if event.n == node:
            led = event if event.f.get("role") == "leader" else None
    return led


def link_faults(trace: Trace) -> list[Told]:
    """Toxics that came together are told together."""
    told: list[Told] = []
    heals = {e.text("id"): e for e in trace.kind("heal")}
    bursts: list[list[Event]] = []
    for fault in trace.kind("fault"):
        if not fault.part("by").get("proxy"):
            continue
        last = bursts[-1][-1] if bursts else None
        if last is not None and fault.ms - last.ms <= TOGETHER_MS and _alike(last, fault):
            bursts[-1].append(fault)
        else:
            bursts.append([fault])
    for burst in bursts:
        told.append(tell(burst[0], _what(burst), burst))
        ended = [heals[fault.text("id")] for fault in burst if fault.text("id") in heals]
        if ended:
            told.append(_end(burst, ended))
    return told


def _alike(one: Event, other: Event) -> bool:
    return one.text("kind") == other.text("kind") and one.f.get("args") == other.f.get("args")


def _what(burst: list[Event]) -> str:
    first, kind = burst[0], burst[0].text("kind")
    links = sorted({fault.text("target") for fault in burst})
    shown = listed(links) if len(links) <= LINKS_SHOWN else f"{listed(links[:LINKS_SHOWN])} and others"
    streams = sorted({str(fault.part("by").get("stream")) for fault in burst})
    both = "both streams" if len(streams) == 2 or streams == ["both"] else f"the {streams[0]} stream"
    counted = f"{len(links)} links" if len(links) > 1 else "one link"
    if kind == "down":
        return f"The proxy refused connections on {counted}: {shown}."
    settings = ", ".join(f"{key} {value}" for key, value in first.part("args").items())
    words = f"toxic {kind} ({settings}) in {both} of {shown}"
    if kind != "timeout":
        return f"The proxy disturbed {counted}: {words}."
    return f"The proxy cut {_who(links)}: {words}."


def _who(links: list[str]) -> str:
    """``n1 off from n2 and n3`` if one node is on every link, else how many links."""
    pairs = [link.partition("~")[::2] for link in links]
    on = Counter(node for pair in pairs for node in pair)
    everywhere = [node for node, count in on.items() if count == len(pairs)]
    if len(pairs) > 1 and len(everywhere) == 1:
        others = sorted(node for node in on if node != everywhere[0])
        return f"{everywhere[0]} off from {listed(others)}"
    return f"{len(pairs)} links" if len(pairs) > 1 else "one link"


def _end(burst: list[Event], ended: list[Event]) -> Told:
    last = max(ended, key=lambda e: e.hlc)
    crossed = sum(_count(heal, "bytes_since_fault") for heal in ended)
    gone = sum(_count(heal, "bytes_discarded") for heal in ended)
    links = len({heal.text("target") for heal in ended})
    text = f"{span(burst[0], last)} later {links} {'link was' if links == 1 else 'links were'} healed"
    if len(ended) < len(burst):
        text += f" ({len(ended)} of the {len(burst)} toxics; the heal of the others is not in the trace)"
    if burst[0].text("kind") == "timeout":
        text += f"; meanwhile {amount(crossed) if crossed else 'not one byte'} had crossed"
        text += f" and {amount(gone)} had been thrown away"
    return tell(last, text + ".", [*ended, *burst])


def _count(event: Event, name: str) -> int:
    value = event.part("counters").get(name)
    return value if isinstance(value, int) else 0
