"""One replica process under measurement: consensus, disk and links as in production, no scheduler on top.

Owns: the commands that the benchmark gives over standard input, one JSON object a line with an ``id``, and the
closed-loop load inside the process.  Must not know: how results are put together.
"""

from __future__ import annotations

import asyncio
import gc
import json
import sys
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from pathlib import Path
from time import perf_counter
from typing import Any

import structlog
import uvloop

from cluster.aiohttp_network import AiohttpNetwork
from cluster.clock import SystemClock
from cluster.dice import SystemDice
from cluster.trace import new_incarnation
from cluster.trace_writer import file_tracer
from cluster.transport import LinkIdentity, Links
from raft.core import CoreConfig
from raft.disk import RealDisk
from raft.driver import Driver
from raft.errors import SkerryError
from raft.messages import Entry
from raft.store.log_store import LogStore

VALUE_BYTES = 100
CLUSTER = "bench"
SWITCH_INTERVAL_S = 0.0005
PROBE_PAUSE_S = 0.002
PROBE_TIMEOUT_S = 1.0
COMMIT_TIMEOUT_S = 10.0


class Counting:
    """A state machine that only counts: what is measured is consensus."""

    def apply(self, entries: Sequence[Entry]) -> Sequence[int]:
        """Answers each entry with its index."""
        return [entry.index for entry in entries]

    def freeze(self) -> Nothing:
        """There is no state but the index, which the snapshot names itself."""
        return Nothing()

    def restore(self, index: int, term: int, chunks: Iterable[bytes]) -> None:
        """Nothing to restore; the chunks are read, as they would be."""
        for _ in chunks:
            pass


class Nothing:
    """The frozen state of `Counting`."""

    def chunks(self) -> Iterator[bytes]:
        """No bytes."""
        return iter(())

    def digest(self) -> str:
        """Always the same."""
        return "0:0"

    def release(self) -> None:
        """Nothing was held."""


class BenchReplica:
    """The parts of one replica, and the commands."""

    def __init__(self, config: dict[str, Any]) -> None:
        self._address: str = config["peers"][config["id"]]
        dice, self.clock = SystemDice(), SystemClock()
        self._network = AiohttpNetwork()
        store = LogStore.open(RealDisk(Path(config["dir"])), node_id=config["id"], cluster_name=CLUSTER, dice=dice)
        self.links = Links(
            identity=LinkIdentity(config["id"], store.store_id, CLUSTER, lambda: self.driver.status().cluster_id),
            peers=config["peers"],
            token=config["token"],
            tracer=file_tracer(config["id"], None, self.clock, incarnation=new_incarnation(dice)),
            clock=self.clock,
            dice=dice,
            deliver=lambda sender, message, store: self.driver.receive(sender, message, store),
            serve=self._serve,
            network=self._network,
        )
        self.driver = Driver(
            config=CoreConfig(
                id=config["id"],
                store_id=store.store_id,
                peers=tuple(sorted(config["peers"])),
                election_timeout_ns=config["election_timeout_ms"] * 1_000_000,
            ),
            store=store,
            transport=self.links,
            clock=self.clock,
            dice=dice,
            machine=Counting(),
            observer=_Silent(),
        )
        self._commands: dict[str, Callable[[dict[str, Any]], Awaitable[dict[str, Any]]]] = {
            "status": self._status,
            "load": self._load,
            "probe": self._probe,
        }

    async def run(self) -> None:
        """Serve commands until standard input ends."""
        listener = await self._network.listen(self._address, sockets=self.links.sockets(), key="bench")
        gc.collect()
        gc.freeze()
        gc.set_threshold(100_000, 50, 50)
        parts = [asyncio.ensure_future(self.links.run()), asyncio.ensure_future(self.driver.run())]
        commands = asyncio.ensure_future(self._serve_commands())
        await asyncio.wait([*parts, commands], return_when=asyncio.FIRST_COMPLETED)
        for part in parts:
            if part.done():
                part.result()
        await self.driver.stop()
        await self.links.close()
        await listener.close()

    async def _serve_commands(self) -> None:
        reader = asyncio.StreamReader()
        await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
        running: dict[int, asyncio.Task[None]] = {}
        while line := await reader.readline():
            command = json.loads(line)
            if command["do"] == "cancel":
                running[command["target"]].cancel()
            else:
                running[command["id"]] = asyncio.ensure_future(self._answer(command))

    async def _answer(self, command: dict[str, Any]) -> None:
        answer = await self._commands[command["do"]](command)
        sys.stdout.write(json.dumps({"id": command["id"], **answer}) + "\n")
        sys.stdout.flush()

    async def _serve(self, sender: str, method: str, body: bytes) -> bytes:
        raise AssertionError(f"nobody asks {method} here")

    # -- commands ------------------------------------------------------------------------------

    async def _status(self, _: dict[str, Any]) -> dict[str, Any]:
        status = self.driver.status()
        return {
            "role": status.role,
            "term": status.term,
            "leader": status.leader,
            "last_index": status.last_index,
            "applied_index": status.applied_index,
            "round_trip_ms": {peer.peer: peer.round_trip_ms for peer in self.links.peers_status()},
        }

    async def _load(self, command: dict[str, Any]) -> dict[str, Any]:
        """A closed loop: `outstanding` callers, each with one proposal in flight."""
        value, driver = bytes(VALUE_BYTES), self.driver
        latencies: list[float] = []
        start = perf_counter() + command["warm_s"]
        end = start + command["seconds"]
        turns, writes = driver.counters.turns.counts[:], driver.counters.writes.count
        driver.counters.turns.max_ns = 0

        async def caller() -> None:
            while (begun := perf_counter()) < end:
                await driver.propose(value, timeout_s=COMMIT_TIMEOUT_S)
                if begun >= start:
                    latencies.append(perf_counter() - begun)

        await asyncio.gather(*(caller() for _ in range(command["outstanding"])))
        latencies.sort()
        counted = [now - before for now, before in zip(driver.counters.turns.counts, turns, strict=True)]
        return {
            "commits_per_s": len(latencies) / command["seconds"],
            "p50_ms": latencies[len(latencies) // 2] * 1e3,
            "p99_ms": latencies[len(latencies) * 99 // 100] * 1e3,
            "max_ms": latencies[-1] * 1e3,
            "writes_per_s": (driver.counters.writes.count - writes) / (command["seconds"] + command["warm_s"]),
            "turns": counted,
            "turn_max_ms": driver.counters.turns.max_ns / 1e6,
        }

    async def _probe(self, _: dict[str, Any]) -> dict[str, Any]:
        """Try to write until one write is acknowledged; when that was."""
        while True:
            try:
                await self.driver.propose(bytes(VALUE_BYTES), timeout_s=PROBE_TIMEOUT_S)
            except SkerryError:
                await asyncio.sleep(PROBE_PAUSE_S)
            else:
                return {"acknowledged_ns": self.clock.now_ns()}


class _Silent:
    """An observer that records nothing; the trace has a benchmark of its own."""

    def emit(self, kind: str, /, **fields: Any) -> None:
        """Nothing."""


def main() -> None:
    """``python -m skerry.bench_replica CONFIG``, a JSON object."""
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))  # standard output is for answers
    uvloop.run(BenchReplica(json.loads(sys.argv[1])).run())


if __name__ == "__main__":
    main()
