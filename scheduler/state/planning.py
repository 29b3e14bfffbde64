"""Applying Plan: every placement is checked again, one by one.

Owns: the hard rules.  Must not know: scores.  The decider looked at an older state, so this
check, not the decider, is what keeps nodes from being overfilled (DESIGN.md §4).
"""

from __future__ import annotations

from typing import Any

from cluster.shards import ring_of
from scheduler.commands import Placement, Plan
from scheduler.engine.marks import untolerated
from scheduler.model import NodeState
from scheduler.state.allocations import NONE
from scheduler.state.books import Books
from scheduler.state.jobs import JobRecord
from scheduler.state.results import Change, PlanResult, Refusal
from scheduler.state.ruling import Ruling
from scheduler.taints import spelled

Fault = tuple[str, str]
"""(code, reason)."""


def apply_plan(books: Books, index: int, plan: Plan) -> PlanResult:
    """Book what still fits; refuse the rest with a reason each."""
    placed: list[tuple[str, int, int]] = []
    refused: list[Refusal] = []
    changes: list[Change] = []
    ruling = Ruling(books)
    for placement in plan.placements:
        fault = _fault(books, placement, plan.ring_epoch, ruling)
        if fault is not None:
            refused.append(Refusal(placement.allocation, placement.attempt, placement.node, *fault))
            kind, fields = _refuse_event(placement, index, plan.decided_by, fault)
            changes.append((kind, fields | _owned(books, placement, plan.ring_epoch)))
            continue
        job, ordinal = books.locate(placement.allocation)
        assert job is not None, "a checked placement names a job"
        slot = books.nodes.slot_of[placement.node]
        row = books.place(job, ordinal, slot, index=index, time_ms=plan.time_ms)
        ruling.placed(job, slot)
        placed.append((placement.allocation, placement.attempt, index))
        kind, fields = books.place_event("bind", row, index=index, by=plan.decided_by, why=plan.why)
        changes.append((kind, fields | _owned(books, placement, plan.ring_epoch)))
    return PlanResult(index=index, placed=tuple(placed), refused=tuple(refused), changes=tuple(changes))


def _owned(books: Books, placement: Placement, ring_epoch: int) -> dict[str, Any]:
    """For the trace: the epoch that the plan was made in and the one in force, and whose the node is in both."""
    shards = books.shards
    told = {"ring": ring_epoch, "ring_now": shards.epoch, "owner": shards.owner(placement.node)}
    if ring_epoch == shards.epoch:
        return told
    then = shards.owners_at(ring_epoch)
    return told if then is None else told | {"owner_then": ring_of(then).owner(placement.node)}


def _fault(books: Books, placement: Placement, ring_epoch: int, ruling: Ruling) -> Fault | None:
    job, ordinal = books.locate(placement.allocation)
    if job is None:
        return "no-such-job", "the job is gone"
    return (
        _job_fault(books, job, ordinal, placement)
        or _node_fault(books, job, placement)
        or ruling.fault(job, placement.node)
        or _owner_fault(books, placement, ring_epoch)
    )


def _owner_fault(books: Books, placement: Placement, ring_epoch: int) -> Fault | None:
    shards = books.shards
    if shards.moved_since(placement.node, ring_epoch):
        owner = shards.owner(placement.node)
        return "node-moved", f"{owner} owns the node at epoch {shards.epoch}, the plan was made at {ring_epoch}"
    return None


def _job_fault(books: Books, job: JobRecord, ordinal: int, placement: Placement) -> Fault | None:
    if job.stopped:
        return "job-stopped", "the job was stopped"
    if placement.job_version != job.version:
        return "job-changed", f"the job is at version {job.version}, the plan was made for {placement.job_version}"
    row = job.newest_row(ordinal)
    if books.is_holding(row):
        return "already-placed", f"epoch {books.attempts.epoch[row]} of it is still live"
    if ordinal not in job.waiting:
        return "not-wanted", "the allocation needs no attempt"
    expected = 1 if row == NONE else books.attempts.attempt[row] + 1
    if placement.attempt != expected:
        return "already-placed", f"the next attempt is {expected}, not {placement.attempt}"
    return None


def _node_fault(books: Books, job: JobRecord, placement: Placement) -> Fault | None:
    nodes = books.nodes
    entry = nodes.entry(placement.node)
    if entry is None:
        return "no-such-node", "the node is not registered"
    if entry.lost_index:
        return "node-lost", "the node was declared lost"
    if not entry.settled:
        return "node-not-settled", "the lease of the node's former sandboxer may still last"
    if entry.state is not NodeState.READY:
        return "node-not-ready", f"the node is {entry.state}"
    if entry.generation != placement.node_generation:
        return "node-changed", f"the node is at generation {entry.generation}, not {placement.node_generation}"
    labels = entry.all_labels()
    if any(labels.get(key) != value for key, value in job.spec.node_selector):
        return "node-not-selected", "the node lacks a label of the job's nodeSelector"
    repelling = untolerated(job.spec.tolerations, entry.all_taints())
    if repelling:
        return "node-tainted", f"the job does not tolerate {spelled(repelling[0])}"
    slot = nodes.slot_of[placement.node]
    used, capacity, need = nodes.used(slot), entry.capacity, job.need
    for code, want, taken, whole in (
        ("no-cpu", need.cpu_millicores, used.cpu_millicores, capacity.cpu_millicores),
        ("no-memory", need.memory_bytes, used.memory_bytes, capacity.memory_bytes),
        ("no-pids", need.pids, used.pids, capacity.pids),
    ):
        if want > 0 and taken + want > whole:
            return code, f"needs {want}, {max(0, whole - taken)} of {whole} are free"
    for port in job.ports:
        if slot in nodes.port_holders.get(port, ()):
            return "port-taken", f"port {port} is taken on the node"
    return None


def _refuse_event(placement: Placement, index: int, by: str, fault: Fault) -> Change:
    return "place", {
        "do": "refuse",
        "index": index,
        "allocation": placement.allocation,
        "attempt": placement.attempt,
        "job": placement.allocation.rpartition(".")[0],
        "node": placement.node,
        "epoch": index,
        "requests": {},
        "ports": [],
        "by": by,
        "why": f"{fault[0]}: {fault[1]}",
    }
