"""Long made-up runs for the page: many lanes, messages, losses, commits and operations."""

from __future__ import annotations

import itertools
import random
from typing import Any

from chaos.trace.events import Event, Trace

START_MS = 1_790_000_000_000


def long_run(size: int, *, replicas: int = 5, agents: int = 8, seed: int = 1) -> Trace:
    """About `size` events, one every 1.2 ms: traffic, lost messages, elections, partitions, work, writes."""
    dice = random.Random(seed)
    names = [f"n{i + 1}" for i in range(replicas)]
    workers = [f"a{i + 1}" for i in range(agents)]
    numbers = {name: itertools.count(1) for name in (*names, *workers, "client", "proxy")}
    events: list[Event] = []

    def emit(node: str, at_us: float, kind: str, /, **fields: Any) -> None:
        ms = START_MS + int(at_us // 1000)
        number = next(numbers[node])
        t = (START_MS * 1000 + at_us) / 1e6
        events.append(Event(ms << 16, node, f"{node}-life", number, t, kind, fields, number))

    for node in numbers:
        emit(node, 0, "meta", version=1, **({"role": "replica"} if node in names else {}))
    at, term, index, leader, message = 1000.0, 1, 0, names[0], 0
    emit(leader, at, "role", role="leader", term=term, leader=leader, why="elected")
    alone = ""
    while len(events) < size:
        at += dice.expovariate(1 / 4000)
        message += 1
        other = dice.choice([name for name in names if name != leader])
        if len(events) % 5000 < 12 and not alone:
            alone = leader
            rest = [name for name in names if name != alone]
            links = [f"{alone}~{each}" for each in rest]
            groups = {"groups": [[alone], rest + workers], "links": links}
            emit("client", at, "fault", id=f"p{term}", kind="partition", target=alone, args=groups, by={"rule": "s"})
            leader, term = rest[0], term + 1
            for voter in rest:
                emit(voter, at + 900, "vote", term=term, candidate=leader, why="log is up to date")
            emit(leader, at + 2000, "role", role="leader", term=term, leader=leader, why="elected by a majority")
        elif alone and len(events) % 5000 > 1500:
            emit("client", at, "heal", id=f"p{term - 1}", kind="partition", target=alone, args={}, by={"rule": "s"})
            emit(alone, at + 1000, "role", role="follower", term=term, leader=leader, why="higher term")
            alone = ""
        name, lost = f"{leader}/{leader}-life/{message}", other == alone
        emit(leader, at, "send", m=name, to=other, type="append", bytes=128, term=term, index=index)
        if not lost:
            emit(other, at + 700, "recv", m=name, fr=leader, type="append", bytes=128)
            emit(other, at + 1500, "send", m=f"{name}r", to=leader, type="append-reply", bytes=24, term=term)
            emit(leader, at + 2100, "recv", m=f"{name}r", fr=other, type="append-reply", bytes=24)
        index += 1
        mark = {"term": term, "first": index, "index": index, "ph": f"{index:016x}"}
        emit(leader, at + 2200, "commit", **mark, last_term=term, marks=[[index, mark["ph"]]])
        if message % 9 == 0:
            worker, allocation = dice.choice(workers), f"default/job{message % 7}.{message}"
            emit(leader, at + 2300, "place", do="bind", index=index, allocation=allocation, attempt=1, node=worker,
                 job=allocation.rpartition(".")[0], epoch=index, by=leader, why="most free")  # fmt: skip
            run = {"allocation": allocation, "attempt": 1, "epoch": index, "pid": message, "cgroup": "/x"}
            end = {"code": message % 5 == 0, "signal": None, "reason": "exited", "status_known": True}
            emit(worker, at + 3000, "run", do="start", **run)
            emit(worker, at + 90_000, "run", do="exit", **run, exit=end)
        if message % 4 == 0:
            phase = dice.choice(["ok", "ok", "ok", "fail", "info"])
            write = {"id": f"r{message}", "client": "client-1", "op": "submit", "key": f"default/job{message % 7}"}
            emit("client", at, "op", ph="invoke", value={}, **write)
            emit("client", at + dice.uniform(1e3, 4e4), "op", ph=phase, value={"index": index}, code="", **write)
    return Trace(events)
