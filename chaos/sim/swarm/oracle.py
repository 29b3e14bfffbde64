"""What a healed cluster must come to, said independently of the code that brings it there.

Owns: the predicates of phase two and of the end; each answers "" or says what is still wrong.
Must not know: time, faults, or how a cluster is run; it looks at states and at the nodes' processes.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Protocol

from scheduler.model import AllocationState
from scheduler.state import State
from scheduler.state.allocations import NONE
from scheduler.state.jobs import JobRecord
from scheduler.state.nodes import Registration


class ReplicaView(Protocol):
    """One replica that runs, as the harness sees it from outside."""

    @property
    def name(self) -> str:
        """Of the replica."""
        ...

    @property
    def leader(self) -> str | None:
        """Whom it takes for the leader."""
        ...

    @property
    def term(self) -> int:
        """Its term."""
        ...

    @property
    def applied_index(self) -> int:
        """Of its state."""
        ...

    @property
    def digest(self) -> str:
        """Of its state."""
        ...

    @property
    def state(self) -> State:
        """Itself."""
        ...

    @property
    def sessions(self) -> Collection[str]:
        """Nodes whose sessions it holds."""
        ...


def leaderless(views: Sequence[ReplicaView], wanted: int, others: Collection[str] = ()) -> str:
    """All know the same leader of the same term, which is one of them, or of the `others` that may lead them."""
    if len(views) < wanted:
        return f"only {len(views)} of {wanted} replicas run"
    leaders = sorted({(view.term, view.leader or "nobody") for view in views})
    if len(leaders) > 1 or leaders[0][1] not in {*(view.name for view in views), *others}:
        return "leader: " + ", ".join(f"{view.name} knows {view.leader} of term {view.term}" for view in views)
    return ""


def unlike(views: Sequence[ReplicaView]) -> str:
    """All applied the same index and hold the same state."""
    if len({view.applied_index for view in views}) > 1:
        return "applied: " + ", ".join(f"{view.name} {view.applied_index}" for view in views)
    if len({view.digest for view in views}) > 1:
        return "digests differ at one index: " + ", ".join(f"{view.name} {view.digest[:12]}" for view in views)
    return ""


def sessionless(views: Sequence[ReplicaView], nodes: Iterable[str]) -> str:
    """Every one of these nodes has a session with one of the replicas, and is registered."""
    held = {node for view in views for node in view.sessions}
    known = views[0].state.books.nodes.slot_of if views else {}
    missing = [node for node in nodes if node not in held or node not in known]
    return f"no session of {', '.join(missing)}" if missing else ""


def forgotten(state: State, acknowledged: Mapping[str, tuple[str, str, int]]) -> str:
    """Every acknowledged write is in the state: its job is known, and not of an older version."""
    for request, (job, _, index) in acknowledged.items():
        record = state.books.jobs.get(f"default/{job}")
        if record is None:
            return f"{request} was acknowledged at {index}, and there is no job {job}"
        if record.submitted_index < index and request not in record.requests:
            return f"{request} was acknowledged at {index}, and {job} does not know it"
    return ""


def unplaced(state: State, reachable: Collection[str], now_ms: int) -> str:
    """No allocation waits for which a reachable node has room: what waits is explained."""
    for record in state.books.jobs:
        if record.stopped or not len(record.waiting):
            continue
        due = record.waiting.next_due_ms()
        if not record.waiting.ready_count() and (due is None or due > now_ms):
            continue  # every one of them backs off
        for node in sorted(reachable):
            entry = _entry(state, node)
            if entry is not None and _fits(state, record, entry, node):
                return f"{record.id} waits, and {node} has room for it"
    return ""


def _entry(state: State, node: str) -> Registration | None:
    slot = state.books.nodes.slot_of.get(node)
    return None if slot is None else state.books.nodes.entries[slot]


def _fits(state: State, record: JobRecord, entry: Registration, node: str) -> bool:
    """Whether a node could take one more allocation of a job, by the rules as written for users."""
    if not entry.takes_work:
        return False
    labels = entry.all_labels()
    if any(labels.get(key) != value for key, value in record.spec.node_selector):
        return False
    for taint in entry.all_taints():
        if taint.effect != "PreferNoSchedule" and not any(
            (not each.key or each.key == taint.key)
            and (each.operator == "Exists" or each.value == taint.value)
            and each.effect in ("", taint.effect)
            for each in record.spec.tolerations
        ):
            return False
    used = state.books.nodes.used(state.books.nodes.slot_of[node])
    need, have = record.need, entry.capacity
    return (
        used.cpu_millicores + need.cpu_millicores <= have.cpu_millicores
        and used.memory_bytes + need.memory_bytes <= have.memory_bytes
        and used.pids + need.pids <= have.pids
    )


Key = tuple[str, int]
"""(allocation, epoch)."""


def strays(state: State, processes: Mapping[str, Collection[Key]]) -> str:
    """Every process on a node is of an attempt that lives there; every running attempt has its process.

    Args:
        state: of a replica that has applied everything.
        processes: node → what runs there, by the simulated kernel itself.
    """
    for node, running in sorted(processes.items()):
        booked = attempts_on(state, node)
        for key in sorted(running):
            if key not in booked:
                return f"{key[0]} of epoch {key[1]} runs on {node}, and the state knows of no such attempt there"
        for key, standing in sorted(booked.items()):
            if standing is AllocationState.RUNNING and key not in running:
                return f"{key[0]} of epoch {key[1]} is said to run on {node}, and no process of it is there"
    return ""


def unfinished(state: State, nodes: Iterable[str]) -> str:
    """No attempt on these nodes is still on its way: placed but not started, stopping, or unknown."""
    passing = (AllocationState.PLACED, AllocationState.STOPPING, AllocationState.UNKNOWN)
    for node in nodes:
        for key, standing in sorted(attempts_on(state, node).items()):
            if standing in passing:
                return f"{key[0]} of epoch {key[1]} on {node} is still {standing.value}"
    return ""


def leaked(state: State) -> str:
    """What nodes have booked is the sum of their live attempts, and every attempt is held by its job."""
    books = state.books
    for node, slot in sorted(books.nodes.slot_of.items()):
        used = books.nodes.used(slot)
        cpu = sum(books.job_of(row).need.cpu_millicores for row in books.nodes.rows[slot])
        memory = sum(books.job_of(row).need.memory_bytes for row in books.nodes.rows[slot])
        if (used.cpu_millicores, used.memory_bytes) != (cpu, memory):
            booked = f"{used.cpu_millicores}m and {used.memory_bytes} bytes"
            return f"{node} has {booked} booked, its attempts {cpu}m and {memory} bytes"
    for record in books.jobs:
        wrong = [
            ordinal
            for ordinal in record.waiting.ready()
            if record.newest_row(ordinal) != NONE and books.is_live(record.newest_row(ordinal))
        ]
        if wrong:
            return f"{record.allocation(wrong[0])} waits for a place while its attempt lives"
    return ""


def attempts_on(state: State, node: str) -> dict[Key, AllocationState]:
    """Live attempts of a node, by (allocation, epoch)."""
    books = state.books
    slot = books.nodes.slot_of.get(node)
    if slot is None:
        return {}
    found = {}
    for row in books.nodes.rows[slot]:
        name = books.job_of(row).allocation(books.attempts.ordinal[row])
        found[name, books.attempts.epoch[row]] = books.attempts.standing(row)
    return found
