"""A node of the simulated cluster: one machine with its kernel, a sandboxer and an agent.

Owns: starting, killing and restarting them, alone and together; power, pauses, a wiped directory.
Must not know: replicas, schedules of faults, checkers.

The agent is `agents.agent.Agent` itself, the sandboxer's code is production's (`chaos.sim.sandboxer`).  Kernel and
workloads are lives of the machine as processes are, so a pause holds them back and a power loss ends them.  An agent
that ends by itself is started again, as by a service manager.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextvars import Context, copy_context
from pathlib import Path
from typing import Any, Final

from agents.agent import Agent
from agents.home import Home
from agents.logs import Chunk, Cursor
from agents.sandbox_client import SandboxClient
from agents.sandbox_launch import CONNECT_TIMEOUT_S, SandboxerUnavailable
from agents.settings import AgentSettings
from chaos.sim.effects import EffectStore
from chaos.sim.host import Process, ProcessHost, SimHost
from chaos.sim.journal import DIRECTORY
from chaos.sim.kernel import Kernel
from chaos.sim.lives import LIFE
from chaos.sim.processes import Traits
from chaos.sim.sandboxer import Sandboxer
from chaos.sim.small_files import DiskHome
from cluster.trace import Tracer

AGENT_DIRECTORY: Final = "agent"
RESTART_S: Final = 1.0
PARTS: Final = ("agent", "sandboxer", "both")


class SimNode:
    """One node.

    Args:
        host: its machine.
        settings: of its agent.
        store: what its workloads write to.
        traits: of its kernel.
    """

    def __init__(
        self, host: SimHost, settings: AgentSettings, store: EffectStore, *, traits: Traits | None = None
    ) -> None:
        self.host = host
        self.settings = settings
        self.store = store
        self.traits = traits or Traits()
        self.agent: Process | None = None
        self.sandboxer: Sandboxer | None = None
        self.wanted = False
        """Whether the agent is to run."""
        self.failures: list[str] = []
        """Why agents ended that were not told to."""
        self._kernel: Kernel | None = None
        self._stop: asyncio.Event | None = None
        self._dice = host.world.stream(f"node:{host.name}")

    @property
    def name(self) -> str:
        """Of node and machine."""
        return self.host.name

    @property
    def kernel(self) -> Kernel:
        """Of the present boot."""
        assert self._kernel is not None, f"{self.name} was never switched on"
        return self._kernel

    def running(self) -> list[tuple[str, int]]:
        """(allocation, epoch) of everything that really has a process, sorted."""
        if self._kernel is None:
            return []
        return sorted((workload.allocation, workload.epoch) for workload in self._kernel.running())

    # -- starting ---------------------------------------------------------------------------------

    def power_on(self) -> None:
        """Switch the machine on, if it is not."""
        self.host.power_on()
        if self._kernel is None:
            self._kernel = self._boot()

    def start(self) -> None:
        """Start the agent, on a machine that is on."""
        self.power_on()
        self.wanted = True
        if self.agent is None or not self.agent.alive:
            self._spawn_agent()

    def _spawn_agent(self) -> None:
        agent = self.agent = self.host.spawn("agent", self._agent)
        agent.exited.add_done_callback(lambda done: self._agent_ended(agent, done))

    def _agent_ended(self, agent: Process, done: asyncio.Future[Any]) -> None:
        """An agent that ended by itself comes again; one that was killed does when somebody starts it."""
        if done.exception() is not None:
            self.failures.append(repr(done.exception()))
        if self.wanted and agent is self.agent and self.host.powered:
            self.host.world.loop.call_later(RESTART_S, self._again, agent)

    def _again(self, before: Process) -> None:
        if self.wanted and self.agent is before and self.host.powered and not before.alive:
            self._spawn_agent()

    async def _agent(self, machine: ProcessHost) -> None:
        settings = self.settings
        home = Home.open(
            Path("/sim") / self.name,
            node=settings.node,
            cluster_name=settings.cluster,
            files=DiskHome(machine.disk(AGENT_DIRECTORY)),
            dice=machine.dice,
        )
        tracer = machine.tracer(
            settings.node, "sim", roll_bytes=0, heartbeat_sample=settings.heartbeat_sample, meta={"process": "agent"}
        )
        tracer.emit("note", text="agent started")
        stop = self._stop = asyncio.Event()
        agent = Agent(settings, home, tracer, lambda: self.connect(tracer), host=machine, read_output=_no_output)
        await agent.run(stop)
        tracer.emit("note", text="agent ended")
        home.close()

    async def connect(self, tracer: Tracer) -> SandboxClient:
        """See `agents.agent.connect_sandboxer`."""
        context = copy_context()

        async def opened() -> Any:
            return (await self._sandboxer_ready()).accept(context)

        return await SandboxClient.over(opened, clocks=tracer)

    async def _sandboxer_ready(self) -> Sandboxer:
        """The sandboxer that answers; one is started where none does."""
        found = self.sandboxer
        if found is None or not found.process.alive:
            found = self._spawn_sandboxer()
        await asyncio.wait(
            {found.ready, found.process.exited}, timeout=CONNECT_TIMEOUT_S, return_when=asyncio.FIRST_COMPLETED
        )
        if not (found.process.alive and found.ready.done()):
            raise SandboxerUnavailable(f"the sandboxer of {self.name} did not start")
        return found

    def _spawn_sandboxer(self) -> Sandboxer:
        before = self.sandboxer.journal if self.sandboxer is not None else None
        found = self.sandboxer = Sandboxer(
            self.name, self.settings.cluster, self.kernel, before.process if before is not None else None, self._dice
        )
        found.process = self.host.spawn("sandboxer", found.main)
        return found

    # -- faults -----------------------------------------------------------------------------------

    def crash(self, part: str = "agent") -> None:
        """Kill the agent, the sandboxer, or both; an agent comes back with `start`, a sandboxer with its agent."""
        assert part in PARTS, f"no part {part!r}"
        if part != "sandboxer":
            self.wanted = False
            if self.agent is not None and self.agent.alive:
                self.agent.crash()
        if part != "agent" and self.sandboxer is not None and self.sandboxer.process.alive:
            self.sandboxer.process.crash()

    def crash_sandboxer_at(self, step: str) -> bool:
        """Kill the sandboxer in the middle of the next such step (`syscalls.STEPS`); False if there is none."""
        if self.sandboxer is None or not self.sandboxer.process.alive or not self.sandboxer.ready.done():
            return False
        self.sandboxer.die_at(step)
        return True

    def stop_agent(self) -> None:
        """SIGTERM to the agent: it says goodbye, and leaves its workloads as the settings say."""
        self.wanted = False
        if self._stop is not None and self.agent is not None and self.agent.alive:
            self._stop.set()

    def pause(self) -> None:
        """Nothing on the machine runs, workloads included."""
        self.host.pause()

    def resume(self) -> None:
        """It goes on."""
        self.host.resume()

    def power_off(self) -> None:
        """Everything ends, unsynced bytes are lost; `start` switches it on again, with another boot id."""
        self.wanted = False
        if self._kernel is not None and self.host.powered:
            self._kernel.power_off()
            self._kernel = None
        self.host.power_off()
        self.agent = self.sandboxer = None

    def wipe(self) -> None:
        """The directory is gone: identity and journal.  Agent and sandboxer must not run; workloads may."""
        self.crash("both")
        for directory in (AGENT_DIRECTORY, DIRECTORY):
            self.host.disks.wipe(directory)

    # -- the inside -------------------------------------------------------------------------------

    def _boot(self) -> Kernel:
        world, host = self.host.world, self.host
        process = host.spawn("kernel", _forever)
        tracer = process.machine.tracer(self.name, "sim", roll_bytes=0, heartbeat_sample=0, meta={"process": "kernel"})
        context = copy_context()
        context.run(LIFE.set, process.life)
        dice = world.stream(f"kernel:{host.boot_id}")
        return Kernel(self.name, host.boot_id, _Timers(host, context), dice, tracer, self.traits, self.store.write)


class _Timers:
    """The machine's time, in its kernel's life; satisfies `kernel.Timers`."""

    def __init__(self, host: SimHost, context: Context) -> None:
        self._loop = host.world.loop
        self._context = context
        self.now_ns = host.clock.now_ns
        self.wall_ns = host.clock.wall_ns
        self._true_delay_ns = host.clock.true_delay_ns

    def after(self, delay_ns: int, callback: Callable[[], None]) -> None:
        """See `kernel.Timers`."""
        self._loop.at(self._loop.now + self._true_delay_ns(delay_ns), callback, context=self._context)


async def _forever(machine: ProcessHost) -> None:
    await asyncio.get_running_loop().create_future()


def _no_output(allocation: str, cursor: Cursor | None, lines_max: int, live: tuple[int, ...]) -> Chunk | None:
    """Simulated workloads write none."""
    return None
