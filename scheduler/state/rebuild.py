"""What is derived, worked out anew from what was loaded.

Owns: newest attempts, counts, per-node rows, held ports and queues of a state that was read back.
Must not know: where the pages came from.

A state that was never frozen keeps all of this in step with each command; a test compares the two.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from scheduler.state.allocations import IS_HOLDING, IS_LIVE, NONE
from scheduler.state.books import Books
from scheduler.state.columns import Int64s
from scheduler.state.jobs import JobRecord

_NO_ROWS: Final = np.zeros(0, dtype=np.int64)


def rebuild(books: Books, index: int) -> None:
    """Derive everything that sections do not carry.

    Args:
        books: freshly loaded.
        index: the log index of the frozen state.

    Raises:
        ValueError: the sections contradict each other.
    """
    books.attempts.table.settle()
    books.nodes.table.settle()
    books.nodes.read_back(index)
    for number, row in books.jobs.rows.items():
        books.jobs.read_back(number, row)
    rows = books.attempts.used_rows()
    _check(books, rows)
    _newest(books, rows)
    _live(books, rows)
    held = _held(books)
    for job in books.jobs:
        if held.get(job.number, 0) < job.replicas:
            _queue(books, job)


def _check(books: Books, rows: Int64s) -> None:
    slots = books.attempts.node.gather(rows)
    if len(rows) and (slots.min() < 0 or slots.max() >= len(books.nodes)):
        raise ValueError("an attempt is on no node")
    for number in np.unique(books.attempts.job.gather(rows)).tolist():
        if number not in books.jobs.by_number:
            raise ValueError(f"an attempt belongs to job number {number}, which is missing")


def _newest(books: Books, rows: Int64s) -> None:
    """The newest attempt of an allocation is the one with the highest number."""
    attempts = books.attempts
    for job in books.jobs:
        job.newest = np.full(job.replicas, NONE, dtype=np.int64)
    if not len(rows):
        return
    jobs, ordinals = attempts.job.gather(rows), attempts.ordinal.gather(rows)
    order = np.lexsort((attempts.attempt.gather(rows), ordinals, jobs))
    rows, jobs, ordinals = rows[order], jobs[order], ordinals[order]
    last = np.append((jobs[1:] != jobs[:-1]) | (ordinals[1:] != ordinals[:-1]), True)
    rows, jobs, ordinals = rows[last], jobs[last], ordinals[last]
    starts = np.flatnonzero(np.append(True, jobs[1:] != jobs[:-1])).tolist()
    for start, end in zip(starts, [*starts[1:], len(jobs)], strict=True):
        job = books.jobs.by_number[int(jobs[start])]
        missing = int(ordinals[end - 1]) + 1 - len(job.newest)
        if missing > 0:
            job.newest = np.concatenate([job.newest, np.full(missing, NONE, dtype=np.int64)])
        job.newest[ordinals[start:end]] = rows[start:end]


def _live(books: Books, rows: Int64s) -> None:
    attempts, nodes = books.attempts, books.nodes
    live = rows[IS_LIVE[attempts.states(rows)]]
    by_job, by_node = attempts.job.gather(live).tolist(), attempts.node.gather(live).tolist()
    for row, number, slot in zip(live.tolist(), by_job, by_node, strict=True):
        nodes.rows[slot][row] = None
        books.jobs.by_number[number].count_on(slot, 1)
        for port in attempts.ports.get(row, ()):
            nodes.port_holders.setdefault(port, {})[slot] = row


def _held(books: Books) -> dict[int, int]:
    """How many of a job's wanted allocations have a newest attempt that keeps another from being placed."""
    newest = np.concatenate([job.newest[: job.replicas] for job in books.jobs]) if len(books.jobs) else _NO_ROWS
    newest = newest[newest != NONE]
    holding = newest[IS_HOLDING[books.attempts.states(newest)]]
    numbers, counts = np.unique(books.attempts.job.gather(holding), return_counts=True)
    return dict(zip(numbers.tolist(), counts.tolist(), strict=True))


def _queue(books: Books, job: JobRecord) -> None:
    """In the order of ordinals; how long each has waited is not replicated."""
    if job.stopped:
        return
    ordinals = books.idle(job, 0, job.replicas)
    if (job.newest[: job.replicas] == NONE).all():
        job.waiting.add_range(0, job.replicas)
        books.jobs.note_waiting(job)
        return
    for ordinal in ordinals:
        books.reconsider(job, ordinal)
