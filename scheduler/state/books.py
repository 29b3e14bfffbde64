"""The steps that keep jobs, attempts and nodes in agreement.

Owns: placing, stopping and ending an attempt as one change of all three tables, and the
trace events of each.  Must not know: commands, or who asked.

Every live attempt is booked on exactly one node and counted in exactly one job, and is the newest of
its allocation, unless it is what became of one on a lost node: unknown, or stopping after its node's
return.  So an allocation never has two attempts of which both may be wanted.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from scheduler.evaluations import due_ms
from scheduler.lifecycle import (
    HOLDING,
    LIVE,
    STABLE_AFTER_MS,
    Happening,
    happening_of,
    next_state,
)
from scheduler.model import AllocationState, Exit, ExitReason
from scheduler.state.allocations import IS_HOLDING, IS_STOPPABLE, NONE, UNKNOWN_CODE, AttemptTable
from scheduler.state.columns import Int64s
from scheduler.state.jobs import JobRecord, JobTable, split_allocation
from scheduler.state.nodes import NodeTable
from scheduler.state.paged import Section
from scheduler.state.results import Change
from scheduler.state.shards import ShardTable


def fence_of(job: JobRecord) -> int:
    """What `AttemptTable.fence` says of an attempt of the job's present shape."""
    workload = job.spec.workload
    return 1 + workload.grace_s if workload.on_disconnect == "stop" else 0


LOST_EXIT = Exit(code=None, signal=None, reason=ExitReason.LOST, status_known=False, detail="the node was rebooted")


class Books:
    """The three tables and the steps that change more than one of them."""

    def __init__(self) -> None:
        self.jobs = JobTable()
        self.nodes = NodeTable()
        self.attempts = AttemptTable()
        self.shards = ShardTable()

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

    def is_holding(self, row: int) -> bool:
        """Whether this attempt keeps another of its allocation from being placed."""
        return row != NONE and self.attempts.state(row) in HOLDING

    def place(self, job: JobRecord, ordinal: int, slot: int, *, index: int, time_ms: int) -> int:
        """Book a new attempt; the caller has checked every rule.  Returns its row."""
        attempts = self.attempts
        before = job.newest_row(ordinal)
        assert not self.is_holding(before), "an allocation has one attempt that may be wanted"
        attempt = attempts.attempt[before] + 1 if before != NONE else 1
        row = attempts.add(
            job=job.number, ordinal=ordinal, attempt=attempt, epoch=index, node=slot, version=job.version,
            need=job.need, ports=job.ports, placed_ms=time_ms, previous=before, fence=fence_of(job),
        )  # fmt: skip
        if before != NONE and attempts.version[before] >= job.shape_version and not attempts.stop_index[before]:
            attempts.streak[row], attempts.failures[row] = attempts.streak[before], attempts.failures[before]
        if self.is_live(before):
            self._supersede(before, index)
        job.newest[ordinal] = row
        job.waiting.discard(ordinal)
        self.jobs.note_waiting(job)
        job.count_on(slot, 1)
        self.nodes.book(slot, row, job.need, job.ports)
        self.nodes.touch(slot, index)
        return row

    def _supersede(self, row: int, index: int) -> None:
        """An unknown attempt is replaced: its node, should it come back, is told to stop it."""
        if not self.attempts.stop_index[row]:
            self.attempts.stop_index[row] = index
        self.nodes.touch(self.attempts.node[row], index)

    def order_stops(self, job: JobRecord, first: int, index: int) -> None:
        """Commit the stop of every live attempt from ordinal `first` on.

        A stopping attempt is its own stop record: the node is told of it until it reports the exit.
        """
        rows = job.newest[first:]
        self.order_stop_rows(rows[rows != NONE], index)

    def order_stop_rows(self, rows: Int64s, index: int) -> None:
        """Commit the stop of those of these attempts that are live."""
        if not len(rows):
            return
        for row in rows[self.attempts.states(rows) == UNKNOWN_CODE].tolist():
            self._supersede(row, index)
        rows = rows[IS_STOPPABLE[self.attempts.states(rows)]]
        if not len(rows):
            return
        self.attempts.order_stop(rows, index)
        for slot in np.unique(self.attempts.node.gather(rows)).tolist():
            self.nodes.touch(slot, index)

    def idle(self, job: JobRecord, first: int, end: int) -> list[int]:
        """Ordinals in ``[first, end)`` that no attempt holds."""
        rows = job.newest[first:end]
        if not len(rows):
            return []
        held = np.zeros(len(rows), dtype=bool)
        tried = rows != NONE
        held[tried] = IS_HOLDING[self.attempts.states(rows[tried])]
        return (np.flatnonzero(~held) + first).tolist()

    def note_started(self, row: int, time_ms: int) -> None:
        """The node says that the attempt runs."""
        attempts = self.attempts
        before = attempts.state(row)
        after = next_state(attempts.standing(row), Happening.STARTED)
        assert after is not None, "a live attempt may be reported running"
        attempts.set_state(row, after)
        if attempts.started_ms[row] == 0:
            attempts.started_ms[row] = time_ms
        if before is AllocationState.UNKNOWN:
            attempts.lost_index[row] = 0
            self.reconsider(self.job_of(row), attempts.ordinal[row])

    def end(self, row: int, end: Exit, *, index: int, time_ms: int) -> Change:
        """The node (or its reboot) says that the attempt is over: the only step that frees capacity."""
        attempts = self.attempts
        job, ordinal, slot = self.job_of(row), attempts.ordinal[row], attempts.node[row]
        after = next_state(attempts.standing(row), happening_of(end))
        assert after is not None, "only live attempts end"
        attempts.set_state(row, after)
        attempts.lost_index[row] = 0
        attempts.exits[row] = end
        attempts.ended_ms[row] = time_ms
        self._count_end(row, after, time_ms)
        self.nodes.unbook(slot, row, attempts.need(row), attempts.ports.get(row, ()))
        self.nodes.touch(slot, index)
        job.count_on(slot, -1)
        change = self.place_event("release", row, index=index, by="", why=f"{after}: {end.reason}")
        self._after_end(job, ordinal, time_ms)
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

    def _after_end(self, job: JobRecord, ordinal: int, time_ms: int) -> None:
        if ordinal >= job.replicas:
            self.forget(job, ordinal)
        self.reconsider(job, ordinal)
        self.note_finished(job, time_ms)

    def forget(self, job: JobRecord, ordinal: int) -> None:
        """Drop the ended attempts of an allocation that is wanted no more, once all have ended."""
        row = job.newest_row(ordinal)
        if row != NONE and not any(self.is_live(kept) for kept in self.attempts.chain(row)):
            self.attempts.drop(row)
            job.newest[ordinal] = NONE

    def note_finished(self, job: JobRecord, time_ms: int) -> None:
        """Keep `jobs.finished` true: nothing of the job lives or waits, and nothing will by itself."""
        idle = job.live == 0 and not len(job.waiting)
        if idle and (job.stopped or job.replicas > 0 or job.spec.workload.kind == "batch"):
            self.jobs.finished.setdefault(job.number, time_ms)
        else:
            self.jobs.finished.pop(job.number, None)

    def remove_job(self, job: JobRecord) -> None:
        """Forget a finished job with all its attempts."""
        self.attempts.drop_many(job.newest[job.newest != NONE])
        self.jobs.remove(job)

    def sections(self) -> dict[str, Section]:
        """Everything that is replicated, by name; the rest is derived (`scheduler.state.rebuild`)."""
        return {**self.jobs.sections(), **self.nodes.sections(), **self.attempts.sections(), **self.shards.sections()}

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
