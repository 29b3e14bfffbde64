"""From a run's events to what its page holds: compact, ordered, ready to draw.

Owns: the layout of the page's data (version 1).  Must not know: HTML, files, how things look.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import msgspec
from msgspec import Struct

from chaos.trace.events import Trace
from chaos.trace.story.sentence import Sentence
from chaos.view.bars import Bar, Timeline, absences, operations, roles, workloads
from chaos.view.columns import differences, events_table
from chaos.view.faults import bands, toxic_bars, toxics
from chaos.view.lanes import axis, lanes_of
from chaos.view.messages import CLASSES, DELIVERED, DROPPED, UNSEEN, Message, class_of, messages_of

VERSION = 1

_TIME = re.compile(r"^ *[0-9.]+ s {2}")


class Summary(Struct, frozen=True):
    """What the page's title line counts."""

    title: str
    scenarios: tuple[str, ...]
    events: int
    messages: int
    dropped: int
    unseen: int
    seconds: float


def page_data(trace: Trace, story: Sequence[Sentence] = (), *, title: str = "trace") -> dict[str, Any]:
    """Everything that the page of a run needs.

    Args:
        trace: may be empty; its fields are not trusted.
        story: sentences to show beside it; each opens at its first event.
        title: name of the run.
    """
    lanes = lanes_of(trace)
    placed = axis(trace)
    line = Timeline(trace, lanes, placed)
    messages = messages_of(trace, lanes)
    toxic = toxics(line)
    return {
        "v": VERSION,
        "summary": msgspec.to_builtins(_summary(trace, messages, line, title)),
        "lanes": [[lane.name, lane.kind] for lane in lanes],
        "end": line.end,
        "events": events_table(trace, line.number, placed),
        "messages": _messages(messages),
        "roles": _bars(roles(line)),
        "absences": _bars(absences(line)),
        "workloads": _bars(workloads(line)),
        "operations": _bars(operations(line)),
        "toxics": _bars(toxic_bars(line, toxic)),
        "bands": [msgspec.to_builtins(band) for band in bands(line, toxic)],
        "story": _story(line, story),
    }


def _summary(trace: Trace, messages: list[Message], line: Timeline, title: str) -> Summary:
    states = [message.state for message in messages]
    runs = [f"{e.text('scenario')} (seed {e.f.get('seed')})" for e in trace.kind("meta") if e.text("scenario")]
    return Summary(
        title=title,
        scenarios=tuple(dict.fromkeys(runs)),
        events=len(trace.events),
        messages=len(messages),
        dropped=states.count(DROPPED),
        unseen=states.count(UNSEEN),
        seconds=line.end / 1e6,
    )


def _messages(messages: list[Message]) -> dict[str, Any]:
    types: dict[str, int] = {}
    rows = [(m.sent, m.received, m.to, types.setdefault(m.type, len(types)), m.state) for m in messages]
    sent, received, to, type_, state = zip(*rows, strict=True) if rows else ((), (), (), (), ())
    return {
        "sent": differences(sent),
        "flight": [r - s if r >= 0 else 0 for s, r in zip(sent, received, strict=True)],
        "to": list(to),
        "type": list(type_),
        "state": list(state),
        "types": [[name, class_of(name)] for name in types],
        "classes": list(CLASSES),
        "states": {"delivered": DELIVERED, "dropped": DROPPED, "unseen": UNSEEN},
    }


def _bars(bars: Sequence[Bar]) -> dict[str, list[Any]]:
    """Columns; words are interned."""
    words: dict[str, int] = {}
    return {
        "lane": [bar.lane for bar in bars],
        "start": differences([bar.start for bar in bars]),
        "length": [bar.end - bar.start for bar in bars],
        "what": [words.setdefault(bar.what, len(words)) for bar in bars],
        "label": [words.setdefault(bar.label, len(words)) for bar in bars],
        "first": [bar.first for bar in bars],
        "last": [bar.last for bar in bars],
        "row": [bar.row for bar in bars],
        "number": [bar.number for bar in bars],
        "words": list(words),
    }


def _story(line: Timeline, sentences: Sequence[Sentence]) -> list[dict[str, Any]]:
    """Sentences with the events they rest on; the time at their head becomes a place on the axis."""
    places = {event.ref: at for at, event in enumerate(line.trace.events)}
    found = []
    for sentence in sentences:
        refs = [places[ref] for ref in sentence.refs if ref in places]
        head = _TIME.match(sentence.text)
        at = round(float(head[0].strip().split(" ")[0]) * 1e6) if head else line.end
        text = sentence.text[head.end() if head else 0 :]
        found.append({"x": min(at, line.end), "timed": head is not None, "text": text, "refs": refs})
    return found
