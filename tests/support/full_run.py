"""A good run in which every checker finds something to check: what `good_run` lacks, added at its end."""

from __future__ import annotations

from typing import Any

from tests.support.trace_maker import ALL, Line, TraceMaker, good_run

LEASE_MS = 1000
MS_NS = 1_000_000


def full_run() -> TraceMaker:
    """`good_run`, then leases, losses, shards, digests, reads, reports, kernel truth, tokens, garbage."""
    made = good_run()
    _kernel_truth(made)
    read(made, "q1")
    catch_up_by_guesses(made, ["n1"])
    for epoch, owners, probes in ((1, ["n1", "n2"], [1, 2, 1, 2]), (2, ["n1", "n2", "n3"], [1, 3, 1, 2])):
        shard(made, epoch, owners, probes)
        digest(made, f"d{epoch}")
    made.submit(ALL, "default/ring", "r7")
    refused = {"ring": 1, "ring_now": 1, "owner": "n1"}
    planned(made, "refuse", "default/ring.0", **refused)
    planned(made, "bind", "default/ring.0", ring=1, ring_now=2, owner="n1", owner_then="n1")
    planned(made, "release", "default/ring.0")
    status(made, "default/web.0", 1)
    status(made, "default/web.0", 2)
    lease(made, 1)
    made.ms += 400
    lease(made, 2)
    end_web(made)
    begin(made, "default/strict.0", made.bind(ALL, "default/strict.0", "a1", 0))
    made.ms += 3 * LEASE_MS
    lose(made, number=2, silent_ms=3 * LEASE_MS)
    for token in ([1, 5], [1, 5], [1, 9]):
        made.emit("a1", "effect", key="default/web.0", token=token, accepted=True)
    made.emit("a1", "effect", key="default/web.0", token=[1, 5], accepted=False)
    collect(made, "default/ring", rows=1)
    made.ms += 20_000
    made.submit(ALL, "default/late", "r9")
    for node in ALL:
        made.emit(node, "note", text="end")
    return made


def read(made: TraceMaker, name: str) -> None:
    common = {"id": name, "client": "api-n1", "op": "read", "key": "default/web"}
    made.emit("n1", "op", ph="invoke", value={}, **common)
    made.emit("n1", "op", ph="ok", value={"version": 1, "index": len(made.hashes) - 1, "term": made.term}, **common)


def catch_up_by_guesses(made: TraceMaker, nodes: list[str], count: int = 2) -> None:
    for node in nodes:
        for number in range(count):
            answer = {"type": "append-reply", "term": made.term, "index": 50 - number, "accepted": False}
            made.emit(made.leader, "recv", m=f"{node}/x/{number}", fr=node, bytes=9, **answer)


def shard(made: TraceMaker, epoch: int, owners: list[str], probes: list[int]) -> None:
    fields = {"epoch": epoch, "owners": owners, "probes": [f"n{number}" for number in probes], "by": made.leader}
    made.append_and_commit(ALL, [("shard", fields)])


def digest(made: TraceMaker, value: str) -> None:
    for node in ALL:
        made.emit(node, "digest", index=len(made.hashes) - 1, digest=value)


def planned(made: TraceMaker, do: str, allocation: str, **more: Any) -> None:
    index = len(made.hashes)
    epoch = index if do == "bind" else index - 1
    fields: Line = {
        "do": do, "allocation": allocation, "attempt": 1, "job": allocation.rpartition(".")[0], "node": "a1",
        "epoch": epoch, "requests": {}, "ports": [], "by": made.leader, "why": "", **more,
    }  # fmt: skip
    made.append_and_commit(ALL, [("place", fields)])


def status(made: TraceMaker, allocation: str, sequence: int) -> None:
    reports = [[allocation, 14, sequence, "running"]]
    made.append_and_commit(ALL, [("status", {"node": "a1", "reports": reports})])


def lease(made: TraceMaker, number: int, *, ahead_ms: int = 0, late_ms: int = 0) -> None:
    """One renewal: received 2 ms before it is confirmed, sent a millisecond before that.

    `ahead_ms`: how far the node's clock jumped until then; `late_ms`: how much longer than it may it counts.
    """
    leader, common = made.leader, {"number": number, "lease_ms": LEASE_MS}
    made.emit(
        leader, "lease", do="confirm", node=leader, number=0, deadline_ns=0, term=made.term, nodes=[["a1", number]],
        waited_us=2000, lease_ms=LEASE_MS,
    )  # fmt: skip
    sent_ns = (made.ms + 1 - 4 + ahead_ms) * MS_NS
    made.emit(
        "a1", "lease", do="grant" if number == 1 else "renew", node="a1", registration=2, sent_ns=sent_ns,
        deadline_ns=sent_ns + LEASE_MS * MS_NS, left_ms=LEASE_MS - 4 + late_ms, one_in=1, **common,
    )  # fmt: skip


def end_web(made: TraceMaker) -> None:
    """The last attempt of `good_run` ends as it was told to."""
    stop = next(line for line in made.lines("run", "a1") if line["do"] == "stop")
    common = {"allocation": stop["allocation"], "attempt": stop["attempt"], "epoch": stop["epoch"], "pid": 78}
    made.emit("a1", "run", do="ended", code=None, signal=15, **common)
    made.emit("a1", "run", do="emptied", **common)
    told = {"code": None, "signal": 15, "reason": "stopped", "status_known": True}
    made.emit("a1", "run", do="exit", exit=told, **common)


def begin(made: TraceMaker, allocation: str, epoch: int) -> None:
    """A workload that needs a lease, by the kernel and by its sandboxer."""
    common = {"allocation": allocation, "attempt": 1, "epoch": epoch, "pid": 90}
    made.emit("a1", "run", do="began", **common)
    made.emit("a1", "run", do="start", on_disconnect="stop", **common)


def lose(made: TraceMaker, number: int, silent_ms: int) -> None:
    made.emit(
        made.leader, "lease", do="lost", node="a1", number=number, deadline_ns=0, silent_ms=silent_ms, term=made.term,
        lease_ms=LEASE_MS, delta_ms=100, drift_ppm=1000, grace_ms=1000,
    )  # fmt: skip
    fields = {"do": "lost", "node": "a1", "incarnation": "a1-1", "state": "lost", "capacity": {}}
    made.append_and_commit(ALL, [("node", fields)])


def collect(made: TraceMaker, job: str, rows: int) -> None:
    made.append_and_commit(ALL, [("job", {"do": "collect", "job": job, "version": 1, "rows": rows})])


def _kernel_truth(made: TraceMaker) -> None:
    """What the simulated kernel saw, a moment before the sandboxer told it."""
    for line in made.lines("run", "a1"):
        common = {key: line[key] for key in ("allocation", "attempt", "epoch", "pid")}
        if line["do"] == "start":
            truth = made.insert("a1", "run", _before(made, line), do="began", **common)
        elif line["do"] == "exit":
            how = {name: line["exit"][name] for name in ("code", "signal")}
            truth = made.insert("a1", "run", _before(made, line), do="ended", **how, **common)
            truth["hlc"], truth["t"] = line["hlc"] - 2, line["t"]
            truth = made.insert("a1", "run", _before(made, line), do="emptied", **common)
        else:
            continue
        truth["hlc"], truth["t"] = line["hlc"] - 1, line["t"]


def _before(made: TraceMaker, line: Line) -> Line:
    return made.lines(node=line["n"])[line["i"] - 1]
