"""Scenario files in the simulator: the same files, the same order of a run, the same verdict as on live processes.

Owns: the simulated backend of `chaos.scenario`: calls, links as routes, processes, the trace of a run.
Must not know: the order of a run (`chaos.scenario.runner`), or what a scenario expects.

A link a→b is the connections that a dials to b, as it is the proxy ``a~b`` of a live cluster (`chaos.links`).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import Any, Final

from chaos.errors import SelectorUnresolved
from chaos.links import Matrix, Pair, proxy_name
from chaos.scenario.backend import Backend, Emitter
from chaos.scenario.model import Scenario
from chaos.scenario.runner import Run, RunResult, Say, judge, silent
from chaos.sim.api import SimApi
from chaos.sim.cluster import SimCluster
from chaos.sim.host import ProcessHost
from chaos.sim.links import CUT, MS, US, Impairment
from chaos.sim.quiet import quiet_log
from chaos.sim.recording import Recording
from chaos.sim.swarm.configs import API_TOKEN, TRACE, api_address
from chaos.sim.swarm.profile import (
    MIB,
    ClockShape,
    LeaseShape,
    MachineShape,
    NodeShape,
    Profile,
    RaftShape,
    Spread,
    Transport,
)
from chaos.sim.world import World
from chaos.trace.records import trace_of
from cluster.settings import AgentSection, LeaseSection, RaftSection

CLIENT: Final = "client"
SETTLE_S: Final = 1.0
"""After the run: what was on its way arrives, as it does before a live trace is read."""


def run_scenario(
    scenario: Scenario, *, seed: int | None = None, out: Path, transport: Transport = "direct", say: Say = silent
) -> RunResult:
    """Run one scenario in a world of its own and judge it.

    Args:
        scenario: checked.
        seed: of every choice; None = the scenario's own.
        out: its trace is written here.
        transport: of the simulated network.
        say: told about progress, a line at a time.
    """
    chosen = scenario.seed if seed is None else seed
    profile = scenario_profile(scenario, chosen, transport)
    recording = Recording({"seed": chosen, "backend": "sim", "scenario": scenario.name})
    latency_ns = (profile.latency_us.least * US, profile.latency_us.most * US)
    runs: list[Run] = []
    with quiet_log(), World(chosen, transport=transport, latency_ns=latency_ns, recording=recording) as world:
        desk = world.host(CLIENT)

        async def main(machine: ProcessHost) -> None:
            tracer = machine.tracer(CLIENT, TRACE, roll_bytes=1 << 30, heartbeat_sample=0, meta={"role": "client"})
            cluster = SimCluster(world, profile, tracer)
            async with machine.network.client() as client:
                api = SimApi(client, {name: api_address(name) for name in cluster.replicas}, API_TOKEN)
                backend = Backend("sim", api, SimLinks(cluster, tracer), SimProcesses(cluster), tracer)
                dice = Random(f"scenario:{chosen}")  # noqa: S311  repeatable on purpose
                run = Run(scenario, backend, f"c{tracer.incarnation}", dice, say)
                runs.append(run)
                cluster.start()
                await run.carry_out()

        process = desk.spawn("scenario", main)

        async def harness() -> None:
            await process.exited
            await world.loop.sleep_until(world.now_ns + int(SETTLE_S * 1e9))

        world.run(harness())
    recording.write(out)
    return judge(scenario, trace_of(recording.lives), runs[0], str(out))


def scenario_profile(scenario: Scenario, seed: int, transport: Transport) -> Profile:
    """A cluster of the scenario's size with the settings that production has by default, and nothing wrong with it."""
    raft, lease, agent = RaftSection(), LeaseSection(), AgentSection()
    shape = scenario.cluster
    calm = ClockShape(0, 0)
    sync = Spread(100, 1_000)
    node = NodeShape(cpu_millicores=4_000, memory_bytes=4_096 * MIB, labels={}, taints=())
    return Profile(
        seed=seed,
        transport=transport,
        policy="fifo",
        replicas=tuple(MachineShape(f"n{number + 1}", calm, sync, False) for number in range(shape.replicas)),
        agents=tuple(MachineShape(f"a{number + 1}", calm, sync, False) for number in range(shape.agents)),
        nodes=(node,) * shape.agents,
        raft=RaftShape(
            election_timeout_ms=raft.election_timeout_ms,
            snapshot_entries=raft.snapshot_entries,
            keep_tail_entries=raft.keep_tail_entries,
            segment_bytes=1 << 20,
            snapshot_chunk_bytes=raft.snapshot_chunk_bytes,
            max_inflight_messages=raft.max_inflight_messages,
        ),
        lease=LeaseShape(lease.duration_ms, lease.drift_ppm, lease.delta_ms, agent.heartbeat_ms),
        latency_us=Spread(100, 400),
        loss_permille=0,
        safety_ms=0,
    )


class SimLinks:
    """The directed links as routes; satisfies `chaos.scenario.backend.Links`.

    Every cut tells its `fault` and `heal` a link, with what had come through, as the proxy's toxics do.
    """

    def __init__(self, cluster: SimCluster, trace: Emitter) -> None:
        self._network = cluster.world.network
        self._trace = trace
        replicas, agents = cluster.replicas, cluster.agents
        self._matrix = Matrix(
            [(a, b) for a in replicas for b in replicas if a != b] + [(a, b) for a in agents for b in replicas]
        )
        self._cuts: dict[str, dict[Pair, int]] = {}
        """Fault → link → segments that had come through when it was cut."""

    async def matrix(self) -> Matrix:
        """The links there are."""
        return self._matrix

    async def cut(self, fault: str, pairs: Sequence[Pair]) -> None:
        """Nothing passes on these links until `heal`."""
        self._impair(fault, pairs, CUT)
        self._cuts[fault] = {pair: self._network.route(*pair).arrived for pair in pairs}
        for pair, before in self._cuts[fault].items():
            self._tell("fault", fault, pair, {"bytes_forwarded": before})

    async def delay(self, fault: str, pairs: Sequence[Pair], *, latency_ms: int, jitter_ms: int) -> None:
        """Messages on these links arrive late until `heal`."""
        self._impair(fault, pairs, Impairment(delay_ns=latency_ms * MS, jitter_ns=jitter_ms * MS))

    async def heal(self, fault: str) -> None:
        """Remove what `fault` put into force."""
        for pair, before in self._cuts.pop(fault, {}).items():
            now = self._network.route(*pair).arrived
            self._tell("heal", fault, pair, {"bytes_forwarded": now, "bytes_since_fault": now - before})
        self._network.heal(fault)

    def _impair(self, fault: str, pairs: Sequence[Pair], impairment: Impairment) -> None:
        if not pairs:
            raise SelectorUnresolved(f"fault {fault} touches no link", hint="name two different groups of nodes")
        self._network.impair(fault, pairs, impairment, routes=True)

    def _tell(self, kind: str, fault: str, pair: Pair, counters: dict[str, int]) -> None:
        name = proxy_name(pair)
        self._trace.emit(
            kind, id=f"{fault}@{name}", kind="timeout", target=name, args={"timeout": 0, "toxicity": 1.0},
            by={"proxy": name, "stream": "upstream"}, counters=counters,
        )  # fmt: skip


class SimProcesses:
    """Control of the replicas' and agents' processes; satisfies `chaos.scenario.backend.Processes`."""

    def __init__(self, cluster: SimCluster) -> None:
        self._cluster = cluster

    async def kill(self, name: str) -> None:
        """SIGKILL."""
        self._cluster.crash(name)

    async def start(self, name: str) -> None:
        """Start a process that is not running."""
        self._cluster.boot(name)

    async def pause(self, name: str) -> None:
        """SIGSTOP."""
        process = self._cluster.process(name)
        if process is not None:
            process.stop()

    async def resume(self, name: str) -> None:
        """SIGCONT."""
        process = self._cluster.process(name)
        if process is not None:
            process.go_on()

    async def pids(self) -> dict[str, int]:
        """Process name → 1, of those that run."""
        names = (*self._cluster.replicas, *self._cluster.agents)
        found: dict[str, Any] = {name: self._cluster.process(name) for name in names}
        return {name: 1 for name, process in found.items() if process is not None and process.alive}
