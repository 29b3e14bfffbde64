"""The sandboxer's part of the trace: events as JSON lines, in the standard library alone.

Owns: the fields of DESIGN.md §10 and the clocks.  Must not know: files; lines go to the journal
child, so that the sandboxer never waits for a disk.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any, Final

VERSION: Final = 1
_LAMPORT_MAX: Final = 1 << 62
_HLC_COUNTER_BITS: Final = 16


class Tracer:
    """Makes trace lines.  `write` takes each finished line; None = tracing is off."""

    def __init__(self, node: str, incarnation: str, write: Callable[[bytes], None] | None) -> None:
        self.node = node
        self._incarnation = incarnation
        self._write = write
        self._index = 0
        self._lamport = 0
        self._hlc = 0

    def emit(self, kind: str, /, **fields: Any) -> None:
        """Record one event."""
        if self._write is None:
            return
        self.tick()
        self._index += 1
        line = {
            "i": self._index,
            "t": round(time.time(), 6),
            "n": self.node,
            "inc": self._incarnation,
            "lc": self._lamport,
            "hlc": self._hlc,
            "k": kind,
            **fields,
        }
        self._write(json.dumps(line, separators=(",", ":")).encode() + b"\n")

    def tick(self) -> tuple[int, int]:
        """Advance both clocks for an event or a message; returns (Lamport, hybrid)."""
        self._lamport += 1
        wall = time.time_ns() // 1_000_000 << _HLC_COUNTER_BITS
        self._hlc = max(self._hlc + 1, wall)
        return self._lamport, self._hlc

    def observe(self, lamport: Any, hlc: Any) -> None:
        """Merge the clocks of a received message; nonsense is ignored."""
        if isinstance(lamport, int) and isinstance(hlc, int) and 0 <= lamport < _LAMPORT_MAX and 0 <= hlc < 1 << 62:
            self._lamport = max(self._lamport, lamport)
            self._hlc = max(self._hlc, hlc)


def meta_fields(node: str, revision: str) -> dict[str, Any]:
    """Fields of the file's first line."""
    return {
        "version": VERSION,
        "backend": "real",
        "scenario": "",
        "seed": 0,
        "nodes": [node],
        "clock": "realtime",
        "revision": revision,
        "process": "sandboxer",
    }
