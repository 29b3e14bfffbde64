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
from scheduler.model import NO_RULES, AllocationState, Capacity
from scheduler.session import Assignment, StopOrder
from scheduler.state.allocations import IS_LIVE, NONE, STATE_CODE, STATES
from scheduler.state.books import Books
from scheduler.state.jobs import JobRecord
from scheduler.state.listing import Listing, attempts_shown
from scheduler.taints import spelled


def world(books: Books, absent: Sequence[str], owner: str = "") -> World:
    """Dense arrays of all nodes; with `owner` also which of them are that replica's."""
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
        labels=nodes.marks.labels,
        taints=nodes.marks.taints,
        topology=nodes.topology(),
        groups={job.id: job.group for job in books.jobs if job.per_node} if books.jobs.ruled else None,
        own=books.shards.owned_by(owner, nodes.names) if owner else None,
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
        unknown=tally[AllocationState.UNKNOWN],
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
    live = int(IS_LIVE[codes].sum())
    return complete, len(rows) - complete - live


def job_summary(books: Books, job: JobRecord) -> dict[str, Any]:
    """A job without its allocations."""
    return {
        "job": job.id,
        "version": job.version,
        "kind": job.spec.workload.kind,
        "state": state_of(books, job),
        "replicas": job.replicas,
        "priority": job.spec.priority,
        "counts": counts(books, job),
        "index": job.submitted_index,
    }


def job_detail(books: Books, job: JobRecord) -> dict[str, Any]:
    """A job with its allocations; surplus ones that still live are listed too."""
    return {**job_head(books, job), "allocations": Listing(books, job).all()}


def job_head(books: Books, job: JobRecord) -> dict[str, Any]:
    """A job in full, but for its allocations."""
    workload = job.spec.workload
    return {
        **job_summary(books, job),
        "command": list(workload.command),
        "requests": capacity(job.need),
        "limits": limits(job),
        "nodeSelector": dict(job.spec.node_selector),
        "tolerations": [msgspec.to_builtins(toleration) for toleration in job.spec.tolerations],
        **_rules(job),
        "ports": [{"name": name, "hostPort": port} for name, port in workload.ports],
        "restartPolicy": job.policy.value,
        "backoffLimit": job.spec.backoff_limit,
    }


def _rules(job: JobRecord) -> dict[str, Any]:
    """Its rules, where it has any."""
    rules = job.spec.rules
    if rules == NO_RULES:
        return {}
    return {
        "labels": dict(rules.labels),
        "rules": {
            "nodeTerms": msgspec.to_builtins(rules.node_terms),
            "nodePreferences": msgspec.to_builtins(rules.node_preferences),
            **dict(
                zip(("near", "apart", "ratherNear", "ratherApart"), msgspec.to_builtins(rules.neighbours), strict=True)
            ),
            "topologySpreadConstraints": msgspec.to_builtins(rules.spread),
        },
    }


def limits(job: JobRecord) -> dict[str, int]:
    """The limits of a job; 0 = none asked for."""
    bounds = job.spec.workload.limits
    return {"cpu_millicores": bounds.cpu_millicores, "memory_bytes": bounds.memory_bytes, "pids": bounds.pids}


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
        "state": entry.shown_state,
        "settled": entry.settled,
        "owner": books.shards.owner(entry.node),
        "labels": entry.all_labels(),
        "taints": [spelled(taint) for taint in entry.all_taints()],
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
    return {
        **node(books, slot),
        "allocations": [_attempt(books, row) for row in placed],
        "ports": sorted(port for port, holders in books.nodes.port_holders.items() if slot in holders),
        "stops": [
            {"id": stop.allocation, "epoch": stop.epoch, "index": stop.index} for stop in desired(books, slot)[1]
        ],
    }


def _attempt(books: Books, row: int) -> dict[str, Any]:
    job = books.job_of(row)
    (shown,) = attempts_shown(books.attempts, books.nodes.names, (job.namespace, job.name), np.array([row]))
    return shown


def desired(books: Books, slot: int) -> tuple[tuple[Assignment, ...], tuple[StopOrder, ...]]:
    """What the node shall run, and its stop records until their exits are confirmed."""
    attempts = books.attempts
    assignments, stops = [], []
    for row in sorted(books.nodes.rows[slot]):
        job, epoch = books.job_of(row), attempts.epoch[row]
        name = job.allocation(attempts.ordinal[row])
        if attempts.standing(row) is AllocationState.STOPPING:
            stops.append(StopOrder(name, epoch, attempts.stop_index[row]))
        else:
            assert attempts.version[row] >= job.shape_version, "an attempt of an old shape is being stopped"
            assignments.append(Assignment(name, epoch, attempts.attempt[row], job.spec.workload))
    stops.extend(StopOrder(name, epoch, at) for (name, epoch), at in books.nodes.stops.of(slot).items())
    return tuple(assignments), tuple(stops)
