"""Three real replicas and some simulated nodes in one world, for tests of what nodes do."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import contextmanager
from typing import Any

import msgspec
import structlog
from sim_nodes import events_of, settings_for, trace_of

from chaos.sim.effects import EffectStore
from chaos.sim.host import Process
from chaos.sim.links import CUT
from chaos.sim.node import SimNode
from chaos.sim.processes import Traits
from chaos.sim.world import World
from cluster.settings import ClusterSection, Config, LeaseSection, ReplicaSection, SecuritySection, TraceSection
from scheduler.assembly import Replica

REPLICAS = ("n1", "n2", "n3")
LEASE_MS, DELTA_MS = 3_000, 500


def config_of(name: str) -> Config:
    return Config(
        cluster=ClusterSection(name="sim"),
        replica=ReplicaSection(
            id=name,
            dir="data",
            listen_links=f"{name}:7100",
            listen_api=f"{name}:7200",
            peers={each: f"{each}:7100" for each in REPLICAS},
            api_peers={each: f"{each}:7200" for each in REPLICAS},
        ),
        lease=LeaseSection(duration_ms=LEASE_MS, drift_ppm=1_000, delta_ms=DELTA_MS),
        security=SecuritySection(link_token="t", api_token="t"),
        trace=TraceSection(dir="t"),
    )


class SimCluster:
    def __init__(self, world: World, nodes: int, traits: Traits | None = None) -> None:
        self.world = world
        self.replicas: dict[str, Process] = {}
        for name in REPLICAS:
            self.replicas[name] = world.host(name).spawn("replica", _replica)
        self.caller = world.host("caller")
        self.store = EffectStore(trace_of(self.caller, "store"))
        replicas = tuple(f"{name}:7100" for name in REPLICAS)
        self.nodes = {
            name: SimNode(
                world.host(name), settings_for(name, *replicas, heartbeat_s=0.3, usage_s=5.0), self.store, traits=traits
            )
            for name in (f"a{number + 1}" for number in range(nodes))
        }
        for node in self.nodes.values():
            node.start()
        self._requests = 0

    def call(self, method: str, target: str, **body: Any) -> Any:
        """One call of the API, asked until it succeeds."""
        found: list[Any] = []

        async def ask(machine: Any) -> None:
            self._requests += 1
            if method == "POST":
                body["request_id"] = f"r{self._requests}"
            headers = {"Authorization": "Bearer t"}
            async with machine.network.client(connections_max=4, reuse=False) as client:
                while True:
                    for name in REPLICAS:
                        answer = await _asked(client, name, method, target, headers, body)
                        if answer is not None:
                            found.append(answer)
                            return
                    await asyncio.sleep(0.2)

        process = self.caller.spawn("caller", ask)

        async def ended() -> None:
            await asyncio.wait_for(process.exited, 60)

        self.world.run(ended())
        return found[0]

    def submit(self, name: str, *command: str, **more: Any) -> None:
        job = {"name": name, "kind": "service", "command": list(command), "terminationGracePeriodSeconds": 1, **more}
        self.call("POST", "/v1/jobs", job=job)

    def allocations(self, name: str) -> list[dict[str, Any]]:
        return self.call("GET", f"/v1/jobs/default/{name}")["allocations"]

    def until(self, holds: Callable[[], Any], seconds: float = 40.0) -> Any:
        """Let time pass until something holds."""
        for _ in range(int(seconds * 10)):
            found = holds()
            if found:
                return found
            self.world.run_for(0.1)
        raise AssertionError("it never held")

    def running(self) -> list[tuple[str, int, str]]:
        """(allocation, epoch, node) of every process that really runs."""
        return sorted((*key, name) for name, node in self.nodes.items() for key in node.running())

    def effects(self) -> list[dict[str, Any]]:
        """What the store said."""
        return [fields for _, fields in events_of(self.world, "effect")]

    def isolate(self, name: str) -> None:
        others = [other for other in (*REPLICAS, *self.nodes) if other != name]
        pairs = [pair for other in others for pair in ((name, other), (other, name))]
        self.world.network.impair("isolate", pairs, CUT)

    def heal(self) -> None:
        self.world.network.heal_all()


async def _asked(client: Any, name: str, method: str, target: str, headers: dict[str, str], body: Any) -> Any:
    try:
        async with asyncio.timeout(3):
            answer = await client.call(
                f"{name}:7200", method, target, headers=headers, body=msgspec.json.encode(body) if body else None
            )
    except (ConnectionError, TimeoutError):
        return None
    if answer.status == 200 or 201 <= answer.status < 300:
        return msgspec.json.decode(answer.body)
    assert answer.status in (404, 409, 421, 429, 503), (answer.status, answer.body)
    return None


async def _replica(machine: Any) -> None:
    await Replica(config_of(machine.machine.name), structlog.get_logger(), host=machine).run()


@contextmanager
def quiet() -> Any:
    """Nothing is logged: a simulated cluster says in seconds what a real one says in hours."""
    before = structlog.get_config()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    try:
        yield
    finally:
        structlog.configure(**before)
