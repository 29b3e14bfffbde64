"""A state as plain data, derived parts included, to compare one that was read back with one that lived on."""

from __future__ import annotations

from typing import Any

from scheduler.state import State


def whole(state: State) -> dict[str, Any]:
    """Everything that a caller could see of a state; of queues only their members, since their order is not kept."""
    books = state.books
    jobs, nodes, attempts = books.jobs, books.nodes, books.attempts
    return {
        "at": (state.index, state.term),
        "digest": state.digest(),
        "jobs": [_job(record) for record in jobs],
        "counters": (jobs.next_number, jobs.replicas_total, list(jobs.finished.items()), sorted(jobs.waiting)),
        "nodes": [(slot, entry, nodes.used(slot), sorted(nodes.rows[slot])) for slot, entry in nodes.entries.items()],
        "names": (list(nodes.names), dict(nodes.slot_of)),
        "stops": [nodes.stops.of(slot) for slot in range(len(nodes))],
        "ports": {port: dict(sorted(holders.items())) for port, holders in sorted(nodes.port_holders.items())},
        "labels": {label: sorted(holders) for label, holders in sorted(nodes.marks.labels.items())},
        "taints": {str(taint): sorted(holders) for taint, holders in nodes.marks.taints.items()},
        "attempts": [
            [column[row] for column in attempts.table.columns.values()] for row in attempts.used_rows().tolist()
        ],
        "free": (attempts.table.rows, list(attempts.table._free)),
        "shown": [_shown(state, record.id) for record in jobs],
        "desired": [state.desired_for(name) for name in nodes.names],
        "listed": state.nodes(),
    }


def _shown(state: State, job: str) -> Any:
    shown = state.job(job)
    assert shown is not None
    del shown["counts"]["backing_off"]  # whether a back-off is over, only a replica's own clock says
    return shown


def _job(record: Any) -> dict[str, Any]:
    newest = record.newest.tolist()
    while newest and newest[-1] == -1 and len(newest) > record.replicas:
        newest.pop()
    plain = ("number", "id", "version", "shape_version", "submitted_index", "stopped", "spec", "requests", "live")
    return {
        **{name: getattr(record, name) for name in plain},
        "replicas": (record.replicas, record.need, record.ports, record.policy),
        "newest": newest,
        "per_node": dict(sorted(record.per_node.items())),
        "waiting": sorted([*record.waiting.ready(), *record.waiting.later()]),
    }
