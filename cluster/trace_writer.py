"""Trace records as lines of files, written by a thread.

Owns: the buffer between the event loop and the thread, encoding, file names, rolling by size, and what
happens when the disk refuses.  Must not know: the event loop, the clocks, or what the events mean.

A full or broken disk never stops the process: lines are dropped and counted, one warning is
logged an episode, and the first lines that fit again are preceded by a note with the count.
A line is never left torn in the middle of a file: a short write is cut back off.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from pathlib import Path
from typing import Any

import msgspec
import structlog

from cluster.clock import WallClock
from cluster.trace import HEARTBEAT_SAMPLE_DEFAULT, PROCESS_META, Record, Tracer, opening

ROLL_BYTES_DEFAULT = 64 << 20
BUFFER_EVENTS_MAX = 65_536
"""Events waiting for the thread; more are dropped and counted in a note."""
FLUSH_INTERVAL_S = 0.05
CHUNK_EVENTS = 512
"""Encoded at once; the interpreter lock is released between chunks."""

COMMON_FIELDS = frozenset({"i", "t", "n", "inc", "lc", "hlc", "k"})
"""An event's own field of such a name gets an underscore behind it."""
_SECRET_FIELDS = ("token", "authorization", "password", "secret")


def _plain(value: Any) -> Any:
    """What msgspec cannot encode becomes its text: an odd field must not lose the event."""
    return str(value)


class LineEncoder:
    """Records of one process as lines of JSON."""

    def __init__(self, node: str, incarnation: str) -> None:
        self._node = node
        self._incarnation = incarnation
        self._encoder = msgspec.json.Encoder(enc_hook=_plain)

    def opening(self, wall_ns: int, meta: dict[str, Any]) -> bytes:
        """The first line."""
        return self._encoder.encode(opening(self._node, self._incarnation, wall_ns, meta)) + b"\n"

    def line(self, record: Record) -> bytes:
        """One event; a field that cannot be encoded appears as its text, a secret as stars."""
        index, wall_ns, lamport, hlc, kind, fields = record
        for name in _SECRET_FIELDS:
            if name in fields:
                fields = {**fields, name: "***"}
        line: dict[str, Any] = {
            "i": index,
            "t": round(wall_ns / 1e9, 6),
            "n": self._node,
            "inc": self._incarnation,
            "lc": lamport,
            "hlc": hlc,
            "k": kind,
        }
        for name, value in fields.items():
            line[name if name not in COMMON_FIELDS else f"{name}_"] = value
        try:
            return self._encoder.encode(line) + b"\n"
        except (TypeError, ValueError, OverflowError, RecursionError) as error:
            texts = {name: str(value)[:1000] for name, value in fields.items()}
            return self._encoder.encode({**line, **texts, "unencodable": str(error)}) + b"\n"


class TraceWriter:
    """The files of one process's trace; satisfies `cluster.trace.Sink`.

    `put` belongs to the event loop's thread.  The writer's thread takes records from the other end of a deque,
    whose single appends and pops are atomic.

    Args:
        directory: created if absent.
        node: first part of the file names.
        incarnation: second part: ``<node>-<inc>.jsonl``, then ``<node>-<inc>.1.jsonl`` …
        roll_bytes: a file this large is followed by the next one.
        started_wall_ns: a wall time before the first record's.
        meta: fields of the event that opens each file (seed, backend, scenario, nodes …).
    """

    def __init__(
        self,
        directory: Path,
        node: str,
        incarnation: str,
        *,
        roll_bytes: int,
        started_wall_ns: int,
        meta: dict[str, Any],
    ) -> None:
        self._directory = directory
        self._name = f"{node}-{incarnation}"
        self._roll_bytes = roll_bytes
        self._encoder = LineEncoder(node, incarnation)
        self._first_line = self._encoder.opening(started_wall_ns, meta)
        self._buffer: deque[Record] = deque()
        self._dropped = 0
        self._unwritten = 0
        self._fd: int | None = None
        self._file_number = 0
        self._size = 0
        self._failing = False
        self._reported = 0
        self._wake = threading.Event()
        self._written = threading.Condition()
        self._asked = 0
        self._done = 0
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="trace-writer", daemon=True)

    def start(self) -> None:
        """Begin writing."""
        self._thread.start()

    @property
    def lost(self) -> int:
        """Records lost so far, for lack of room in the buffer or on the disk."""
        return self._dropped + self._unwritten

    def put(self, record: Record) -> bool:
        """Take one record; False when too many wait."""
        if len(self._buffer) >= BUFFER_EVENTS_MAX:
            self._dropped += 1
            return False
        self._buffer.append(record)
        return True

    def flush(self, timeout_s: float) -> bool:
        """Wait until all records taken so far are written or lost; False on time-out."""
        if not self._thread.is_alive():
            return False
        with self._written:
            self._asked += 1
            ticket = self._asked
            self._wake.set()
            return self._written.wait_for(lambda: self._done >= ticket, timeout_s)

    def close(self, timeout_s: float) -> None:
        """Write what waits and end the thread."""
        self._closing = True
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join(timeout_s)

    def _run(self) -> None:
        while True:
            self._wake.wait(FLUSH_INTERVAL_S)
            self._wake.clear()
            closing = self._closing  # read before the records: what comes after it is not ours
            asked = self._asked
            self._drain()
            with self._written:
                self._done = asked
                self._written.notify_all()
            if closing:
                self._close_file()
                return

    def _drain(self) -> None:
        buffer = self._buffer
        records = [buffer.popleft() for _ in range(len(buffer))]
        missing = self._dropped + self._unwritten - self._reported
        if missing and records and not self._failing:
            records.insert(0, self._gap_note(records[0], missing))
            self._reported += missing
        for start in range(0, len(records), CHUNK_EVENTS):
            self._write(records[start : start + CHUNK_EVENTS])

    def _gap_note(self, following: Record, missing: int) -> Record:
        """A note just before `following`, with its clocks and an `i` of 0 (it is no event of the process)."""
        _, wall_ns, lamport, hlc, _, _ = following
        return (0, wall_ns, lamport, hlc, "note", {"text": f"{missing} events are missing here", "dropped": missing})

    def _write(self, records: list[Record]) -> None:
        data = b"".join([self._encoder.line(record) for record in records])
        try:
            self._append(data)
        except OSError as error:
            self._unwritten += len(records)
            self._complain(error)
        else:
            self._failing = False

    def _append(self, data: bytes) -> None:
        """Write whole lines or nothing; raises OSError."""
        if self._fd is None or self._size >= self._roll_bytes:
            self._open_next()
        assert self._fd is not None
        try:
            written = 0
            while written < len(data):
                written += os.write(self._fd, data[written:] if written else data)
        except OSError:
            os.ftruncate(self._fd, self._size)
            raise
        self._size += len(data)

    def _open_next(self) -> None:
        self._close_file()
        self._directory.mkdir(parents=True, exist_ok=True)
        suffix = f".{self._file_number}" if self._file_number else ""
        path = self._directory / f"{self._name}{suffix}.jsonl"
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o640)
        line = self._first_line
        if os.write(fd, line) != len(line):
            os.ftruncate(fd, 0)
            os.close(fd)
            raise OSError(28, "no room for the first line")
        self._fd, self._size = fd, len(line)
        self._file_number += 1

    def _close_file(self) -> None:
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None

    def _complain(self, error: OSError) -> None:
        if self._failing:
            return
        self._failing = True
        structlog.get_logger("trace").warning(
            "trace events are being dropped",
            directory=str(self._directory),
            error=str(error),
            hint="free disk space or point trace.dir elsewhere; the process runs on without its trace",
        )


def file_tracer(
    node: str,
    directory: Path | None,
    clock: WallClock,
    *,
    incarnation: str,
    roll_bytes: int = ROLL_BYTES_DEFAULT,
    heartbeat_sample: int = HEARTBEAT_SAMPLE_DEFAULT,
    meta: dict[str, Any] | None = None,
) -> Tracer:
    """A tracer whose records go to files in `directory`; None turns the trace off.

    The files open with `meta` and what `PROCESS_META` says of this process.
    """
    if directory is None:
        return Tracer(node, None, clock, incarnation=incarnation, heartbeat_sample=heartbeat_sample)
    writer = TraceWriter(
        directory,
        node,
        incarnation,
        roll_bytes=roll_bytes,
        started_wall_ns=clock.wall_ns(),
        meta={**(meta or {}), **PROCESS_META},
    )
    writer.start()
    return Tracer(node, writer, clock, incarnation=incarnation, heartbeat_sample=heartbeat_sample)
