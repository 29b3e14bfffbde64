"""A simulated node without a cluster: the sandboxer's client in the hands of a test."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from agents.sandbox_client import SandboxClient, WorkloadRecord
from agents.settings import AgentSettings
from chaos.sim.effects import EffectStore
from chaos.sim.host import SimHost
from chaos.sim.node import SimNode
from chaos.sim.processes import Traits
from chaos.sim.world import World
from cluster.trace import Tracer
from scheduler.model import Limits, Workload
from scheduler.session import Assignment

WEB = "default/web.0"


def assignment(
    *command: str, allocation: str = WEB, epoch: int = 10, on_disconnect: str = "keep", grace_s: int = 1
) -> Assignment:
    words = command or ("/bin/sim-run", "forever", "0", "obeys", "alone", "lean", "quiet")
    limits = Limits(100, 1 << 20, 10)
    work = Workload("web", "default", "service", words, {}, limits, (), grace_s, on_disconnect)
    return Assignment(allocation, epoch, 1, work)


def sim_run(runs: str, code: int = 0, *words: str) -> tuple[str, ...]:
    return ("/bin/sim-run", runs, str(code), "lean", "quiet", *words)


def settings_for(name: str, *replicas: str, **changes: Any) -> AgentSettings:
    given: dict[str, Any] = {
        "node": name,
        "directory": Path("/sim") / name,
        "cluster": "sim",
        "replicas": replicas or ("n1:1",),
        "token": "t",
        "cpu_millicores": 4000,
        "memory_bytes": 1 << 30,
        "pids": 1000,
    }
    return AgentSettings(**(given | changes))


class Bed:
    """One node in one world; `drive` runs a test's coroutine as a process of the machine."""

    def __init__(self, world: World, *, traits: Traits | None = None, name: str = "a1") -> None:
        self.world = world
        self.host = world.host(name)
        self.store = EffectStore(trace_of(world.host("store"), "store"))
        self.node = SimNode(self.host, settings_for(name), self.store, traits=traits)
        self.node.power_on()
        self._drivers = 0

    def drive(self, work: Callable[[SandboxClient], Awaitable[Any]], *, seconds: float = 60.0) -> Any:
        """Run `work` with a connection to the sandboxer, which is started if it does not run."""
        result: list[Any] = []

        async def main(machine: Any) -> None:
            self._drivers += 1
            tracer = machine.tracer(f"driver{self._drivers}", "sim", roll_bytes=0, heartbeat_sample=0, meta={})
            client = await self.node.connect(tracer)
            result.append(await work(client))
            await client.close()

        process = self.host.spawn("driver", main)

        async def ended() -> None:
            await asyncio.wait_for(process.exited, seconds)

        self.world.run(ended())
        assert result, "the driver did not come to its end"
        return result[0]

    def in_order(self, kind: str) -> list[dict[str, Any]]:
        """Fields of all events of this kind, as a trace's reader orders them."""
        return [fields for _, fields in events_of(self.world, kind)]

    def runs(self, do: str) -> list[dict[str, Any]]:
        """Fields of all `run` events that say this, in order."""
        return [fields for fields in self.in_order("run") if fields["do"] == do]


def events_of(world: World, kind: str) -> list[tuple[int, dict[str, Any]]]:
    """(milliseconds, fields) of all events of this kind, as a trace's reader orders them."""
    found = [
        (record[3], *life, record[0], record[5])
        for life, records in world.recording.lives.items()
        for record in records
        if record[4] == kind
    ]
    return [(each[0] >> 16, each[-1]) for each in sorted(found, key=lambda each: each[:4])]


def truth_spans(world: World) -> list[tuple[str, int, int, int]]:
    """(allocation, epoch, begin, end in ms) of every program that ran, by its kernel's word."""
    spans: dict[tuple[str, int, int], list[int]] = {}
    events = events_of(world, "run")
    for ms, fields in events:
        if fields["do"] in ("began", "emptied"):
            spans.setdefault((fields["allocation"], fields["epoch"], fields["pid"]), []).append(ms)
    now_ms = world.clock.wall_ns() // 1_000_000
    return [(key[0], key[1], span[0], span[1] if len(span) > 1 else now_ms) for key, span in spans.items()]


def trace_of(host: SimHost, name: str) -> Tracer:
    """The trace of a process that does nothing else."""
    return host.spawn(name, _idle).machine.tracer(name, "sim", roll_bytes=0, heartbeat_sample=0, meta={})


async def _idle(machine: Any) -> None:
    await asyncio.get_running_loop().create_future()


async def until_exit(client: SandboxClient, allocation: str, epoch: int) -> WorkloadRecord:
    """The record of an attempt that has exited."""
    while True:
        for record in await client.list():
            if (record.allocation, record.epoch) == (allocation, epoch) and record.state == "exited":
                return record
        await asyncio.sleep(0.01)
