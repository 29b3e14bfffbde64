"""What a run reached: the situations in which bugs live.

Owns: their names and how each is seen in a trace.
Must not know: how a run was made, or whether anything was violated.

A campaign that never reaches one of them proves nothing about it, and says so.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from chaos.trace.events import Trace

Seen = Callable[[Trace], bool]


def situations(trace: Trace) -> dict[str, bool]:
    """Which situations the run reached."""
    return {name: seen(trace) for name, seen in SITUATIONS.items()}


def _leaders(trace: Trace) -> int:
    return len({event.number("term") for event in trace.kind("role") if event.f.get("role") == "leader"})


SITUATIONS: Final[dict[str, Seen]] = {
    "leader-changed": lambda trace: _leaders(trace) > 1,
    "unknown-outcome": lambda trace: any(event.f.get("ph") == "info" for event in trace.kind("op")),
}
