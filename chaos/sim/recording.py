"""The trace of a simulated run: every process's records, in memory, and as files that `skerry trace` reads.

Owns: one list of records a life, their opening, their files, and the digest that says whether two runs are the same.
Must not know: what any event means, or how a run comes about.

Nothing is encoded while a run goes on.  A record belongs to the recording as soon as it was put, so
a crash takes none with it: what is not there did not happen, and each trace's opening says so (`whole`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from cluster.trace import opening

Record = tuple[int, int, int, int, str, dict[str, Any]]
"""(i, Unix nanoseconds, Lamport, hybrid clock, kind, fields), as `cluster.trace.Tracer` makes them."""
Life = tuple[str, str]


class LifeSink:
    """Takes the records of one life; satisfies `cluster.trace.Sink`."""

    __slots__ = ("_recording", "lost", "records")

    def __init__(self, recording: Recording) -> None:
        self._recording = recording
        self.records: list[Record] = []
        self.lost = 0

    def put(self, record: Record) -> bool:
        """Keep it."""
        self.records.append(record)
        return True

    def flush(self, timeout_s: float) -> bool:
        """Nothing waits."""
        return True

    def close(self, timeout_s: float) -> None:
        """Nothing to do: the recording outlives the process."""


class Recording:
    """All records of one run, by life, in the order in which the lives began."""

    def __init__(self, meta: dict[str, Any] | None = None) -> None:
        self.meta = meta or {}
        self._lives: dict[Life, LifeSink] = {}
        self._openings: dict[Life, dict[str, Any]] = {}

    def sink(self, node: str, incarnation: str, wall_ns: int, meta: dict[str, Any]) -> LifeSink:
        """Where a new life's records go."""
        life = (node, incarnation)
        assert life not in self._lives, "an incarnation is drawn once"
        sink = self._lives[life] = LifeSink(self)
        self._openings[life] = opening(node, incarnation, wall_ns, {**meta, **self.meta, "whole": True})
        return sink

    @property
    def lives(self) -> dict[Life, list[Record]]:
        """Every life's records, as `chaos.trace.check.check_records` takes them."""
        return {life: sink.records for life, sink in self._lives.items()}

    @property
    def events(self) -> int:
        """How many records there are."""
        return sum(len(sink.records) for sink in self._lives.values())

    def write(self, directory: Path) -> None:
        """One file a life, as `chaos.trace.reader` reads them."""
        directory.mkdir(parents=True, exist_ok=True)
        for node, incarnation in self._lives:
            with (directory / f"{node}-{incarnation}.jsonl").open("wb") as file:
                file.writelines(self._lines((node, incarnation)))

    def digest(self) -> str:
        """Of every byte that `write` would write, and of the order of lives."""
        found = hashlib.sha256()
        for node, incarnation in self._lives:
            found.update(f"{node}-{incarnation}\n".encode())
            for line in self._lines((node, incarnation)):
                found.update(line)
        return found.hexdigest()

    def _lines(self, life: Life) -> Iterator[bytes]:
        encode = msgspec.json.Encoder(enc_hook=str).encode
        node, incarnation = life
        yield encode(self._openings[life]) + b"\n"
        for i, wall_ns, lc, hlc, kind, fields in self._lives[life].records:
            common = {"i": i, "t": round(wall_ns / 1e9, 6), "n": node, "inc": incarnation, "lc": lc, "hlc": hlc}
            yield encode({**common, "k": kind, **fields}) + b"\n"
