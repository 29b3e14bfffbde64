"""One trace: every process writes what happened as JSON lines (DESIGN.md §10).

Owns: the common fields, the Lamport and hybrid logical clocks of this process, and the
buffer between the event loop and the writer.  Must not know: what any kind of event means,
how files are written (`cluster.trace_writer`), or how traces are read (`chaos`).

A line is ``{"i", "t", "n", "inc", "lc", "hlc", "k", …fields}``.  Runs are merged by
``(hlc, n, inc, i)``.  An event reference is ``n/inc/i``; a message id is ``n/inc/counter``,
from a counter of its own.  After a kill the last unwritten events (at most about 50 ms) are
missing: unknown, never evidence.
"""

from __future__ import annotations

import asyncio
from collections import deque
from pathlib import Path
from typing import Any, Protocol

from cluster.clock import WallClock
from cluster.trace_writer import Record, TraceWriter

HEARTBEAT_SAMPLE_DEFAULT = 50
ROLL_BYTES_DEFAULT = 64 << 20
BUFFER_EVENTS_MAX = 65_536
"""Events waiting for the writer; more are dropped and counted in a note."""

PROCESS_META: dict[str, Any] = {}
"""Fields that every trace of this process opens with; filled before anything starts (deliberate bugs in force)."""

_LOGICAL_BITS = 16
_INCARNATION_BYTES = 4


class TokenSource(Protocol):
    """The part of `raft.protocols.Dice` that names an incarnation."""

    def token(self, size_bytes: int) -> bytes:
        """Unguessable bytes."""
        ...


def new_incarnation(dice: TokenSource) -> str:
    """Eight hex digits that name one life of one process."""
    return dice.token(_INCARNATION_BYTES).hex()


class Tracer:
    """The trace of one process; satisfies `raft.protocols.Observer`.

    Not thread-safe: `emit` belongs to the event loop's thread.  The writer takes records from the
    other end of a deque, whose single appends and pops are atomic.

    Args:
        node: id of this process in the trace (``n1``, ``a3``, ``proxy``).
        directory: where the files go; None turns the trace off, and `emit` costs nothing.
        clock: only its wall time is read.
        incarnation: names this life of the process (`new_incarnation`).
        roll_bytes: a file this large is followed by the next one.
        heartbeat_sample: links trace one in this many heartbeats (0 = none).
        meta: fields of the meta event that opens each file (seed, backend, scenario, nodes …).
    """

    def __init__(
        self,
        node: str,
        directory: Path | None,
        clock: WallClock,
        *,
        incarnation: str,
        roll_bytes: int = ROLL_BYTES_DEFAULT,
        heartbeat_sample: int = HEARTBEAT_SAMPLE_DEFAULT,
        meta: dict[str, Any] | None = None,
    ) -> None:
        self.node = node
        self.incarnation = incarnation
        self.heartbeat_sample = heartbeat_sample
        self.enabled = directory is not None
        self._wall_ns = clock.wall_ns
        self._started_wall_ns = clock.wall_ns()
        self._prefix = f"{node}/{incarnation}/"
        self._events = 0
        self._messages = 0
        self._lamport = 0
        self._hlc = 0
        self._dropped = 0
        self._buffer: deque[Record] = deque()
        self._writer: TraceWriter | None = None
        if directory is not None:
            self._meta = {**(meta or {}), **PROCESS_META}
            self._writer = TraceWriter(
                directory, node, incarnation, roll_bytes=roll_bytes, take=self._take, first_line=self._meta_record
            )
            self._writer.start()

    def emit(self, kind: str, /, **fields: Any) -> str:
        """Record one event and return its reference; "" while the trace is off.  Never raises, never blocks."""
        if not self.enabled:
            return ""
        if len(self._buffer) >= BUFFER_EVENTS_MAX:
            self._dropped += 1
            return ""
        index = self._events + 1
        self._events = index
        self._lamport += 1
        wall_ns = self._wall_ns()
        self._buffer.append((index, wall_ns, self._lamport, self._tick(wall_ns), kind, fields))
        return self._prefix + str(index)

    def stamp_send(self) -> tuple[str, int, int]:
        """A message id and the clocks to send along; the caller emits "send" with it."""
        self._messages += 1
        self._lamport += 1
        return self._prefix + str(self._messages), self._lamport, self._tick(self._wall_ns())

    def stamp_number(self) -> int:
        """The counter part of the next message id: for links, which know node and incarnation already."""
        self._messages += 1
        return self._messages

    def message_id(self, counter: int) -> str:
        """The message id of a counter from `stamp_number`."""
        return self._prefix + str(counter)

    def clocks(self) -> tuple[int, int]:
        """(Lamport, hybrid) clocks after everything emitted so far."""
        return self._lamport, self._hlc

    def observe(self, lc: int, hlc: int) -> None:
        """Merge the clocks of a received message; call before emitting its "recv"."""
        if lc > self._lamport:
            self._lamport = lc
        if hlc > self._hlc:
            self._hlc = hlc

    @property
    def dropped(self) -> int:
        """Events lost so far, to a full buffer or a full disk."""
        return self._dropped + (self._writer.lost if self._writer is not None else 0)

    def flush(self, timeout_s: float = 5.0) -> bool:
        """Block until everything emitted so far is handed to the kernel; False if that took too long."""
        return self._writer is None or self._writer.flush(timeout_s)

    def close(self, timeout_s: float = 5.0) -> None:
        """Write what is left and stop the writer; later events are ignored."""
        if self._writer is not None:
            self.enabled = False
            self._writer.close(timeout_s)

    async def run(self) -> None:
        """Keep until cancelled, then write what is left; for a TaskGroup."""
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            self.close()

    def _tick(self, wall_ns: int) -> int:
        """Advance the hybrid clock: never below the wall's milliseconds, always above its last value."""
        physical = (wall_ns // 1_000_000) << _LOGICAL_BITS
        self._hlc = physical if physical > self._hlc else self._hlc + 1
        return self._hlc

    def _take(self) -> tuple[list[Record], int]:
        """Called by the writer's thread: the waiting records, and how many were dropped before now."""
        buffer = self._buffer
        return [buffer.popleft() for _ in range(len(buffer))], self._dropped

    def _meta_record(self) -> dict[str, Any]:
        """Called by the writer's thread for the first line of each file."""
        wall_ns = self._started_wall_ns  # before every event, so that it sorts first
        return {
            "i": 0,
            "t": round(wall_ns / 1e9, 6),
            "n": self.node,
            "inc": self.incarnation,
            "lc": 0,
            "hlc": (wall_ns // 1_000_000) << _LOGICAL_BITS,
            "k": "meta",
            "version": 1,
            "clock": "realtime",
            **self._meta,
        }
