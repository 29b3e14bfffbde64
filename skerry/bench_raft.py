"""``skerry bench raft``: durable commits through three replica processes, and failover by kill.

Owns: running the processes, the order of measurements, medians and ratios.  Must not know: the command line.

Everything of one ratio is measured in one run: the disk and the loopback alone, then commits with few and many
outstanding.  The load runs inside the leader, where the scheduler proposes its decisions.
"""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import signal
import socket
import statistics
import sys
import tempfile
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

from cluster.clock import SystemClock
from raft.counters import BOUNDS_NS
from skerry.bench_machine import Foreign, disk_floor, environment, loopback_floor, wait_until_quiet

NAMES = ("n1", "n2", "n3")
ELECTION_TIMEOUT_MS = 150
WARM_S = 0.5
DISK_S = 0.5
SETTLE_S = 0.5
QUIET_SHARE, QUIET_PATIENCE_S = 0.25, 10.0
PATIENCE_S = 30.0
FAILOVER_PATIENCE_S = 15.0


class Process:
    """One replica process and its answers."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self._ids = count(1)
        self._waiting: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._reading = asyncio.ensure_future(self._read())

    @classmethod
    async def start(cls, config: dict[str, Any]) -> Process:
        """Start a replica with this configuration; what it logs goes beside its directory."""
        with open(f"{config['dir']}.log", "ab") as log:  # noqa: ASYNC230  opened once, written by the child
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "skerry.bench_replica",
                json.dumps(config),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
            )
        return cls(process)

    def ask(self, do: str, **arguments: Any) -> tuple[int, asyncio.Future[dict[str, Any]]]:
        """Give a command; its number, and its answer to come."""
        number = next(self._ids)
        self._waiting[number] = asyncio.get_running_loop().create_future()
        self._tell({"id": number, "do": do, **arguments})
        return number, self._waiting[number]

    async def answer(self, do: str, **arguments: Any) -> dict[str, Any]:
        """Give a command and wait for its answer; raises ConnectionError when the process ends first."""
        return await self.ask(do, **arguments)[1]

    def cancel(self, number: int) -> None:
        """Stop a command; no answer comes."""
        self._tell({"do": "cancel", "target": number})
        self._waiting.pop(number).cancel()

    def kill(self) -> None:
        """SIGKILL."""
        self.process.send_signal(signal.SIGKILL)

    async def end(self) -> None:
        """End the process, in order if it still can."""
        assert self.process.stdin is not None, "its input is a pipe"
        self.process.stdin.close()
        try:
            await asyncio.wait_for(self.process.wait(), 10)
        except TimeoutError:
            self.process.kill()
            await self.process.wait()
        await self._reading

    def _tell(self, command: dict[str, Any]) -> None:
        assert self.process.stdin is not None, "its input is a pipe"
        self.process.stdin.write(json.dumps(command).encode() + b"\n")

    async def _read(self) -> None:
        assert self.process.stdout is not None, "its output is a pipe"
        while line := await self.process.stdout.readline():
            answer = json.loads(line)
            waiting = self._waiting.pop(answer["id"], None)
            if waiting is not None and not waiting.done():
                waiting.set_result(answer)
        for waiting in self._waiting.values():
            if not waiting.done():
                waiting.set_exception(ConnectionError("the replica process ended"))
                waiting.exception()  # who still waits gets it; nobody has to
        self._waiting.clear()


class Cluster:
    """Three replica processes; use as an async context manager."""

    def __init__(self, directory: Path) -> None:
        addresses = _free_addresses(len(NAMES))
        self._directory = directory
        self._peers = dict(zip(NAMES, addresses, strict=True))
        self._token = secrets.token_hex(16)
        self.processes: dict[str, Process] = {}

    async def __aenter__(self) -> Cluster:
        for name in NAMES:
            await self.start(name)
        return self

    async def __aexit__(self, *_: object) -> None:
        await asyncio.gather(*(process.end() for process in self.processes.values()))

    async def start(self, name: str) -> None:
        """Start (again) one replica on its directory."""
        self.processes[name] = await Process.start(
            {
                "id": name,
                "peers": self._peers,
                "dir": str(self._directory / name),
                "token": self._token,
                "election_timeout_ms": ELECTION_TIMEOUT_MS,
            }
        )

    @property
    def pids(self) -> list[int]:
        """Of all replicas."""
        return [process.process.pid for process in self.processes.values()]

    async def leader(self) -> str:
        """Wait until all replicas run, follow one leader, and have applied all that it has."""
        async with asyncio.timeout(PATIENCE_S):
            while True:
                answers = await asyncio.gather(*(one.answer("status") for one in self.processes.values()))
                leaders = {answer["leader"] for answer in answers}
                applied = {answer["applied_index"] for answer in answers}
                last = {answer["last_index"] for answer in answers}
                if len(leaders) == 1 and None not in leaders and len(applied | last) == 1 and 0 not in applied:
                    return str(leaders.pop())
                await asyncio.sleep(0.05)

    async def failover_ms(self) -> float:
        """Kill the leader; time to the next write that a survivor acknowledges.  Restarts it afterwards."""
        leader = await self.leader()
        await asyncio.sleep(SETTLE_S)
        struck = self.processes.pop(leader)
        probes = {name: process.ask("probe") for name, process in self.processes.items()}
        killed_ns = SystemClock().now_ns()
        struck.kill()
        done, _ = await asyncio.wait(
            [answer for _, answer in probes.values()],
            timeout=FAILOVER_PATIENCE_S,
            return_when=asyncio.FIRST_COMPLETED,
        )
        if not done:
            raise TimeoutError(f"no survivor acknowledged a write within {FAILOVER_PATIENCE_S} s")
        first_ns = min(answer.result()["acknowledged_ns"] for answer in done)
        for name, (number, answer) in probes.items():
            if not answer.done():
                self.processes[name].cancel(number)
        await struck.end()
        await self.start(leader)
        return float(first_ns - killed_ns) / 1e6


async def run_bench(*, runs: int, seconds: float, outstanding: list[int], failover_kills: int) -> dict[str, Any]:
    """Measure; returns {environment, runs, peers, results, ratios} (DESIGN.md §13).

    Args:
        runs: how often everything but failover is measured; results are medians of these.
        seconds: length of one load.
        outstanding: proposals in flight, one load each, in ascending order.
        failover_kills: leaders to kill.
    """
    depths = sorted(outstanding)
    measured: list[dict[str, float]] = []
    conditions: list[dict[str, float]] = []
    failovers: list[float] = []
    with tempfile.TemporaryDirectory(prefix="skerry-bench-") as place:
        for run in range(runs):
            figures, condition = await _measure(Path(place) / f"run{run}", seconds, depths)
            measured.append(figures)
            conditions.append(condition)
        if failover_kills:
            async with Cluster(Path(place)) as cluster:
                failovers = [await cluster.failover_ms() for _ in range(failover_kills)]
    results = {name: _spread([figures[name] for figures in measured]) for name in measured[0]}
    if failovers:
        results["failover_ms"] = _spread(failovers)
    floors = ("disk_p50_ms", "disk_p99_ms", "loopback_p50_ms")
    return {
        "environment": {
            **environment(),
            "conditions": conditions,
            "election_timeout_ms": ELECTION_TIMEOUT_MS,
            "seconds": seconds,
            "outstanding": depths,
            "failovers_ms": [round(one, 1) for one in failovers],
        },
        "runs": runs,
        "peers": {"disk": "pwrite and fdatasync of 200 bytes in a zero-filled file, nothing else running of ours"},
        "results": {**{name: results.pop(name) for name in floors}, **results},
        "ratios": _ratios(measured, depths, failovers),
    }


async def _measure(directory: Path, seconds: float, depths: list[int]) -> tuple[dict[str, float], dict[str, float]]:
    """One run: the floors, then each depth on a new cluster's leader."""
    await wait_until_quiet(QUIET_SHARE, QUIET_PATIENCE_S)
    disk = await asyncio.to_thread(disk_floor, directory, DISK_S)
    loopback = await asyncio.to_thread(loopback_floor)
    figures = {
        "disk_p50_ms": disk["p50_ms"],
        "disk_p99_ms": disk["p99_ms"],
        "loopback_p50_ms": loopback["p50_ms"],
    }
    load_average = os.getloadavg()[0]
    async with Cluster(directory) as cluster:
        leader = await cluster.leader()
        foreign = Foreign(cluster.pids)
        for depth in depths:
            load = await cluster.processes[leader].answer("load", outstanding=depth, seconds=seconds, warm_s=WARM_S)
            for name in ("commits_per_s", "p50_ms", "p99_ms", "writes_per_s"):
                figures[f"{name}_{depth}"] = load[name]
            figures[f"loop_p99_ms_{depth}"] = _bucket_ms(load["turns"], 0.99, load["turn_max_ms"])
            figures[f"loop_max_ms_{depth}"] = load["turn_max_ms"]
        condition = {"load_average": round(load_average, 2), "foreign_cpu": round(foreign.share(), 3)}
    return figures, condition


def _ratios(measured: list[dict[str, float]], depths: list[int], failovers: list[float]) -> dict[str, dict[str, float]]:
    """Ratios of figures of the same run."""
    few, many = depths[0], depths[-1]
    formulas: dict[str, Callable[[dict[str, float]], float]] = {
        f"commit_{few}_over_disk_and_loopback": lambda one: (
            one[f"p50_ms_{few}"] / (one["disk_p50_ms"] + one["loopback_p50_ms"])
        ),
    }
    if many != few:
        formulas[f"batching_{many}_over_{few}"] = lambda one: one[f"commits_per_s_{many}"] / one[f"commits_per_s_{few}"]
        formulas[f"commits_per_sync_{many}"] = lambda one: one[f"commits_per_s_{many}"] / one[f"writes_per_s_{many}"]
    ratios = {name: _spread([formula(one) for one in measured]) for name, formula in formulas.items()}
    if failovers:
        ratios["failover_over_election_timeout"] = _spread([one / ELECTION_TIMEOUT_MS for one in failovers])
    return ratios


def markdown_table(result: dict[str, Any]) -> str:
    """The table of `docs/benchmarks.md`."""
    results, where = result["results"], result["environment"]
    rows = [
        "| outstanding | commits/s | p50 ms | p99 ms | commits a sync | loop held, p99 ms |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for depth in where["outstanding"]:
        commits, writes = results[f"commits_per_s_{depth}"], results[f"writes_per_s_{depth}"]
        rows.append(
            f"| {depth} | {commits['median']:,.0f} ({commits['min']:,.0f}–{commits['max']:,.0f})"
            f" | {results[f'p50_ms_{depth}']['median']:.2f} | {results[f'p99_ms_{depth}']['median']:.2f}"
            f" | {commits['median'] / writes['median']:.1f} | {results[f'loop_p99_ms_{depth}']['median']:.2f} |"
        )
    lines = [*rows, "", *_sentences(result)]
    return "\n".join(lines) + "\n"


def _sentences(result: dict[str, Any]) -> list[str]:
    """What the table does not say."""
    results, where = result["results"], result["environment"]
    busiest = max(where["conditions"], key=lambda one: float(one["foreign_cpu"]))
    lines = [
        f"Medians of {result['runs']} runs of {where['seconds']:g} s (minimum–maximum), {where['value_bytes']}-byte"
        f" values, {where['replicas']} replica processes and the load on {where['cpus']} processors ({where['cpu']},"
        f" kernel {where['kernel']}, Python {where['python']}); others used up to"
        f" {busiest['foreign_cpu']:.0%} of the machine.",
        "",
        f"The disk alone: {results['disk_p50_ms']['median']:.3f} ms a synced write (p99"
        f" {results['disk_p99_ms']['median']:.3f}). A loopback round trip:"
        f" {results['loopback_p50_ms']['median']:.3f} ms.",
    ]
    if "failover_ms" in results:
        failover = results["failover_ms"]
        lines += [
            "",
            f"Failover, {len(where['failovers_ms'])} leaders killed, election timeout"
            f" {where['election_timeout_ms']} ms: next acknowledged write after {failover['median']:.0f} ms"
            f" ({failover['min']:.0f}–{failover['max']:.0f}).",
        ]
    return lines


def _spread(values: list[float]) -> dict[str, float]:
    digits = 4
    return {
        "median": round(statistics.median(values), digits),
        "min": round(min(values), digits),
        "max": round(max(values), digits),
    }


def _bucket_ms(counts: list[int], share: float, max_ms: float) -> float:
    """Upper bound of the bucket that holds the quantile; never above the longest."""
    wanted, seen = share * sum(counts), 0
    for bucket, counted in enumerate(counts):
        seen += counted
        if counted and seen >= wanted:
            return min(max_ms, BOUNDS_NS[bucket] / 1e6) if bucket < len(BOUNDS_NS) else max_ms
    return 0.0


def _free_addresses(number: int) -> list[str]:
    """Loopback addresses whose ports were free a moment ago."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(number)]
    addresses = [f"127.0.0.1:{one.getsockname()[1]}" for one in sockets]
    for one in sockets:
        one.close()
    return addresses
