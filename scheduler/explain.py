"""Why an allocation is where it is, or nowhere: in numbers and in words.

Owns: the explanation's shape (DESIGN.md §13) and the nearest miss.
Must not know: how decisions are made; it asks the same filters and scores that decide.

An explanation is about the present: for a job with waiting allocations, about the next one to
be placed; for a placed job, about its first live allocation as if it were decided now, its
own bookings set aside.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import numpy as np
from msgspec.structs import replace

from scheduler.engine import between, filters, marks, scores, spread
from scheduler.engine.decision import preferences
from scheduler.engine.drafts import request_for
from scheduler.engine.filters import FILTERS, FITS, Verdicts
from scheduler.engine.groups import Group
from scheduler.engine.world import RESOURCES, Int64s, PlacementRequest, World, needs
from scheduler.model import Capacity, ResolvedJob, job_id
from scheduler.state.allocations import NONE, UNKNOWN_CODE
from scheduler.state.jobs import JobRecord
from scheduler.state.nodes import Registration
from scheduler.state.state import State
from scheduler.state.views import counts as job_counts
from scheduler.state.views import state_of
from scheduler.taints import spelled
from scheduler.units import format_cpu, format_memory

NODES_SHOWN: Final = 1_000
NODES_NAMED: Final = 4
_PPM: Final = 1_000_000
_SPELL: Final[dict[str, Callable[[int], str]]] = {"cpu": format_cpu, "memory": format_memory, "pids": str}
_COSTS: Final = {
    "node-ready": _PPM,
    "node-connected": 2 * _PPM,
    "ports": _PPM,
    "node-selector": _PPM,
    "taints": _PPM,
    "node-affinity": _PPM,
}
_COSTS_BETWEEN: Final = 4 * _PPM
"""Of a rule between workloads, which no change of the node itself mends."""
"""What a failed filter adds to a node's distance; a resource adds its shortage over its need."""


def explain(state: State, job: str, now_ms: int, absent: Sequence[str] = ()) -> dict[str, Any] | None:
    """Explain one job (``namespace/name``); None when there is no such job.

    Keys: job, state, allocation (the one explained, or None), priority, placed (every wanted allocation
    has been given a node and none waits for another), reason, counts (allocations by state, nodes
    by first failing filter), nodes[node, filter, need, have] (filter None = fits),
    nearest{node, change} or None, scores[node, score, of, parts] of fitting nodes, best first.
    """
    record = state.books.jobs.get(job)
    if record is None:
        return None
    world = state.world(absent)
    ordinal = _subject(record)
    row = -1 if ordinal is None else record.newest_row(ordinal)
    live = state.books.is_live(row)
    request = request_for(record, ordinal or 0)
    if live:
        world, request = _without(state, world, request, row)
    verdicts = filters.verdicts(world, request, world.used)
    nearest = None if live or (verdicts == FITS).any() else _nearest(state, world, request)
    return {
        "job": record.id,
        "state": state_of(state.books, record),
        "allocation": None if ordinal is None else record.allocation(ordinal),
        "priority": record.spec.priority,
        "placed": not len(record.waiting) and not record.stopped,
        "reason": _reason(state, record, row, verdicts, nearest, now_ms),
        "counts": {**job_counts(state.books, record), **_node_counts(verdicts)},
        "nodes": _nodes(state, world, request, verdicts),
        "nearest": nearest,
        "scores": _scores(world, request, verdicts),
    }


def why_not_placed(state: State, job: str, now_ms: int, absent: Sequence[str] = ()) -> str:
    """One line why not every allocation of the job is placed; "" when nothing waits."""
    record = state.books.jobs.get(job)
    if record is None or not (len(record.waiting) or _unknown(state, record)):
        return ""
    found = explain(state, job, now_ms, absent)
    return "" if found is None else str(found["reason"])


def could_ever_fit(state: State, job: ResolvedJob) -> dict[str, Any] | None:
    """Whether some node could hold one allocation if it were empty.

    Returns:
        None when one could, or when no node is registered yet; else reason, counts, nodes and
        nearest as in `explain`, by total capacity.
    """
    real = state.world()
    if not len(real):
        return None
    everywhere = np.ones(len(real), dtype=bool)
    empty = tuple(np.zeros(len(real), dtype=np.int64) for _ in RESOURCES)
    world = replace(real, used=empty, ready=everywhere, present=everywhere, ports={}, groups=None)
    need = Capacity(job.cpu_millicores, job.memory_bytes, job.pids)
    request = PlacementRequest(job_id(job.workload.namespace, job.workload.job), need)
    verdicts = filters.verdicts(world, request, world.used)
    if (verdicts == FITS).any():
        return None
    nearest = _nearest(state, world, request, whole=True)
    return {
        "reason": f"no node could ever hold it, even empty: {_words(verdicts)}",
        "counts": _node_counts(verdicts),
        "nodes": _nodes(state, world, request, verdicts),
        "nearest": nearest,
    }


def _subject(job: JobRecord) -> int | None:
    """The ordinal to explain: ready, else backing off, else the first of the job."""
    for ordinal in job.waiting.ready():
        return ordinal
    for ordinal in job.waiting.later():
        return ordinal
    return 0 if len(job.newest) else None


def _without(state: State, world: World, request: PlacementRequest, row: int) -> tuple[World, PlacementRequest]:
    """The world and request with the bookings of a live attempt set aside."""
    attempts = state.books.attempts
    slot = attempts.node[row]
    for used, amount in zip(world.used, needs(attempts.need(row)), strict=True):
        used[slot] -= amount
    own = attempts.ports.get(row, ())
    ports = {
        port: {place: holder for place, holder in holders.items() if port not in own or holder != row}
        for port, holders in world.ports.items()
        if port in request.ports
    }
    peers = dict(request.peers)
    peers[slot] = peers[slot] - 1
    return replace(world, ports=ports, groups=_one_less(state, world, row)), replace(request, peers=peers)


def _one_less(state: State, world: World, row: int) -> Mapping[str, Group] | None:
    """The groups without one live attempt."""
    if world.groups is None:
        return None
    job, slot = state.books.job_of(row), state.books.attempts.node[row]
    group = world.groups[job.id]
    counts = {**group.counts, slot: group.counts[slot] - 1}
    return {**world.groups, job.id: replace(group, counts=counts)}


def _node_counts(verdicts: Verdicts) -> dict[str, int]:
    failing = {name: int((verdicts == code).sum()) for code, name in enumerate(FILTERS)}
    return {"nodes": len(verdicts), "fit": int((verdicts == FITS).sum()), **failing}


def _words(verdicts: Verdicts) -> str:
    failing = [(int((verdicts == code).sum()), name) for code, name in enumerate(FILTERS)]
    listed = ", ".join(f"{count} fail {name}" for count, name in failing if count)
    return listed or "no node is registered"


def _nodes(state: State, world: World, request: PlacementRequest, verdicts: Verdicts) -> list[dict[str, Any]]:
    listed: list[dict[str, Any]] = []
    by_name = sorted(range(len(world)), key=world.names.__getitem__)
    for slot in by_name[:NODES_SHOWN]:
        verdict = int(verdicts[slot])
        if verdict == FITS:
            listed.append({"node": world.names[slot], "filter": None, "need": None, "have": None})
        else:
            need, have = filters.need_and_have(world, request, slot, verdict)
            if FILTERS[verdict] == "node-ready":
                have = _standing(state.books.nodes.entries[slot])
            listed.append({"node": world.names[slot], "filter": FILTERS[verdict], "need": need, "have": have})
    return listed


def _standing(entry: Registration) -> str:
    """Why a node takes no work."""
    if not entry.lost_index and not entry.settled:
        return "waiting for the lease of its former sandboxer to run out"
    return entry.shown_state


def _scores(world: World, request: PlacementRequest, verdicts: Verdicts) -> list[dict[str, Any]]:
    preferred = preferences(world, request, verdicts == FITS)
    total = scores.scores(world, request, world.used, preferred)
    parts = {**scores.parts(world, request, world.used), **preferred}
    fitting = np.flatnonzero(verdicts == FITS)
    order = fitting[np.argsort(-total[fitting], kind="stable")][:NODES_SHOWN]
    return [
        {
            "node": world.names[slot],
            "score": int(total[slot]),
            "of": scores.UNIT,
            "parts": {name: int(values[slot]) for name, values in parts.items()},
        }
        for slot in order
    ]


def _nearest(state: State, world: World, request: PlacementRequest, *, whole: bool = False) -> dict[str, Any] | None:
    """The node that misses by least, and what would make it fit."""
    if not len(world):
        return None
    slot = int(np.argmin(_distance(world, request)))
    changes = _changes(state, world, request, slot, whole=whole)
    return {"node": world.names[slot], "change": "; ".join(changes)}


def _distance(world: World, request: PlacementRequest) -> Int64s:
    total = np.zeros(len(world), dtype=np.int64)
    total += np.where(world.ready, 0, _COSTS["node-ready"])
    total += np.where(world.present, 0, _COSTS["node-connected"])
    for label in request.selector:
        total += np.where(marks.selected((label,), world.labels, len(world)), 0, _COSTS["node-selector"])
    total += np.where(between.wanted(filters.ground(world), request), 0, _COSTS["node-affinity"])
    for passes in filters.between_workloads(world, request):
        total += np.where(passes, 0, _COSTS_BETWEEN)
    total += np.where(marks.admitted(request.tolerations, world.taints, len(world)), 0, _COSTS["taints"])
    total += np.where(filters.port_free(world, request.ports), 0, _COSTS["ports"])
    for capacity, used, need in zip(world.capacity, world.used, needs(request.need), strict=True):
        if need > 0:
            # Parts per million of the need, scaled down first where the product would overflow.
            shift = max(0, need.bit_length() - 42)
            short = np.clip(need - np.maximum(capacity - used, 0), 0, need) >> shift
            total += -(-short * _PPM // max(need >> shift, 1))
    return total


def _changes(state: State, world: World, request: PlacementRequest, slot: int, *, whole: bool) -> list[str]:
    node = world.names[slot]
    changes = []
    if not world.ready[slot]:
        entry = state.books.nodes.entries[slot]
        if entry.lost_index:
            changes.append(f"bring {node} back, it is lost")
        elif not entry.settled:
            changes.append(f"wait until the lease of {node}'s former sandboxer has run out")
        else:
            changes.append(f"uncordon {node}")
    if not world.present[slot]:
        changes.append(f"bring the agent of {node} back")
    missing = filters.labels_missing(world, request, slot)
    if missing:
        changes.append(f"label {node} {filters.labels_listed(missing)}")
    changes += [
        f"untaint {node} {spelled(taint)}, or tolerate it" for taint in filters.repelled_by(world, request, slot)
    ]
    changes += _rule_changes(world, request, slot)
    for position, name in enumerate(RESOURCES):
        capacity, used = int(world.capacity[position][slot]), int(world.used[position][slot])
        need, free = needs(request.need)[position], max(0, capacity - used)
        if need > free:
            changes.append(_resource_change(name, need, free, capacity, node, whole=whole))
    for port in request.ports:
        row = world.ports.get(port, {}).get(slot)
        if row is not None:
            changes.append(f"free port {port} on {node} (held by {state.books.allocation_of(row)})")
    return changes


def _rule_changes(world: World, request: PlacementRequest, slot: int) -> list[str]:
    """What would make a node pass rules of affinity and spreading."""
    node, rules, changes = world.names[slot], request.rules, []
    if not between.wanted(filters.ground(world), request)[slot]:
        terms = " or ".join(filters.term_spelled(term) for term in rules.node_terms or ())
        changes.append(f"label {node} so that {terms}")
    evenly, near, apart = (bool(passes[slot]) for passes in filters.between_workloads(world, request))
    if not evenly:
        names = ", ".join(filters.spread_spelled(each) for each in spread.hard(rules.spread))
        changes.append(f"place others of its kind elsewhere first, or ask for less than {names}")
    if not near:
        changes.append(f"run {'; '.join(map(filters.neighbour_spelled, rules.neighbours.near))} that {node} is in")
    if not apart:
        changes.append(f"stop what has to be apart from it where {node} is")
    return changes


def _resource_change(name: str, need: int, free: int, capacity: int, node: str, *, whole: bool) -> str:
    spell = _SPELL[name]
    if whole or need > capacity:
        return f"request at most {spell(capacity)} {name} instead of {spell(need)}, or add a node with {spell(need)}"
    return f"free {spell(need - free)} more {name} on {node}, or request at most {spell(free)} instead of {spell(need)}"


def _reason(
    state: State, job: JobRecord, row: int, verdicts: Verdicts, nearest: dict[str, Any] | None, now_ms: int
) -> str:
    books = state.books
    tally = job_counts(books, job)
    kept = f"; {unknown}" if (unknown := _unknown(state, job)) else ""
    if job.stopped:
        return f"the job was stopped; {job.live} attempts are still to end" if job.live else "the job was stopped"
    if not len(job.waiting):
        live = f"{tally['running']} of {job.replicas} allocations run, {job.live} attempts are placed"
        ended = [f"{tally[name]} {name}" for name in ("complete", "failed", "lost", "stopped") if tally[name]]
        stopping = "; those that stop are placed anew once their exit is reported" if tally["stopping"] else ""
        return live + kept + (f"; ended: {', '.join(ended)}" if ended else "") + stopping + _last_exit(state, row)
    if not job.waiting.ready_count():
        wait_s = max(0, (job.waiting.next_due_ms() or now_ms) - now_ms) / 1000
        return f"{tally['backing_off']} allocations back off, the next for {wait_s:.1f} s more{_last_exit(state, row)}"
    fitting = int((verdicts == FITS).sum())
    waiting = f"{job.waiting.ready_count()} of {job.replicas} allocations wait{_outranked(state, job)}"
    if fitting:
        return f"{waiting}; {fitting} of {len(verdicts)} nodes fit, so the next plan places one"
    near = f"; nearest is {nearest['node']}: {nearest['change']}" if nearest else ""
    return f"{waiting}; 0 of {len(verdicts)} nodes fit: {_words(verdicts)}{near}"


def _outranked(state: State, job: JobRecord) -> str:
    """What is placed before this job because of its priority, in words."""
    jobs = state.books.jobs
    others = [jobs.by_id[name] for name in jobs.waiting]
    before = sum(other.waiting.ready_count() for other in others if other.spec.priority > job.spec.priority)
    return f" with priority {job.spec.priority}, after {before} of higher priority" if before else ""


def _unknown(state: State, job: JobRecord) -> str:
    """What is said of allocations that wait for a lost node, "" when there are none."""
    attempts = state.books.attempts
    rows = job.newest[: job.replicas]
    rows = rows[rows != NONE]
    unknown = rows[attempts.states(rows) == UNKNOWN_CODE].tolist()
    kept = [row for row in unknown if not attempts.fence[row]]
    nodes = sorted(dict.fromkeys(state.books.nodes.entries[attempts.node[row]].node for row in kept))
    if not kept:
        return ""
    shown = ", ".join(nodes[:NODES_NAMED]) + (", …" if len(nodes) > NODES_NAMED else "")
    where = "its node is lost" if len(nodes) == 1 else "their nodes are lost"
    return f"{len(kept)} unknown, not replaced: {where}; on_disconnect keep ({shown})"


def _last_exit(state: State, row: int) -> str:
    end = state.books.attempts.exits.get(row)
    if end is None:
        return ""
    how = f"code {end.code}" if end.code is not None else f"signal {end.signal}" if end.signal is not None else ""
    failures = state.books.attempts.failures[row]
    return f"; the last attempt ended: {end.reason}{f' ({how})' if how else ''}, {failures} failures so far"
