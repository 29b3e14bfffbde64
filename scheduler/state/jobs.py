"""The jobs: what was asked for, by which request, and the newest attempt of each allocation.

Owns: job records, their remembered requests, and which jobs are finished.
Must not know: nodes, or how commands are decided.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import numpy as np
from msgspec import Struct

from scheduler.engine.between import crosses
from scheduler.engine.groups import Group
from scheduler.engine.neighbours import Newcomer
from scheduler.model import Capacity, ResolvedJob, allocation_id, job_id
from scheduler.state.columns import Int64s
from scheduler.state.paged import Objects, Section, Value
from scheduler.state.waiting import Waiting

REQUESTS_KEPT: Final = 64
JOBS_MAX: Final = 100_000
ALLOCATIONS_MAX: Final = 1_000_000
JOB_LABEL: Final = "skerry/job"
"""A label that all workloads of a job have: its name."""
_NONE: Final = -1


class Request(Struct, frozen=True, array_like=True):
    """A request id that was granted: digest of its body, and what it was answered."""

    digest: bytes
    index: int
    version: int
    outcome: str


class JobRow(Struct, frozen=True, array_like=True):
    """What is replicated of a job besides its attempts."""

    spec: ResolvedJob
    version: int
    shape_version: int
    submitted_index: int
    stopped: bool
    requests: tuple[tuple[str, Request], ...]
    """By request id, oldest first."""


class JobRecord:
    """One job: what its `JobRow` says, and what is derived from it and from its attempts."""

    def __init__(self, number: int, spec: ResolvedJob) -> None:
        workload = spec.workload
        self.number = number
        self.id = job_id(workload.namespace, workload.job)
        self.namespace, self.name = workload.namespace, workload.job
        self.version = 0
        self.shape_version = 0
        """Version since which attempts are of the present shape (anything but the number of replicas)."""
        self.submitted_index = 0
        self.stopped = False
        self.spec = spec
        self.requests: dict[str, Request] = {}
        self.newest: Int64s = np.zeros(0, dtype=np.int64)
        """Row of the newest attempt by ordinal, -1 = none; may be longer than `replicas`."""
        self.live = 0
        self.per_node: dict[int, int] = {}
        """Live attempts by node slot."""
        self.waiting = Waiting()
        self._derive()

    def _derive(self) -> None:
        spec = self.spec
        self.replicas = spec.replicas
        self.need = Capacity(spec.cpu_millicores, spec.memory_bytes, spec.pids)
        self.ports = tuple(port for _, port in spec.workload.ports)
        self.policy = spec.restart_policy
        labels = {**dict(spec.rules.labels), JOB_LABEL: self.name}
        self.newcomer = Newcomer(self.namespace, labels, spec.rules.neighbours)
        self.group = Group(self.namespace, labels, self.per_node, spec.rules.neighbours)
        """Its live attempts, as rules between workloads see them; the counts are `per_node` itself."""

    def put(self, spec: ResolvedJob) -> None:
        """Take a new specification."""
        self.spec = spec
        self._derive()
        missing = spec.replicas - len(self.newest)
        if missing > 0:
            self.newest = np.concatenate([self.newest, np.full(missing, _NONE, dtype=np.int64)])

    def allocation(self, ordinal: int) -> str:
        """The id of one allocation."""
        return allocation_id(self.namespace, self.name, ordinal)

    def newest_row(self, ordinal: int) -> int:
        """Row of the newest attempt, or -1."""
        return int(self.newest[ordinal]) if 0 <= ordinal < len(self.newest) else _NONE

    def remember(self, request_id: str, request: Request) -> None:
        """Keep a granted request id; the oldest beyond `REQUESTS_KEPT` are forgotten."""
        self.requests[request_id] = request
        while len(self.requests) > REQUESTS_KEPT:
            del self.requests[next(iter(self.requests))]

    def count_on(self, slot: int, change: int) -> None:
        """One live attempt more or less on a node."""
        self.live += change
        after = self.per_node.get(slot, 0) + change
        assert after >= 0, "live attempts cannot be negative"
        if after:
            self.per_node[slot] = after
        else:
            del self.per_node[slot]


class JobTable:
    """All jobs by id, in order of their creation."""

    def __init__(self) -> None:
        self.rows: Objects[JobRow] = Objects(JobRow)
        """By job number; what the records were saved as."""
        self.by_id: dict[str, JobRecord] = {}
        self.by_number: dict[int, JobRecord] = {}
        self.next_number = 1
        self.replicas_total = 0
        self.ruled: dict[int, None] = {}
        """Numbers of jobs with rules about other workloads."""
        self.waiting: dict[str, None] = {}
        """Jobs of which something waits, longest first."""
        self.finished: dict[int, int] = {}
        """Jobs of which nothing lives or waits: number → since when (Unix milliseconds), longest finished first."""

    def __len__(self) -> int:
        return len(self.by_id)

    def __iter__(self) -> Iterator[JobRecord]:
        return iter(self.by_id.values())

    def get(self, job: str) -> JobRecord | None:
        """The job with this id."""
        return self.by_id.get(job)

    def create(self, spec: ResolvedJob) -> JobRecord:
        """A new record, version 0 until the specification is put."""
        record = JobRecord(self.next_number, spec)
        self.next_number += 1
        self.by_id[record.id] = self.by_number[record.number] = record
        return record

    def save(self, record: JobRecord) -> None:
        """Write down what was changed of a record; to be called whenever one of `JobRow`'s fields was."""
        self.rows[record.number] = JobRow(
            record.spec,
            record.version,
            record.shape_version,
            record.submitted_index,
            record.stopped,
            tuple(record.requests.items()),
        )
        self._note_rules(record)

    def _note_rules(self, record: JobRecord) -> None:
        if crosses(record.spec.rules):
            self.ruled[record.number] = None
        else:
            self.ruled.pop(record.number, None)

    def note_waiting(self, record: JobRecord) -> None:
        """Keep `waiting` true after a change of the record's queues."""
        if len(record.waiting):
            self.waiting.setdefault(record.id)
        else:
            self.waiting.pop(record.id, None)

    def remove(self, record: JobRecord) -> None:
        """Forget a job of which nothing lives."""
        assert record.live == 0, "a job with live attempts is never forgotten"
        del self.by_id[record.id]
        del self.by_number[record.number]
        self.rows.discard(record.number)
        self.replicas_total -= record.replicas
        self.finished.pop(record.number, None)
        self.waiting.pop(record.id, None)
        self.ruled.pop(record.number, None)

    def read_back(self, number: int, row: JobRow) -> JobRecord:
        """The record of a row that was loaded; its attempts are still to be counted."""
        record = JobRecord(number, row.spec)
        record.version, record.shape_version = row.version, row.shape_version
        record.submitted_index, record.stopped = row.submitted_index, row.stopped
        record.requests = dict(row.requests)
        self.by_id[record.id] = self.by_number[number] = record
        self.replicas_total += record.replicas
        self._note_rules(record)
        return record

    def sections(self) -> dict[str, Section]:
        """What of this is replicated."""
        counters: Value[tuple[int, tuple[tuple[int, int], ...]]] = Value(
            tuple[int, tuple[tuple[int, int], ...]],
            lambda: (self.next_number, tuple(self.finished.items())),
            self._put_counters,
        )
        return {"jobs/rows": self.rows, "jobs/counters": counters}

    def _put_counters(self, value: tuple[int, tuple[tuple[int, int], ...]]) -> None:
        self.next_number, finished = value
        self.finished = dict(finished)


def split_allocation(allocation: str) -> tuple[str, int] | None:
    """(job id, ordinal) of ``namespace/name.index``, or None when it is no such id."""
    job, dot, text = allocation.rpartition(".")
    if not dot or not text.isascii() or not text.isdigit() or len(text) > 9 or (text[0] == "0" and text != "0"):
        return None
    return job, int(text)
