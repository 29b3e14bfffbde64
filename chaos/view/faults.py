"""Faults of links, as bands across lanes.

Owns: which lanes stood on which side of a partition, which links were cut in which direction.
Must not know: the page, how faults are injected.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from msgspec import Struct

from chaos.trace.events import Event
from chaos.view.bars import Bar, Timeline

TOGETHER_US = 1_500_000
LINKS_MAX = 4096


class Band(Struct, frozen=True):
    """A fault of links from `start` to `end`.

    `sides`: lanes by side, contiguous sides of a partition (empty if nobody is wholly apart).
    `links`: directed pairs of lanes.  `cut`: whether nothing passes (else they are only disturbed).
    """

    start: int
    end: int
    label: str
    cut: bool
    sides: tuple[tuple[int, ...], ...]
    links: tuple[tuple[int, int], ...]
    first: int
    last: int


class Toxics(Struct, frozen=True):
    """Faults of one kind that a proxy put in and took out together."""

    start: int
    end: int
    faults: tuple[Event, ...]
    last: int


def toxics(line: Timeline) -> list[Toxics]:
    """Every burst of like faults of a proxy."""
    groups: list[list[tuple[Event, Event | None]]] = []
    latest: dict[tuple[str, str, str], list[tuple[Event, Event | None]]] = {}
    for fault in line.trace.kind("fault"):
        if not fault.part("by").get("proxy"):
            continue
        heal = line.heals.get(fault.text("id"))
        key = (fault.n, fault.text("kind"), repr(fault.f.get("args")))
        group = latest.get(key)
        if group is None or line.us(fault) - line.us(group[0][0]) > TOGETHER_US or _healed(line, group, fault):
            group = latest[key] = []
            groups.append(group)
        group.append((fault, heal))
    found = []
    for group in groups:
        heals = [heal for _, heal in group if heal is not None]
        end = max((line.us(heal) for heal in heals), default=line.end)
        last = line.at(heals[-1]) if heals else -1
        found.append(Toxics(line.us(group[0][0]), end, tuple(fault for fault, _ in group), last))
    return found


def _healed(line: Timeline, group: list[tuple[Event, Event | None]], fault: Event) -> bool:
    return any(heal is not None and line.us(heal) < line.us(fault) for _, heal in group)


def toxic_bars(line: Timeline, found: list[Toxics]) -> list[Bar]:
    """The same for the proxy's own lane."""
    return [
        Bar(
            line.number[each.faults[0].n],
            each.start,
            each.end,
            "toxic",
            line.at(each.faults[0]),
            each.last,
            f"{each.faults[0].text('kind')} on {_counted(each.faults)}",
            row=number % 3,
            number=len(each.faults),
        )
        for number, each in enumerate(found)
    ]


def _counted(faults: Iterable[Event]) -> str:
    links = sorted({fault.text("target") for fault in faults})
    return links[0] if len(links) == 1 else f"{len(links)} links"


def bands(line: Timeline, found: list[Toxics]) -> list[Band]:
    """What a scenario did to links; toxics that no scenario told of make bands of their own."""
    told = [band for event in line.trace.kind("fault") if (band := _of_scenario(line, event)) is not None]
    for burst in found:
        if not any(_covers(band, burst) for band in told):
            told.append(_of_toxics(line, burst))
    return sorted(told, key=lambda band: band.start)


def _covers(band: Band, burst: Toxics) -> bool:
    return band.start - TOGETHER_US <= burst.start <= band.end


def _of_scenario(line: Timeline, event: Event) -> Band | None:
    kind, args = event.text("kind"), event.part("args")
    if event.part("by").get("proxy") or kind in ("kill", "pause"):
        return None
    pairs = _pairs(line, args.get("links"))
    groups = _groups(line, args.get("groups"))
    if not pairs and not groups:
        return None
    heal = line.heals.get(event.text("id"))
    end = line.us(heal) if heal is not None else line.end
    cut = kind != "delay"
    sides = groups or (_sides(line, pairs) if cut else ())
    label = _label(line, kind, sides, pairs)
    return Band(line.us(event), end, label, cut, sides, pairs, line.at(event), line.at(heal))


def _of_toxics(line: Timeline, burst: Toxics) -> Band:
    kind = burst.faults[0].text("kind")
    pairs = _pairs(line, sorted({fault.text("target") for fault in burst.faults}))
    cut = kind in ("timeout", "down")
    first = line.at(burst.faults[0])
    sides = _sides(line, pairs) if cut else ()
    return Band(burst.start, burst.end, _label(line, kind, sides, pairs), cut, sides, pairs, first, burst.last)


def _pairs(line: Timeline, links: Any) -> tuple[tuple[int, int], ...]:
    found = []
    for link in links[:LINKS_MAX] if isinstance(links, list) else []:
        source, tilde, target = link.partition("~") if isinstance(link, str) else ("", "", "")
        if tilde and source in line.number and target in line.number:
            found.append((line.number[source], line.number[target]))
    return tuple(found)


def _groups(line: Timeline, groups: Any) -> tuple[tuple[int, ...], ...]:
    if not isinstance(groups, list):
        return ()
    sides = []
    for group in groups:
        names = [name for name in group if isinstance(name, str)] if isinstance(group, list) else []
        sides.append(tuple(sorted(line.number[name] for name in names if name in line.number)))
    return tuple(side for side in sides if side) if len(sides) > 1 else ()


def _sides(line: Timeline, pairs: tuple[tuple[int, int], ...]) -> tuple[tuple[int, ...], ...]:
    """The parts that replicas and agents fall into when all these links are gone; () if they stay one.

    A pair of replicas is apart only if both directions are cut; an agent has one link to each replica.
    """
    cut = set(pairs)
    kinds = [lane.kind for lane in line.lanes]
    members = [lane for lane, kind in enumerate(kinds) if kind in ("replica", "agent")]
    left = dict.fromkeys(members)
    parts: list[tuple[int, ...]] = []
    while left:
        start = next(iter(left))
        part, frontier = [start], [start]
        del left[start]
        while frontier:
            here = frontier.pop()
            for other in [lane for lane in left if _joined(kinds, cut, here, lane)]:
                del left[other]
                part.append(other)
                frontier.append(other)
        parts.append(tuple(sorted(part)))
    parts.sort(key=len)  # the smaller side is the one cut off
    return tuple(parts) if len(parts) > 1 else ()


def _joined(kinds: list[str], cut: set[tuple[int, int]], a: int, b: int) -> bool:
    both_agents = kinds[a] == "agent" == kinds[b]
    if both_agents:
        return False
    if kinds[a] == "replica" == kinds[b]:
        return (a, b) not in cut or (b, a) not in cut
    return (a, b) not in cut and (b, a) not in cut


def _label(line: Timeline, kind: str, sides: tuple[tuple[int, ...], ...], pairs: tuple[tuple[int, int], ...]) -> str:
    """In words, as short as they can be."""
    if sides:
        return "partition " + " | ".join(" ".join(line.lanes[lane].name for lane in side) for side in sides)
    named = [f"{line.lanes[a].name}→{line.lanes[b].name}" for a, b in pairs]
    shown = " ".join(named[:6]) + (f" +{len(named) - 6}" if len(named) > 6 else "")
    return f"{kind} {shown}"
