"""One trace: what every process of a cluster says that happened (DESIGN.md §10).

Owns: the common fields, and the Lamport and hybrid logical clocks of this process.
Must not know: what any kind of event means, where records go (`cluster.trace_writer` puts them into
files), or how traces are read (`chaos`).

A line is ``{"i", "t", "n", "inc", "lc", "hlc", "k", …fields}``.  Runs are merged by
``(hlc, n, inc, i)``.  An event reference is ``n/inc/i``; a message id is ``n/inc/counter``,
from a counter of its own.  After a kill the last unwritten events (at most about 50 ms) are
missing: unknown, never evidence.
"""

from __future__ import annotations

import asyncio
from typing import Any, Protocol

from cluster.clock import WallClock

HEARTBEAT_SAMPLE_DEFAULT = 50
LEASES_DENSER = 20
"""Renewals are recorded so many times as often as heartbeats: what was promised to whom decides how a run is judged."""

PROCESS_META: dict[str, Any] = {}
"""Fields that every trace file of this process opens with; filled before anything starts (deliberate bugs in force)."""

_LOGICAL_BITS = 16
_INCARNATION_BYTES = 4

Record = tuple[int, int, int, int, str, dict[str, Any]]
"""(i, Unix nanoseconds, Lamport, hybrid clock, kind, fields), as `Tracer.emit` makes them."""


class Sink(Protocol):
    """Where the records of one process go."""

    @property
    def lost(self) -> int:
        """Records that nobody will ever read."""
        ...

    def put(self, record: Record) -> bool:
        """Take one record; False when there is no room.  Never raises, never blocks."""
        ...

    def flush(self, timeout_s: float) -> bool:
        """Hand everything taken so far to whoever keeps it; False if that took too long."""
        ...

    def close(self, timeout_s: float) -> None:
        """Keep what was taken, and take no more."""
        ...


def lease_sample(heartbeat_sample: int) -> int:
    """One in how many renewals is recorded, where one in `heartbeat_sample` heartbeats is; 0 = none."""
    return -(-heartbeat_sample // LEASES_DENSER)


class TokenSource(Protocol):
    """The part of `raft.protocols.Dice` that names an incarnation."""

    def token(self, size_bytes: int) -> bytes:
        """Unguessable bytes."""
        ...


def new_incarnation(dice: TokenSource) -> str:
    """Eight hex digits that name one life of one process."""
    return dice.token(_INCARNATION_BYTES).hex()


def hybrid_floor(wall_ns: int) -> int:
    """The lowest hybrid clock of a moment: its milliseconds, shifted."""
    return (wall_ns // 1_000_000) << _LOGICAL_BITS


def opening(node: str, incarnation: str, wall_ns: int, meta: dict[str, Any]) -> dict[str, Any]:
    """The meta event that a trace opens with; `wall_ns` from before its first event, so that it sorts first."""
    return {
        "i": 0,
        "t": round(wall_ns / 1e9, 6),
        "n": node,
        "inc": incarnation,
        "lc": 0,
        "hlc": hybrid_floor(wall_ns),
        "k": "meta",
        "version": 1,
        "clock": "realtime",
        **meta,
    }


class Tracer:
    """The trace of one process; satisfies `raft.protocols.Observer`.

    Not thread-safe: it belongs to the event loop's thread.

    Args:
        node: id of this process in the trace (``n1``, ``a3``, ``proxy``).
        sink: takes the records; None turns the trace off, and `emit` costs nothing.
        clock: only its wall time is read.
        incarnation: names this life of the process (`new_incarnation`).
        heartbeat_sample: links trace one in this many heartbeats (0 = none).
    """

    def __init__(
        self,
        node: str,
        sink: Sink | None,
        clock: WallClock,
        *,
        incarnation: str,
        heartbeat_sample: int = HEARTBEAT_SAMPLE_DEFAULT,
    ) -> None:
        self.node = node
        self.incarnation = incarnation
        self.heartbeat_sample = heartbeat_sample
        self.enabled = sink is not None
        self._sink = sink
        self._put = sink.put if sink is not None else _nowhere
        self._wall_ns = clock.wall_ns
        self._prefix = f"{node}/{incarnation}/"
        self._events = 0
        self._messages = 0
        self._lamport = 0
        self._hlc = 0

    def emit(self, kind: str, /, **fields: Any) -> str:
        """Record one event and return its reference; "" while the trace is off.  Never raises, never blocks."""
        if not self.enabled:
            return ""
        index = self._events + 1
        self._lamport += 1
        wall_ns = self._wall_ns()
        if not self._put((index, wall_ns, self._lamport, self._tick(wall_ns), kind, fields)):
            return ""
        self._events = index
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
        return self._sink.lost if self._sink is not None else 0

    def flush(self, timeout_s: float = 5.0) -> bool:
        """Block until everything emitted so far is handed on, to the kernel say; False if that took too long."""
        return self._sink is None or self._sink.flush(timeout_s)

    def close(self, timeout_s: float = 5.0) -> None:
        """Hand on what is left; later events are ignored."""
        if self._sink is not None:
            self.enabled = False
            self._sink.close(timeout_s)

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


def _nowhere(record: Record) -> bool:
    """The sink of a trace that is off."""
    return False
