"""A run's events straight from the memory of its processes' tracers.

Owns: from tracer records (`cluster.trace`) to the merged trace, without files.  Must not know: what events mean.

The order is that of files: (hlc, n, inc, i).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from chaos.trace.events import Event, Life, Trace

Record = tuple[int, int, int, int, str, dict[str, Any]]
"""(i, wall nanoseconds, Lamport clock, hybrid clock, kind, fields), as a tracer keeps it until it is written."""


def events_of(life: Life, records: Iterable[Record]) -> list[Event]:
    """One life's records as events; their fields are shared, not copied."""
    n, inc = life
    return [Event(hlc, n, inc, i, wall_ns / 1e9, kind, fields, lc) for i, wall_ns, lc, hlc, kind, fields in records]


def trace_of(lives: Mapping[Life, Iterable[Record]], *, whole: bool = True) -> Trace:
    """The merged trace of all lives, by (node, incarnation).

    Args:
        whole: the records outlive their processes, so that a crash takes nothing with it: what is not there did not
            happen.  A folder says the same by ``"whole": true`` in the meta event of a file.
    """
    found = {life: events_of(life, records) for life, records in lives.items()}
    trace = Trace.of_lives({life: events for life, events in found.items() if events})
    for facts in trace.lives.values():
        facts.whole = facts.whole or whole
    return trace
