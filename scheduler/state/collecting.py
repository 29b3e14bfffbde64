"""Applying Collect: forgetting what finished long ago.

Owns: which jobs are garbage, and in what order.  Must not know: who asks, or what time it is.

A finished job has no live attempt: each of them was reported over by its node, or its node was
rebooted.  So nothing that still books capacity is ever collected (DESIGN.md §4).  With a job go
its attempts and its remembered requests; their rows are used again, under a new row generation.
"""

from __future__ import annotations

from typing import Final

from scheduler.commands import Collect
from scheduler.state.books import Books
from scheduler.state.jobs import JobRecord
from scheduler.state.results import Change, CollectResult

FINISHED_KEPT_MS: Final = 3_600_000
FINISHED_KEPT: Final = 100_000
"""Finished allocations; a job counts as one more than it has."""
COLLECTED_AT_ONCE: Final = 2_048
"""Allocations in one command, unless a single job has more."""


def due(books: Books, now_ms: int) -> Collect | None:
    """The command that is worth proposing at `now_ms` (Unix milliseconds), if any."""
    command = Collect(max(0, now_ms - FINISHED_KEPT_MS), FINISHED_KEPT, COLLECTED_AT_ONCE, now_ms)
    return command if _garbage(books, command) else None


def collect(books: Books, index: int, command: Collect) -> CollectResult:
    """Forget what `command` describes."""
    changes: list[Change] = []
    collected = []
    for job in _garbage(books, command):
        books.remove_job(job)
        collected.append(job.id)
        fields = {"do": "collect", "index": index, "job": job.id, "version": job.version}
        changes.append(("job", fields | {"rows": books.attempts.table.rows_used()}))
    return CollectResult(index=index, jobs=tuple(collected), changes=tuple(changes))


def _garbage(books: Books, command: Collect) -> list[JobRecord]:
    """Longest finished first, as many as go at once."""
    jobs = books.jobs
    kept = sum(_weight(jobs.by_number[number]) for number in jobs.finished)
    found: list[JobRecord] = []
    taken = 0
    for number, since_ms in jobs.finished.items():
        job = jobs.by_number[number]
        if since_ms >= command.finished_before_ms and kept <= command.keep_max:
            break
        if found and taken + _weight(job) > command.allocations_max:
            break
        found.append(job)
        taken += _weight(job)
        kept -= _weight(job)
    return found


def _weight(job: JobRecord) -> int:
    return 1 + job.replicas
