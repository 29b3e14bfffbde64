"""The steps that keep jobs, attempts and nodes in agreement.

Owns: placing, stopping and ending an attempt as one change of all three tables, and the
trace events of each.  Must not know: commands, or who asked.

Every live attempt is booked on exactly one node, counted in exactly one job, and the newest
of its allocation; so an allocation never has two live attempts.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from scheduler.evaluations import due_ms
from scheduler.lifecycle import (
    LIVE,
    STABLE_AFTER_MS,
    happening_of,
    next_state,
)
from scheduler.model import AllocationState, Exit, ExitReason
from scheduler.state.allocations import LIVE_CODES, NONE, STOPPABLE_CODES, AttemptTable
from scheduler.state.jobs import STOPPED_JOBS_KEPT, JobRecord, JobTable, split_allocation
from scheduler.state.nodes import NodeTable
from scheduler.state.results import Change

LOST_EXIT = Exit(code=None, signal=None, reason=ExitReason.LOST, status_known=False, detail="the node was rebooted")


class Books:
    """The three tables and the steps that change more than one of them."""

    def __init__(self) -> None:
        self.jobs = JobTable()
        self.nodes = NodeTable()
        self.attempts = AttemptTable()

    def find(self, allocation: str, epoch: int) -> int:
        """The row of this attempt, or NONE."""
        job, ordinal = self.locate(allocation)
        return NONE if job is None else self.attempts.find(job.newest_row(ordinal), epoch)

    def locate(self, allocation: str) -> tuple[JobRecord | None, int]:
        """The job and ordinal of an allocation id; (None, 0) when there is no such job."""
        parts = split_allocation(allocation)
        job = self.jobs.get(parts[0]) if parts else None
        return (job, parts[1]) if job is not None and parts is not None else (None, 0)

    def is_live(self, row: int) -> bool:
        """Whether this attempt exists and still books capacity."""
        return row != NONE and self.attempts.state(row) in LIVE

    def place(self, job: JobRecord, ordinal: int, slot: int, *, index: int, time_ms: int) -> int:
        """Book a new attempt; the caller has checked every rule.  Returns its row."""
        attempts = self.attempts
        before = job.newest_row(ordinal)
        assert not self.is_live(before), "an allocation has one live attempt at most"
        attempt = attempts.attempt[before] + 1 if before != NONE else 1
        row = attempts.add(
            job=job.number, ordinal=ordinal, attempt=attempt, epoch=index, node=slot, version=job.version,
            need=job.need, ports=job.ports, placed_ms=time_ms, previous=before,
        )  # fmt: skip
        if before != NONE and attempts.version[before] >= job.shape_version and not attempts.stop_index[before]:
            attempts.streak[row], attempts.failures[row] = attempts.streak[before], attempts.failures[before]
        job.newest[ordinal] = row
        job.waiting.discard(ordinal)
        self.jobs.note_waiting(job)
        job.count_on(slot, 1)
        self.nodes.book(slot, row, job.need, job.ports)
        self.nodes.touch(slot, index)
        return row

    def order_stops(self, job: JobRecord, first: int, index: int) -> None:
        """Commit the stop of every live attempt from ordinal `first` on.

        A stopping attempt is its own stop record: the node is told of it until it reports the exit.
        """
        rows = job.newest[first:]
        rows = rows[rows != NONE]
        rows = rows[np.isin(self.attempts.states(rows), STOPPABLE_CODES)]
        if not len(rows):
            return
        self.attempts.order_stop(rows, index)
        for slot in np.unique(self.attempts.node.gather(rows)).tolist():
            self.nodes.touch(slot, index)

    def idle(self, job: JobRecord, first: int, end: int) -> list[int]:
        """Ordinals in ``[first, end)`` without a live attempt."""
        rows = job.newest[first:end]
        live = np.zeros(len(rows), dtype=bool)
        tried = rows != NONE
        live[tried] = np.isin(self.attempts.states(rows[tried]), LIVE_CODES)
        return (np.flatnonzero(~live) + first).tolist()

    def end(self, row: int, end: Exit, *, index: int, time_ms: int) -> Change:
        """The node (or its reboot) says that the attempt is over: the only step that frees capacity."""
        attempts = self.attempts
        job, ordinal, slot = self.job_of(row), attempts.ordinal[row], attempts.node[row]
        after = next_state(attempts.state(row), happening_of(end))
        assert after is not None, "only live attempts end"
        attempts.set_state(row, after)
        attempts.exits[row] = end
        attempts.ended_ms[row] = time_ms
        self._count_end(row, after, time_ms)
        self.nodes.unbook(slot, row, attempts.need(row), attempts.ports.get(row, ()))
        self.nodes.touch(slot, index)
        job.count_on(slot, -1)
        change = self.place_event("release", row, index=index, by="", why=f"{after}: {end.reason}")
        self._after_end(job, ordinal)
        return change

    def _count_end(self, row: int, ended: AllocationState, time_ms: int) -> None:
        attempts = self.attempts
        if attempts.stop_index[row]:
            return
        if ended is AllocationState.FAILED:
            attempts.failures[row] = attempts.failures[row] + 1
        started_ms = attempts.started_ms[row]
        stable = started_ms > 0 and time_ms - started_ms >= STABLE_AFTER_MS
        attempts.streak[row] = 1 if stable else attempts.streak[row] + 1

    def _after_end(self, job: JobRecord, ordinal: int) -> None:
        if ordinal >= job.replicas:
            self.forget(job, ordinal)
        self.reconsider(job, ordinal)
        if job.stopped and job.live == 0:
            self.retire(job)

    def forget(self, job: JobRecord, ordinal: int) -> None:
        """Drop the ended attempts of an allocation that is wanted no more."""
        row = job.newest_row(ordinal)
        if row != NONE:
            self.attempts.drop(row)
            job.newest[ordinal] = NONE

    def retire(self, job: JobRecord) -> None:
        """A stopped job has nothing left; the oldest beyond the bound are forgotten."""
        jobs = self.jobs
        jobs.retired[job.id] = None
        while len(jobs.retired) > STOPPED_JOBS_KEPT:
            oldest = jobs.by_id[next(iter(jobs.retired))]
            for ordinal in range(len(oldest.newest)):
                self.forget(oldest, ordinal)
            jobs.remove(oldest)

    def reconsider(self, job: JobRecord, ordinal: int) -> None:
        """Put the allocation on or off the queue, as its newest attempt says."""
        due = due_ms(job, self.attempts, ordinal)
        if due is None:
            job.waiting.discard(ordinal)
        else:
            job.waiting.add(ordinal, due)
        self.jobs.note_waiting(job)

    def job_of(self, row: int) -> JobRecord:
        """The job an attempt belongs to."""
        return self.jobs.by_number[self.attempts.job[row]]

    def allocation_of(self, row: int) -> str:
        """The allocation id of an attempt."""
        return self.job_of(row).allocation(self.attempts.ordinal[row])

    def place_event(self, do: str, row: int, *, index: int, by: str, why: str) -> Change:
        """The trace's `place` event of an attempt (bind or release)."""
        attempts = self.attempts
        job = self.job_of(row)
        fields: dict[str, Any] = {
            "do": do,
            "index": index,
            "allocation": job.allocation(attempts.ordinal[row]),
            "attempt": attempts.attempt[row],
            "job": job.id,
            "node": self.nodes.entries[attempts.node[row]].node,
            "epoch": attempts.epoch[row],
            "requests": {
                "cpu_millicores": attempts.need(row).cpu_millicores,
                "memory_bytes": attempts.need(row).memory_bytes,
                "pids": attempts.need(row).pids,
            },
            "ports": list(attempts.ports.get(row, ())),
            "by": by,
            "why": why,
        }
        return "place", fields
