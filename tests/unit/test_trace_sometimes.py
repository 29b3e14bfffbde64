"""Every situation is counted where it is, and nowhere else."""

from __future__ import annotations

from typing import Any

import pytest

from chaos.trace.events import Event, Trace
from chaos.trace.records import trace_of
from chaos.trace.sometimes import SITUATIONS, never_reached, sometimes
from tests.support.full_run import full_run
from tests.support.long_run import records

Told = tuple[str, str, dict[str, Any]]
"""(node, kind, fields)."""

LEADS: Told = ("n1", "role", {"role": "leader", "term": 1, "leader": "n1", "why": "elected"})
LEADS_TOO: Told = ("n2", "role", {"role": "leader", "term": 2, "leader": "n2", "why": "elected"})
CUT: Told = ("c", "fault", {"id": "f", "kind": "partition", "target": "n1", "args": {"groups": [["n1"], ["n2"]]}})
HEAL: Told = ("c", "heal", {"id": "f", "kind": "partition", "target": "n1"})
ALIVE: Told = ("n1", "note", {"text": "still here"})


def follows(why: str) -> Told:
    return "n1", "role", {"role": "follower", "term": 1, "leader": None, "why": why}


def op(op: str, phase: str) -> Told:
    return "c", "op", {"id": "r", "client": "client-r", "op": op, "ph": phase, "key": "k", "value": {}}


def place(do: str, node: str, epoch: int) -> Told:
    return "n1", "place", {"do": do, "allocation": "j.0", "node": node, "epoch": epoch}


def run(do: str, **more: Any) -> Told:
    return "a1", "run", {"do": do, "allocation": "j.0", "epoch": 1, **more}


def append(first: int, index: int, **more: Any) -> Told:
    return "n1", "append", {"first": first, "index": index, "term": 1, "last_term": 1, **more}


REACHED: dict[str, list[Told]] = {
    "leader-changed": [LEADS, follows("x"), LEADS_TOO],
    "elected-under-partition": [LEADS, follows("x"), CUT, LEADS_TOO, HEAL],
    "two-leaders-at-a-time": [LEADS, LEADS_TOO, ALIVE],
    "leader-gave-up": [LEADS, follows("no majority answered within the election timeout (check-quorum)")],
    "leader-hung-on-its-disk": [LEADS, follows("its own write hangs longer than the election timeout")],
    "leader-handed-over": [("n2", "recv", {"type": "timeout-now", "fr": "n1"})],
    "vote-refused": [follows("a majority refused its vote")],
    "entry-overwritten": [append(1, 5), append(4, 6)],
    "snapshot-written": [("n1", "disk", {"op": "snapshot-write", "index": 4})],
    "snapshot-installed": [append(4, 4, snapshot=4, recovered=True)],
    "state-restored-at-start": [("n1", "disk", {"op": "snapshot-install", "index": 4})],
    "replica-restarted": [("n1", "store", {"id": "s", "index": 4})],
    "store-retired": [("n1", "note", {"text": "store 123 is damaged; goes on empty"})],
    "learner-caught-up": [("n1", "note", {"text": "configuration 4", "voters": {"n1": "a"}, "learners": {"n2": "b"}})],
    "append-refused": [("n1", "recv", {"type": "append-reply", "accepted": False})],
    "message-dropped": [("n1", "drop", {"why": "down"})],
    "write-during-partition": [CUT, op("submit", "ok"), HEAL],
    "read-during-partition": [CUT, op("read", "ok"), HEAL],
    "unknown-outcome": [op("submit", "info")],
    "request-asked-again": [op("submit", "ok"), op("submit", "ok")],
    "plan-refused": [place("refuse", "a1", 3)],
    "owners-changed": [("n1", "shard", {"epoch": 1}), ("n1", "shard", {"epoch": 2})],
    "node-lost": [("n1", "lease", {"do": "lost", "node": "a1"})],
    "loss-paused": [("n1", "lease", {"do": "storm"})],
    "lease-expired": [("a1", "lease", {"do": "expire"})],
    "stopped-by-its-lease": [run("fenced")],
    "renewal-refused": [("n1", "lease", {"do": "refused"})],
    "placed-elsewhere": [place("bind", "a1", 3), place("release", "a1", 3), place("bind", "a2", 4)],
    "workload-adopted": [run("adopt")],
    "exit-unknown": [run("exit", exit={"status_known": False})],
    "stale-token-refused": [("a1", "effect", {"key": "j.0", "token": "1:3", "accepted": False})],
    "digests-compared": [("n1", "digest", {"index": 4, "digest": "x"})],
}


def trace(told: list[Told]) -> Trace:
    numbers: dict[str, int] = {}
    events = []
    for at, (node, kind, fields) in enumerate(told, 1):
        numbers[node] = numbers.get(node, 0) + 1
        events.append(Event((1000 + at) << 16, node, "x", numbers[node], 1.0 + at / 1000, kind, fields))
    return Trace(events)


@pytest.mark.parametrize("name", SITUATIONS)
def test_a_situation_is_counted_once_where_it_is(name: str) -> None:
    assert sometimes(trace(REACHED[name]))[name] == 1


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("leader-changed", [LEADS]),
        ("elected-under-partition", [CUT, LEADS, HEAL]),
        ("elected-under-partition", [LEADS, CUT, HEAL, LEADS_TOO]),
        ("two-leaders-at-a-time", [LEADS, follows("x"), LEADS_TOO]),
        ("two-leaders-at-a-time", [LEADS, LEADS_TOO]),
        ("entry-overwritten", [append(1, 5), append(6, 8)]),
        ("entry-overwritten", [append(1, 5), append(4, 4, snapshot=4)]),
        ("state-restored-at-start", REACHED["snapshot-installed"] + REACHED["state-restored-at-start"]),
        ("replica-restarted", [("n1", "store", {"id": "s", "index": 0})]),
        ("write-during-partition", [CUT, HEAL, op("submit", "ok")]),
        ("placed-elsewhere", [place("bind", "a1", 3), place("bind", "a1", 4)]),
        ("owners-changed", [("n1", "shard", {"epoch": 1}), ("n2", "shard", {"epoch": 1})]),
        ("stale-token-refused", [("a1", "effect", {"key": "j.0", "token": "1:3", "accepted": True})]),
    ],
)
def test_what_only_looks_like_it_is_not_counted(name: str, told: list[Told]) -> None:
    assert sometimes(trace(told))[name] == 0


def test_an_empty_run_reached_nothing_and_a_campaign_of_it_is_weak() -> None:
    assert set(sometimes(trace([])).values()) == {0}
    assert never_reached([sometimes(trace([]))]) == list(SITUATIONS)
    one, other = sometimes(trace(REACHED["node-lost"])), sometimes(trace_of(records(full_run())))
    left = never_reached([one, other])
    assert not {"node-lost", "leader-changed", "stale-token-refused"} & set(left)
    assert "loss-paused" in left
