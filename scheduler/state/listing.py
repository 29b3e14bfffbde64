"""Attempts and allocations as plain data.

Owns: their shape (keys of DESIGN.md §13), and listing a job of any size without holding the event loop.
Must not know: HTTP.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final

import msgspec
import numpy as np

from scheduler.model import allocation_id
from scheduler.state.allocations import NONE, STATES, AttemptTable
from scheduler.state.books import Books
from scheduler.state.columns import Int64s
from scheduler.state.jobs import JobRecord

PART: Final = 128
"""Allocations encoded at a time: a fraction of a millisecond."""


class Listing:
    """The allocations of one job at one moment: wanted ones, and surplus ones that still have an attempt.

    To be read at once, or after `hold` at any time and in any thread.
    """

    def __init__(self, books: Books, job: JobRecord) -> None:
        self._attempts = books.attempts
        self._names: Sequence[str] = books.nodes.names  # only ever grows
        self._job = (job.namespace, job.name)
        kept = np.flatnonzero((job.newest != NONE) | (np.arange(len(job.newest)) < job.replicas))
        self._ordinals, self._rows = kept, job.newest[kept]
        waiting = np.zeros(len(job.newest) + 1, dtype=bool)
        waiting[list(job.waiting.ready())] = True
        waiting[list(job.waiting.later())] = True
        self._waiting = waiting[kept]

    def hold(self) -> None:
        """Keep the attempts as they are now."""
        self._attempts = self._attempts.snapshot()

    def __len__(self) -> int:
        return len(self._ordinals)

    def part(self, first: int, end: int) -> list[dict[str, Any]]:
        """Allocations in ``[first, end)`` of the listing, by ordinal."""
        rows = self._rows[first:end]
        shown = iter(attempts_shown(self._attempts, self._names, self._job, rows[rows != NONE]))
        found = []
        for ordinal, row, waits in zip(
            self._ordinals[first:end].tolist(), rows.tolist(), self._waiting[first:end].tolist(), strict=True
        ):
            one = next(shown) if row != NONE else _unplaced(allocation_id(*self._job, ordinal))
            one["waiting"] = waits
            one["previous"] = self._older(row)
            found.append(one)
        return found

    def all(self) -> list[dict[str, Any]]:
        """All of them."""
        return self.part(0, len(self))

    def json(self) -> bytes:
        """All of them as a JSON array, made a part at a time."""
        return b"[" + b",".join(self._encoded()) + b"]"

    def _encoded(self) -> Iterator[bytes]:
        for first in range(0, len(self), PART):
            yield msgspec.json.encode(self.part(first, first + PART))[1:-1]

    def _older(self, row: int) -> list[dict[str, Any]]:
        older = [] if row == NONE else self._attempts.chain(self._attempts.previous(row))
        if not older:
            return []
        return attempts_shown(self._attempts, self._names, self._job, np.array(older, dtype=np.int64))


def attempts_shown(
    attempts: AttemptTable, names: Sequence[str], job: tuple[str, str], rows: Int64s
) -> list[dict[str, Any]]:
    """Attempts of one job (namespace, name), in the order of `rows`; `names` are the nodes'."""
    columns = (attempts.ordinal, attempts.node, attempts.epoch, attempts.attempt, attempts.pid)
    values = zip(
        rows.tolist(), attempts.states(rows).tolist(), *(c.gather(rows).tolist() for c in columns), strict=True
    )
    found = []
    for row, code, ordinal, slot, epoch, attempt, pid in values:
        end = attempts.exits.get(row)
        found.append({
            "id": allocation_id(*job, ordinal), "node": names[slot], "epoch": epoch, "attempt": attempt,
            "state": STATES[code].value, "pid": pid or None, "cgroup": attempts.cgroups.get(row),
            "exit": None if end is None else msgspec.to_builtins(end),
        })  # fmt: skip
    return found


def allocation(books: Books, allocation: str) -> dict[str, Any] | None:
    """One allocation by id, or None."""
    job, ordinal = books.locate(allocation)
    if job is None or (ordinal >= job.replicas and job.newest_row(ordinal) == NONE):
        return None
    row = job.newest_row(ordinal)
    rows = books.attempts.chain(row)
    shown = attempts_shown(books.attempts, books.nodes.names, (job.namespace, job.name), np.array(rows, dtype=np.int64))
    newest = shown[0] if shown else _unplaced(allocation)
    return {**newest, "waiting": ordinal in job.waiting, "previous": shown[1:]}


def _unplaced(allocation: str) -> dict[str, Any]:
    return {
        "id": allocation, "node": None, "epoch": 0, "attempt": 0, "state": "pending",
        "pid": None, "cgroup": None, "exit": None,
    }  # fmt: skip
