"""Which allocations need an attempt, and from when on: derived from committed state alone.

Owns: the rule (`due_ms`) and the enumeration.  Must not know: where an attempt should go.
Nothing here is stored in the log, so no evaluation is lost with a replica: any leader derives
the same work from the state it applied.  The queues inside the state are kept in step with
every command; enumerating them costs what it returns, never a scan of all allocations.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Final

from msgspec import Struct

from scheduler.lifecycle import HOLDING, backoff_ms, starts_again
from scheduler.model import AllocationState, RestartPolicy

if TYPE_CHECKING:
    from scheduler.state.allocations import AttemptTable
    from scheduler.state.jobs import JobRecord
    from scheduler.state.state import State

FAIR_SHARE: Final = 16
"""Allocations taken from one job before the next job has its turn."""


class Pending(Struct, frozen=True):
    """One allocation that needs a placement; `attempt` is the number of the new attempt."""

    job: str
    allocation: str
    attempt: int
    not_before_ms: int


def due_ms(job: JobRecord, attempts: AttemptTable, ordinal: int) -> int | None:
    """When allocation `ordinal` may get its next attempt; 0 = now, None = it needs none.

    The rules, first match:
      1. a stopped job, or an ordinal beyond `replicas`, needs none;
      2. without an attempt: now;
      3. with a live attempt (also one that is stopping): none, its exit comes first;
      4. with an unknown one: none, unless its node is lost and ends `stop` workloads by itself: then now;
      5. an attempt of an earlier shape of the job, or one that was stopped on purpose: now;
      6. else the restart policy decides, after a back-off from the committed time of the exit.
    """
    if job.stopped or ordinal >= job.replicas:
        return None
    row = job.newest_row(ordinal)
    if row < 0:
        return 0
    state = attempts.state(row)
    if state in HOLDING:
        return None
    superseded = attempts.version[row] < job.shape_version or attempts.stop_index[row] > 0
    if state is AllocationState.UNKNOWN:
        may = attempts.lost_index[row] > 0 and attempts.fence[row] > 0
        return 0 if may and (superseded or job.policy is not RestartPolicy.NEVER) else None
    if superseded:
        return 0
    if not starts_again(job.policy, state, attempts.failures[row], job.spec.backoff_limit):
        return None
    return attempts.ended_ms[row] + backoff_ms(attempts.streak[row])


def pending(state: State, now_ms: int, *, limit: int = 1024) -> list[Pending]:
    """Allocations that may be placed at `now_ms` (Unix milliseconds), at most `limit`.

    A higher priority goes first; jobs of one priority take turns of `FAIR_SHARE`, so a job of
    100,000 does not keep a small one waiting.
    """
    taken: list[Pending] = []
    for _, equals in groupby(waiting_jobs(state, now_ms), key=lambda job: job.spec.priority):
        _take_turns(state, list(equals), taken, limit)
    return taken


def _take_turns(state: State, jobs: Sequence[JobRecord], taken: list[Pending], limit: int) -> None:
    queues = [(job, job.waiting.ready()) for job in jobs]
    while queues and len(taken) < limit:
        again = []
        for job, ready in queues:
            room = min(FAIR_SHARE, limit - len(taken))
            before = len(taken)
            for ordinal in ready:
                taken.append(Pending(job.id, job.allocation(ordinal), next_attempt(state, job, ordinal), 0))
                if len(taken) - before >= room:
                    again.append((job, ready))
                    break
            if len(taken) >= limit:
                return
        queues = again


def waiting_jobs(state: State, now_ms: int) -> list[JobRecord]:
    """Jobs with something to place at `now_ms`: highest priority first, then longest waiting."""
    jobs = state.books.jobs
    found = []
    for job_id in jobs.waiting:
        job = jobs.by_id[job_id]
        job.waiting.promote(now_ms)
        if job.waiting.ready_count():
            found.append(job)
    found.sort(key=lambda job: -job.spec.priority)
    return found


def next_attempt(state: State, job: JobRecord, ordinal: int) -> int:
    """The number of the attempt to come; the first is 1."""
    row = job.newest_row(ordinal)
    return 1 if row < 0 else state.books.attempts.attempt[row] + 1


def next_due_ms(state: State) -> int | None:
    """When the earliest back-off ends, Unix milliseconds; None when nothing backs off."""
    jobs = state.books.jobs
    times = [jobs.by_id[job_id].waiting.next_due_ms() for job_id in jobs.waiting]
    return min((time for time in times if time is not None), default=None)
