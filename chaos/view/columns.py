"""Events as columns: the page's compact form.

Owns: the layout of a column and of the table of events.  Must not know: what events mean.

A column is ``{"d": [differences]}`` for whole numbers that fit a double, ``{"v": values, "c": choices}``
where few values repeat, or ``{"r": values}``.  Events with the same fields share a shape.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from msgspec import json

from chaos.trace.events import Event, Trace

EXACT_MAX = 1 << 53


def differences(values: Sequence[int]) -> list[int]:
    """Each value less the one before; the first less 0."""
    found, before = [], 0
    for value in values:
        found.append(value - before)
        before = value
    return found


def column(values: list[Any]) -> dict[str, Any]:
    """The smallest of the three forms."""
    if all(type(value) is int and -EXACT_MAX < value < EXACT_MAX for value in values):
        return {"d": differences(values)}
    keys = [json.encode(value) for value in values]  # 1 and True differ as JSON, not as keys
    numbers: dict[bytes, int] = {}
    distinct = []
    for key, value in zip(keys, values, strict=True):
        if key not in numbers:
            numbers[key] = len(numbers)
            distinct.append(_exact(value))
    if len(distinct) * 2 <= len(values) or len(distinct) == 1:
        return {"v": distinct, "c": [numbers[key] for key in keys]}
    return {"r": [_exact(value) for value in values]}


def _exact(value: Any) -> Any:
    """Numbers that a double would round become text."""
    if type(value) is int and not -EXACT_MAX < value < EXACT_MAX:
        return str(value)
    if isinstance(value, dict):
        return {key: _exact(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_exact(each) for each in value]
    return value


def events_table(trace: Trace, lanes: dict[str, int], axis: list[int]) -> dict[str, Any]:
    """All events: common fields as columns, the others by shape.

    `t` is told as microseconds past the millisecond of the hybrid clock, None where it is absurdly far off.
    """
    kinds: dict[str, int] = {}
    lives: dict[tuple[str, str], int] = {}
    shapes: dict[tuple[str, ...], int] = {}
    rows: list[list[list[Any]]] = []
    shape_of: list[int] = []
    latest: dict[tuple[str, str], Event] = {}
    i, lc = [], []
    for event in trace.events:
        shape, life = tuple(event.f), (event.n, event.inc)
        number = shapes.setdefault(shape, len(shapes))
        if number == len(rows):
            rows.append([[] for _ in shape])
        for values, value in zip(rows[number], event.f.values(), strict=True):
            values.append(value)
        shape_of.append(number)
        before = latest.get(life)
        i.append(event.i - (before.i + 1 if before is not None else 0))
        lc.append(event.lc - (before.lc if before is not None else 0))
        latest[life] = event
    start = trace.events[0].ms if trace.events else 0
    return {
        "count": len(trace.events),
        "start": start,
        "kind": [kinds.setdefault(event.k, len(kinds)) for event in trace.events],
        "kinds": list(kinds),
        "life": [lives.setdefault((event.n, event.inc), len(lives)) for event in trace.events],
        "lives": [[lanes[node], inc] for node, inc in lives],
        "i": i,
        "lc": lc,
        "x": differences(axis),
        "ms": differences([event.ms - start for event in trace.events]),
        "counter": [event.hlc & 0xFFFF for event in trace.events],
        "t": [_past_millisecond(event) for event in trace.events],
        "shape": shape_of,
        "shapes": [list(shape) for shape in shapes],
        "columns": [[column(values) for values in each] for each in rows],
    }


def _past_millisecond(event: Event) -> int | None:
    away = event.t * 1_000_000 - event.ms * 1000
    return round(away) if abs(away) < EXACT_MAX / 4 else None
