"""Makes small traces that obey every rule, to be tampered with by tests."""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from chaos.trace.events import Trace
from chaos.trace.reader import read_trace

Line = dict[str, Any]
START_MS = 1_790_000_000_000
ALL = ["n1", "n2", "n3"]
REST = ["n2", "n3"]


class Life:
    """One process's file."""

    def __init__(self, maker: TraceMaker, node: str, inc: str) -> None:
        self.maker, self.node, self.inc = maker, node, inc
        self.lines: list[Line] = []
        self.line("meta", version=1)

    def line(self, kind: str, /, **fields: Any) -> Line:
        self.maker.ms += 1
        made = {
            "i": len(self.lines),
            "t": self.maker.ms / 1000,
            "n": self.node,
            "inc": self.inc,
            "lc": len(self.lines),
            "hlc": self.maker.ms << 16,
            "k": kind,
            **fields,
        }
        self.lines.append(made)
        return made


class TraceMaker:
    """Three replicas, one agent, a proxy and a client; `hash_of` chains like a real log."""

    def __init__(self) -> None:
        self.ms = START_MS
        self.lives: dict[str, Life] = {}
        self.all: list[Life] = []
        self.hashes = ["0" * 16]
        self.terms = [0]
        self.term = 0
        self.leader = ""
        self.up: list[str] = []
        self.down_from: dict[str, int] = {}

    def start(self, node: str, inc: str) -> Life:
        life = Life(self, node, inc)
        self.lives[node] = life
        self.all.append(life)
        if node in ALL:
            self._opens(life)
        return life

    def _opens(self, life: Life) -> None:
        """A replica begins with what its store holds."""
        held = [line for line in self.lines("vote") if line["n"] == life.node]
        voted = max(held, key=lambda line: line["term"], default={"term": 0, "candidate": None})
        appended = [line["index"] for line in self.lines("append") if line["n"] == life.node]
        life.line(
            "store",
            id=f"{life.node:0>32}",
            term=max(voted["term"], self.term if held else 0),
            candidate=voted["candidate"],
            index=max(appended, default=0),
            election_ms=300,
        )
        voters = {node: f"{node:0>32}" for node in ALL}
        life.line("note", text="configuration 1", index=1, voters=voters, outgoing={}, learners={})

    def emit(self, node: str, kind: str, /, **fields: Any) -> Line:
        return self.lives[node].line(kind, **fields)

    def elect(self, leader: str, voters: list[str], why: str = "won the election") -> None:
        self.term += 1
        self.leader = leader
        for voter in voters:
            if voter != leader:
                answer = {"type": "vote-reply", "term": self.term, "pre": True, "granted": True}
                sent = self.emit(voter, "send", m=f"{voter}/pre/{self.term}", to=leader, bytes=9, **answer)
                self.emit(leader, "recv", m=sent["m"], fr=voter, bytes=9, **answer)
        self.emit(leader, "role", role="candidate", term=self.term, leader=None, why="a majority would vote for it")
        for voter in voters:
            self.emit(voter, "vote", term=self.term, candidate=leader, why="log is up to date")
        self.emit(leader, "role", role="leader", term=self.term, leader=leader, why=why)
        for voter in voters:
            if voter != leader:
                self.emit(voter, "role", role="follower", term=self.term, leader=leader, why="heard the leader")
        self.append_and_commit(voters)

    def append_and_commit(self, replicas: list[str], changes: list[tuple[str, Line]] | None = None) -> int:
        """One entry becomes durable on `replicas`, is committed and applied by them; returns its index."""
        index = len(self.hashes)
        text = f"{self.hashes[-1]}{self.term}{changes}".encode()
        self.hashes.append(f"{zlib.crc32(text):08x}{zlib.crc32(text[::-1]):08x}")
        self.terms.append(self.term)
        mark = {"index": index, "ph": self.hashes[index], "marks": [[index, self.hashes[index]]]}
        for node in replicas:
            self.emit(node, "append", term=self.term, first=index, last_term=self.term, **mark)
        for node in replicas:
            self.emit(node, "commit", term=self.term, first=index, last_term=self.term, **mark)
            for kind, fields in changes or []:
                self.emit(node, kind, index=index, **fields)
            self.emit(node, "apply", first=index, index=index, ph=self.hashes[index])
        return index

    def restart(self, node: str, inc: str, *, replay: list[Line]) -> None:
        """A new life finds its whole log, commits and applies it again."""
        self.start(node, inc)
        last = len(self.hashes) - 1
        mark = {"index": last, "ph": self.hashes[last], "marks": [[last, self.hashes[last]]]}
        self.emit(node, "append", term=self.term, first=1, last_term=self.terms[last], recovered=True, **mark)
        self.emit(node, "commit", term=self.term, first=1, last_term=self.terms[last], **mark)
        for line in replay:
            common = ("i", "t", "n", "inc", "lc", "hlc", "k")
            self.emit(node, line["k"], **{key: value for key, value in line.items() if key not in common})
        self.emit(node, "apply", first=1, index=last, ph=self.hashes[last])

    # -- the scheduler -----------------------------------------------------------------------

    def register(self, replicas: list[str], node: str, cpu: int = 1000) -> int:
        fields = {
            "do": "register",
            "node": node,
            "incarnation": f"{node}-1",
            "capacity": {"cpu_millicores": cpu, "memory_bytes": 1 << 30, "pids": 100},
            "state": "ready",
        }
        return self.append_and_commit(replicas, [("node", fields)])

    def submit(self, replicas: list[str], job: str, request: str, answered: bool = True) -> int:
        self.emit("client", "op", id=request, ph="invoke", client="client-1", op="submit", key=job, value={})
        fields = {"do": "submit", "job": job, "version": 1, "request_id": request, "outcome": "created"}
        index = self.append_and_commit(replicas, [("job", fields)])
        if answered:
            value = {"index": index, "version": 1, "term": self.term}
            self.emit("client", "op", id=request, ph="ok", client="client-1", op="submit", key=job, value=value)
        return index

    def bind(self, replicas: list[str], allocation: str, node: str, cpu: int, attempt: int = 1) -> int:
        fields = self._place("bind", allocation, node, cpu, attempt, len(self.hashes))
        return self.append_and_commit(replicas, [("place", fields)])

    def release(self, replicas: list[str], allocation: str, node: str, cpu: int, epoch: int, attempt: int = 1) -> int:
        return self.append_and_commit(
            replicas, [("place", self._place("release", allocation, node, cpu, attempt, epoch))]
        )

    def _place(self, do: str, allocation: str, node: str, cpu: int, attempt: int, epoch: int) -> Line:
        return {
            "do": do,
            "allocation": allocation,
            "attempt": attempt,
            "job": allocation.rpartition(".")[0],
            "node": node,
            "epoch": epoch,
            "requests": {"cpu_millicores": cpu, "memory_bytes": 1 << 20, "pids": 10},
            "ports": [8080] if allocation.endswith("web.0") else [],
            "by": self.leader,
            "why": "most free",
        }

    # -- chaos ------------------------------------------------------------------------------

    def cut(self, source: str, target: str, forwarded: int = 1000) -> list[str]:
        ids = []
        for stream in ("upstream", "downstream"):
            id = f"{source}~{target}#x.{stream}.{self.ms}"
            by = {"proxy": f"{source}~{target}", "toxic": f"cut_{stream}", "stream": stream}
            args = {"timeout": 0, "toxicity": 1.0}
            counters = {"bytes_forwarded": forwarded}
            self.emit(
                "proxy",
                "fault",
                id=id,
                kind="timeout",
                target=f"{source}~{target}",
                args=args,
                by=by,
                counters=counters,
            )
            ids.append(id)
        return ids

    def heal(self, source: str, target: str, ids: list[str], forwarded: int = 1000, since: int = 0) -> None:
        for id, stream in zip(ids, ("upstream", "downstream"), strict=True):
            by = {"proxy": f"{source}~{target}", "toxic": f"cut_{stream}", "stream": stream}
            counters = {"bytes_forwarded": forwarded, "bytes_since_fault": since, "bytes_discarded": 77}
            self.emit("proxy", "heal", id=id, kind="timeout", target=f"{source}~{target}", by=by, counters=counters)

    # -- files ------------------------------------------------------------------------------

    def lines(self, kind: str | None = None, node: str | None = None) -> list[Line]:
        found = [line for life in self.all for line in life.lines]
        return [line for line in found if kind in (None, line["k"]) and node in (None, line["n"])]

    def remove(self, unwanted: Callable[[Line], bool]) -> None:
        """Take events out and number the rest anew, as a careful forger would."""
        for life in self.all:
            life.lines = [line for line in life.lines if not unwanted(line)]
            for number, line in enumerate(life.lines):
                line["i"] = number

    def insert(self, node: str, kind: str, after: Line, /, **fields: Any) -> Line:
        """Put an event in, right after another in time, and number anew."""
        life = self.lives[node]
        made = life.line(kind, **fields)
        life.lines.remove(made)
        made["hlc"], made["t"] = after["hlc"] + 1, after["t"]
        at = next((p for p, line in enumerate(life.lines) if line["hlc"] > made["hlc"]), len(life.lines))
        life.lines.insert(at, made)
        for number, line in enumerate(life.lines):
            line["i"] = number
        return made

    def write(self, directory: Path) -> Path:
        directory.mkdir(parents=True, exist_ok=True)
        for life in self.all:
            text = "".join(json.dumps(line) + "\n" for line in life.lines)
            (directory / f"{life.node}-{life.inc}.jsonl").write_text(text)
        return directory

    def trace(self, directory: Path) -> Trace:
        return read_trace(self.write(directory))


def good_run() -> TraceMaker:
    """A run with an election, work, a cut leader, a new leader, a heal, a kill and a restart."""
    made = TraceMaker()
    for number, node in enumerate((*ALL, "a1", "proxy", "client")):
        made.start(node, f"{number:08x}")
    made.elect("n1", ALL, why="election timeout, won 3 of 3 votes")
    made.register(ALL, "a1", cpu=1000)
    made.submit(ALL, "default/web", "r1")
    epoch = made.bind(ALL, "default/web.0", "a1", 400)
    made.emit("a1", "run", do="start", allocation="default/web.0", attempt=1, epoch=epoch, pid=77, cgroup="/x")
    send = made.emit("n1", "send", m="n1/00000000/1", to="n2", type="Append", bytes=10)
    made.emit("n2", "recv", m=send["m"], fr="n1", type="Append", bytes=10)
    made.emit(
        "client",
        "fault",
        id="s1",
        kind="partition",
        target="n1",
        args={"groups": [["n1"], REST]},
        by={"rule": "partition"},
    )
    cuts = {(a, b): made.cut(a, b) for a, b in (("n1", "n2"), ("n2", "n1"), ("n1", "n3"), ("n3", "n1"))}
    made.emit("client", "op", id="r2", ph="invoke", client="client-1", op="submit", key="default/b", value={})
    made.ms += 900
    made.emit("n1", "role", role="follower", term=1, leader=None, why="heard no majority for an election timeout")
    made.elect("n2", REST, why="election timeout, won 2 of 3 votes")
    made.emit(
        "client", "op", id="r2", ph="info", client="client-1", op="submit", key="default/b", code="outcome-unknown"
    )
    made.submit(REST, "default/batch", "r3")
    made.bind(REST, "default/batch.0", "a1", 300)
    made.ms += 2000
    for (a, b), ids in cuts.items():
        made.heal(a, b, ids)
    made.emit("client", "heal", id="s1", kind="partition", target="n1", by={"rule": "partition"})
    made.emit("n1", "role", role="follower", term=2, leader="n2", why="higher term")
    catch_up(made, "n1", ["n2"])
    made.submit(ALL, "default/last", "r4")
    replay = [line for line in made.lines(node="n3") if line["k"] in ("node", "job", "place")]
    made.emit("client", "fault", id="k1", kind="kill", target="n3", args={}, by={"rule": "sigkill"})
    made.emit("client", "heal", id="k1", kind="kill", target="n3", by={"rule": "sigkill"})
    made.ms += 500
    made.restart("n3", "000000ff", replay=replay)
    ended = {"code": 1, "signal": None, "reason": "exited", "status_known": True}
    made.emit("a1", "run", do="exit", allocation="default/web.0", attempt=1, epoch=epoch, pid=77, exit=ended)
    made.release(ALL, "default/web.0", "a1", 400, epoch)
    second = made.bind(ALL, "default/web.0", "a1", 700, attempt=2)
    made.emit("a1", "run", do="start", allocation="default/web.0", attempt=2, epoch=second, pid=78, cgroup="/y")
    stopped = {"do": "stop", "job": "default/web", "version": 1, "request_id": "r6", "outcome": "stopped"}
    made.append_and_commit(ALL, [("job", stopped)])
    made.emit("a1", "run", do="stop", allocation="default/web.0", attempt=2, epoch=second, pid=78, cgroup="/y")
    made.submit(ALL, "default/end", "r5")
    for node in ("n1", "n2", "n3"):
        made.emit(node, "note", text="end")
    return made


def catch_up(made: TraceMaker, node: str, like: list[str]) -> None:
    """`node` receives what it missed, as one batch."""
    known = max((line["index"] for line in made.lines("apply", node)), default=0)
    last = len(made.hashes) - 1
    marks = [[i, made.hashes[i]] for i in range(known + 1, last + 1)]
    fields = {"term": made.term, "first": known + 1, "index": last, "last_term": made.terms[last]}
    made.emit(node, "append", ph=made.hashes[last], marks=marks, **fields)
    made.emit(node, "commit", ph=made.hashes[last], marks=marks, **fields)
    common = ("i", "t", "n", "inc", "lc", "hlc", "k")
    for line in made.lines(node=like[0]):
        if line["k"] in ("node", "job", "place") and line["index"] > known:
            made.emit(node, line["k"], **{key: value for key, value in line.items() if key not in common})
    made.emit(node, "apply", first=known + 1, index=last, ph=made.hashes[last])
