"""What the state looks like from outside: plain data for the API, agents and placement.

Owns: the shapes (keys of DESIGN.md §13).  Must not know: HTTP.  Nothing here changes state.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np

from scheduler.engine.world import World
from scheduler.lifecycle import job_state
from scheduler.model import AllocationState, Capacity
from scheduler.session import Assignment, StopOrder
from scheduler.state.allocations import LIVE_CODES, NONE, STATE_CODE, STATES
from scheduler.state.books import Books
from scheduler.state.columns import Int64s
from scheduler.state.jobs import JobRecord


def world(books: Books, absent: Sequence[str]) -> World:
    """Dense arrays of all nodes."""
    nodes = books.nodes
    count = len(nodes)
    columns = nodes.table.columns
    present = np.ones(count, dtype=bool)
    for name in absent:
        slot = nodes.slot_of.get(name)
        if slot is not None:
            present[slot] = False
    return World(
        names=nodes.names,
        capacity=tuple(columns[name].dense(count) for name in ("cpu", "memory", "pids")),
        used=tuple(columns[name].dense(count) for name in ("used_cpu", "used_memory", "used_pids")),
        generation=columns["generation"].dense(count),
        ready=columns["ready"].dense(count).astype(bool),
        present=present,
        hashes=columns["hash"].dense(count),
        ports=nodes.port_holders,
    )


def counts(books: Books, job: JobRecord) -> dict[str, int]:
    """Allocations of a job by what they are doing; `replicas` are wanted."""
    rows = job.newest[: job.replicas]
    rows = rows[rows != NONE]
    codes = books.attempts.table.columns["state"].gather(rows) if len(rows) else np.zeros(0, dtype=np.int64)
    by_code = np.bincount(codes, minlength=len(STATES))
    found = {state.value: int(by_code[code]) for code, state in enumerate(STATES)}
    return {"replicas": job.replicas, "waiting": len(job.waiting), "backing_off": job.waiting.backing_off(), **found}


def state_of(books: Books, job: JobRecord) -> str:
    """One word for the job (`lifecycle.JobState`)."""
    tally = counts(books, job)
    complete, broken = _settled(books, job)
    return job_state(
        stopped=job.stopped,
        replicas=job.replicas,
        live=job.live,
        running=tally[AllocationState.RUNNING],
        waiting=tally["waiting"],
        complete=complete,
        broken=broken,
        batch=job.spec.workload.kind == "batch",
    ).value


def _settled(books: Books, job: JobRecord) -> tuple[int, int]:
    """(complete, broken): allocations that ended and wait for nothing."""
    settled = job.newest[: job.replicas] != NONE
    settled[list(job.waiting.ready())] = False
    settled[list(job.waiting.later())] = False
    rows = job.newest[: job.replicas][settled]
    if not len(rows):
        return 0, 0
    codes = books.attempts.table.columns["state"].gather(rows)
    complete = int((codes == STATE_CODE[AllocationState.COMPLETE]).sum())
    live = int(np.isin(codes, LIVE_CODES).sum())
    return complete, len(rows) - complete - live


def job_summary(books: Books, job: JobRecord) -> dict[str, Any]:
    """A job without its allocations."""
    return {
        "job": job.id,
        "version": job.version,
        "kind": job.spec.workload.kind,
        "state": state_of(books, job),
        "replicas": job.replicas,
        "counts": counts(books, job),
        "index": job.submitted_index,
    }


def job_detail(books: Books, job: JobRecord) -> dict[str, Any]:
    """A job with its allocations; surplus ones that still live are listed too."""
    allocations = _allocations(books, job)
    workload = job.spec.workload
    return {
        **job_summary(books, job),
        "allocations": allocations,
        "command": list(workload.command),
        "requests": capacity(job.need),
        "limits": limits(job),
        "ports": [{"name": name, "hostPort": port} for name, port in workload.ports],
        "restartPolicy": job.policy.value,
        "backoffLimit": job.spec.backoff_limit,
    }


def limits(job: JobRecord) -> dict[str, int]:
    """The limits of a job; 0 = none asked for."""
    bounds = job.spec.workload.limits
    return {"cpu_millicores": bounds.cpu_millicores, "memory_bytes": bounds.memory_bytes, "pids": bounds.pids}


def allocation(books: Books, allocation: str) -> dict[str, Any] | None:
    """One allocation by id, or None."""
    job, ordinal = books.locate(allocation)
    if job is None or (ordinal >= job.replicas and job.newest_row(ordinal) == NONE):
        return None
    row = job.newest_row(ordinal)
    (newest,) = _attempts(books, np.array([row])) if row != NONE else (_unplaced(job, ordinal),)
    return _with_history(books, job, ordinal, row, newest)


def _allocations(books: Books, job: JobRecord) -> list[dict[str, Any]]:
    """Every allocation that is wanted or still has an attempt, by ordinal."""
    kept = np.flatnonzero((job.newest != NONE) | (np.arange(len(job.newest)) < job.replicas))
    rows = job.newest[kept]
    shown = iter(_attempts(books, rows[rows != NONE]))
    return [
        _with_history(books, job, ordinal, row, next(shown) if row != NONE else _unplaced(job, ordinal))
        for ordinal, row in zip(kept.tolist(), rows.tolist(), strict=True)
    ]


def _with_history(books: Books, job: JobRecord, ordinal: int, row: int, newest: dict[str, Any]) -> dict[str, Any]:
    older = books.attempts.chain(books.attempts.previous(row)) if row != NONE else []
    newest["waiting"] = ordinal in job.waiting
    newest["previous"] = _attempts(books, np.array(older, dtype=np.int64)) if older else []
    return newest


def _unplaced(job: JobRecord, ordinal: int) -> dict[str, Any]:
    return {
        "id": job.allocation(ordinal), "node": None, "epoch": 0, "attempt": 0, "state": "pending",
        "pid": None, "cgroup": None, "exit": None,
    }  # fmt: skip


def _attempts(books: Books, rows: Int64s) -> list[dict[str, Any]]:
    """The attempts of many rows, in their order."""
    attempts, nodes, jobs = books.attempts, books.nodes.entries, books.jobs.by_number
    columns = (attempts.job, attempts.ordinal, attempts.node, attempts.epoch, attempts.attempt, attempts.pid)
    values = zip(
        rows.tolist(), attempts.states(rows).tolist(), *(c.gather(rows).tolist() for c in columns), strict=True
    )
    found = []
    for row, code, number, ordinal, slot, epoch, attempt, pid in values:
        end = attempts.exits.get(row)
        found.append({
            "id": jobs[number].allocation(ordinal), "node": nodes[slot].node, "epoch": epoch, "attempt": attempt,
            "state": STATES[code].value, "pid": pid or None, "cgroup": attempts.cgroups.get(row),
            "exit": None if end is None else msgspec.to_builtins(end),
        })  # fmt: skip
    return found


def capacity(amounts: Capacity) -> dict[str, int]:
    """Amounts with their units in the names."""
    return {
        "cpu_millicores": amounts.cpu_millicores,
        "memory_bytes": amounts.memory_bytes,
        "pids": amounts.pids,
    }


def node(books: Books, slot: int) -> dict[str, Any]:
    """A node without what is on it."""
    entry = books.nodes.entries[slot]
    return {
        "id": entry.node,
        "state": entry.state.value,
        "owner": None,
        "isolation": {"level": entry.isolation, "why": entry.isolation_why},
        "capacity": capacity(entry.capacity),
        "allocated": capacity(books.nodes.used(slot)),
        "allocations": len(books.nodes.rows[slot]),
        "incarnation": entry.incarnation,
        "boot_id": entry.boot_id,
        "generation": entry.generation,
        "address": entry.address,
    }


def node_detail(books: Books, slot: int) -> dict[str, Any]:
    """A node with its live attempts, booked ports and stop records."""
    attempts = books.attempts
    placed = sorted(books.nodes.rows[slot], key=lambda row: (attempts.job[row], attempts.ordinal[row]))
    rows = np.array(placed, dtype=np.int64)
    return {
        **node(books, slot),
        "allocations": _attempts(books, rows),
        "ports": sorted(port for port, holders in books.nodes.port_holders.items() if slot in holders),
        "stops": [
            {"id": stop.allocation, "epoch": stop.epoch, "index": stop.index} for stop in desired(books, slot)[1]
        ],
    }


def desired(books: Books, slot: int) -> tuple[tuple[Assignment, ...], tuple[StopOrder, ...]]:
    """What the node shall run, and its stop records until their exits are confirmed."""
    attempts = books.attempts
    assignments, stops = [], []
    for row in books.nodes.rows[slot]:
        job, epoch = books.job_of(row), attempts.epoch[row]
        name = job.allocation(attempts.ordinal[row])
        if attempts.state(row) is AllocationState.STOPPING:
            stops.append(StopOrder(name, epoch, attempts.stop_index[row]))
        else:
            assert attempts.version[row] >= job.shape_version, "an attempt of an old shape is being stopped"
            assignments.append(Assignment(name, epoch, attempts.attempt[row], job.spec.workload))
    stops.extend(StopOrder(name, epoch, at) for (name, epoch), at in books.nodes.stops[slot].items())
    return tuple(assignments), tuple(stops)
