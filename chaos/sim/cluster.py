"""A simulated cluster: production replicas and agents on simulated machines.

Owns: which machines there are, what runs on each, starting it again, and what breaking a machine means.
Must not know: when anything is broken (`swarm.injector`, `scenarios`), or what must hold.

A process that ends by itself is noted.  Only one whose disk was made to fail may do so.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from random import Random
from typing import Any, Final

import structlog

from chaos.disk import ForgettingDisk
from chaos.sim.effects import EffectStore
from chaos.sim.host import Process, ProcessHost, SimHost
from chaos.sim.journal import DIRECTORY as JOURNAL
from chaos.sim.links import MS, US, Impairment
from chaos.sim.node import SimNode
from chaos.sim.processes import Traits
from chaos.sim.swarm.configs import DATA, agent_settings, replica_config
from chaos.sim.swarm.oracle import Key, ReplicaView
from chaos.sim.swarm.profile import MachineShape, Profile
from chaos.sim.syscalls import STEPS
from chaos.sim.world import World
from cluster.trace import Tracer
from raft.errors import DiskFull, StoreError
from scheduler.assembly import Replica

RESTART_S: Final = 1.0
SEGMENT_SUFFIX: Final = ".seg"
ROT_BYTES_MIN: Final = 4_096
"""A log with fewer bytes in it may have its only frame hit, which would pass for a torn one."""


class Ended:
    """A process that ended by itself."""

    def __init__(self, machine: str, error: BaseException | None) -> None:
        self.machine = machine
        self.error = error

    def __str__(self) -> str:
        leaves = (
            ", ".join(f"{type(leaf).__name__}: {leaf}" for leaf in _leaves(self.error)) if self.error else "no error"
        )
        return f"{self.machine} ended by itself: {leaves}"


class SimCluster:
    """The machines of one profile.

    Args:
        world: where they stand.
        profile: what they are like.
        trace: of the world outside, which workloads write to.

    Attributes:
        ended: processes that ended by themselves for no reason that was given them.
    """

    def __init__(self, world: World, profile: Profile, trace: Tracer) -> None:
        self.world = world
        self.profile = profile
        self.replicas = profile.replica_names
        self.agents = profile.agent_names
        self.ended: list[Ended] = []
        self._live: dict[str, Replica] = {}
        self._processes: dict[str, Process] = {}
        self._disk_failed: set[str] = set()
        self._told: dict[str, bool] = {}
        """Replicas that were told to end: whether they are to be started again after that."""
        self._rates = {shape.name: shape.clock.rate_ppm for shape in (*profile.replicas, *profile.agents)}
        self._dice = world.stream("cluster")
        self.store = EffectStore(trace)
        for shape in profile.replicas:
            self._add(shape)
        self.nodes = {shape.name: self._add_node(shape) for shape in profile.agents}

    def _add_node(self, shape: MachineShape) -> SimNode:
        traits = Traits(tells_exits=self._dice.random() < 0.5, oom_groups=self._dice.random() < 0.5)
        return SimNode(self._add(shape), agent_settings(self.profile, shape.name), self.store, traits=traits)

    def _add(self, shape: MachineShape) -> SimHost:
        return self.world.host(
            shape.name,
            wall_offset_ns=shape.clock.offset_ms * MS,
            rate_ppm=shape.clock.rate_ppm,
            sync_ns=(shape.sync_us.least * US, shape.sync_us.most * US),
            torn=shape.torn,
        )

    def start(self) -> None:
        """Boot every machine."""
        for name in (*self.replicas, *self.agents):
            self.boot(name)

    # -- looking in ---------------------------------------------------------------------------

    def leader(self) -> str | None:
        """Who leads the highest term among the replicas that run."""
        leading = [(one.driver.core.term, name) for name, one in self._running() if one.driver.leader == name]
        return max(leading)[1] if leading else None

    def views(self, names: Iterable[str]) -> list[ReplicaView]:
        """Those of these replicas that run."""
        wanted = set(names)
        return [_View(name, replica) for name, replica in self._running() if name in wanted]

    def processes(self) -> Mapping[str, set[Key]]:
        """What runs on each node, by the simulated kernel itself."""
        return {name: set(node.running()) for name, node in self.nodes.items()}

    def process(self, name: str) -> Process | None:
        """A machine's replica or agent, if there ever was one."""
        return self.nodes[name].agent if name in self.nodes else self._processes.get(name)

    def wall_ms(self) -> int:
        """True wall time."""
        return self.world.clock.wall_ns() // 1_000_000

    def _running(self) -> list[tuple[str, Replica]]:
        return [(name, self._live[name]) for name in self.replicas if name in self._live and self._alive(name)]

    def _alive(self, name: str) -> bool:
        process = self._processes.get(name)
        return process is not None and process.alive

    # -- processes ----------------------------------------------------------------------------

    def boot(self, name: str) -> None:
        """Power on, and start what should run there and does not."""
        if name in self.nodes:
            self.nodes[name].start()
            return
        host = self._host(name)
        host.power_on()
        if name in self._told and self._alive(name):
            self._told[name] = True
        elif not self._alive(name):
            self._told.pop(name, None)
            self._live.pop(name, None)
            process = self._processes[name] = host.spawn("replica", self._replica_main(name))
            process.exited.add_done_callback(lambda done: self._exited(name, done))

    def crash(self, name: str, process: str = "") -> None:
        """SIGKILL a machine's replica or agent, or its process of that name; harmless if it does not run."""
        if name in self.nodes:
            self.nodes[name].crash(process or "agent")
        elif self._alive(name):
            self._processes[name].crash()

    def tear(self, name: str, step: int) -> None:
        """Kill a node's sandboxer in the middle of the next such step; harmless if it does not run."""
        self.nodes[name].crash_sandboxer_at(STEPS[step])

    def stop(self, name: str) -> None:
        """Tell a replica to end; it takes its time."""
        if self._alive(name) and name in self._live:
            self._told.setdefault(name, False)
            self._live[name].stop("told to end")

    def stop_agent(self, name: str) -> None:
        """Tell a node's agent to end."""
        self.nodes[name].stop_agent()

    def power_off(self, name: str) -> None:
        """Crash everything on a machine and lose what was not synced."""
        if name in self.nodes:
            self.nodes[name].power_off()
        else:
            self._host(name).power_off()

    def pause(self, name: str) -> None:
        """Let a machine stand still."""
        self._host(name).pause()

    def resume(self, name: str) -> None:
        """Let it go on."""
        self._host(name).resume()

    def _replica_main(self, name: str) -> Callable[[ProcessHost], Any]:
        async def main(machine: ProcessHost) -> None:
            log = structlog.get_logger("replica").bind(node=name)
            replica = Replica(replica_config(self.profile, name), log, host=machine)
            self._live[name] = replica
            await replica.run()

        return main

    def _exited(self, name: str, done: asyncio.Future[Any]) -> None:
        """It ended.  A service manager starts again what ended by itself; what was killed waits for `boot`."""
        error = done.exception()
        if name in self._told:
            if self._told.pop(name) and self._host(name).powered:
                self.boot(name)
            return
        if error is None:
            return
        if not (name in self._disk_failed and _of_disk(error)):
            self.ended.append(Ended(name, error))
        elif self._host(name).powered:
            self.world.loop.call_later(RESTART_S, self._again, name)

    def _again(self, name: str) -> None:
        if self._host(name).powered and not self._alive(name):
            self.boot(name)

    # -- links --------------------------------------------------------------------------------

    def impair(self, name: str, pairs: Sequence[tuple[str, str]], impairment: Impairment) -> None:
        """Put an impairment on links, under a name."""
        self.world.network.impair(name, pairs, impairment)

    def heal(self, name: str) -> None:
        """Take it off."""
        self.world.network.heal(name)

    def reset(self, pairs: Sequence[tuple[str, str]]) -> None:
        """Break the connections that the first of each pair dialled to the second."""
        for source, target in pairs:
            self.world.network.reset(source, target)

    # -- disks --------------------------------------------------------------------------------

    def wipe(self, name: str) -> None:
        """Empty a machine's disk; a replica's must be off, a node's agent and sandboxer are killed."""
        if name in self.nodes:
            self.nodes[name].wipe()
            return
        self._host(name).disks.wipe(DATA)

    def rot(self, name: str) -> bool:
        """Change a synced byte of a machine's log; it must be off.  False if there is too little in it."""
        disks = self._host(name).disks
        return DATA in disks.names() and rot_log(disks.handle(DATA), self._dice)

    def disk_fault(self, name: str, kind: str, amount: int) -> None:
        """Put ``slow-disk`` (ms), ``hung-disk``, ``full-disk`` or ``failing-disk`` into force."""
        host = self._host(name)
        match kind:
            case "slow-disk":
                host.storage.extra_ns = amount * MS
            case "hung-disk":
                host.storage.hang()
            case "full-disk":
                self._disk_failed.add(name)
                host.disks.fill()
            case "failing-journal" if JOURNAL in host.disks.names():
                host.disks.fail(JOURNAL, "write" if self._dice.random() < 0.5 else "sync")
            case "failing-disk" if DATA in host.disks.names():
                self._disk_failed.add(name)
                host.disks.fail(DATA, "write" if self._dice.random() < 0.5 else "sync")

    def disk_heal(self, name: str, kind: str) -> None:
        """End it."""
        host = self._host(name)
        match kind:
            case "slow-disk":
                host.storage.extra_ns = 0
            case "hung-disk":
                host.storage.unhang()
            case "full-disk":
                host.disks.free()

    # -- clocks -------------------------------------------------------------------------------

    def step_clock(self, name: str, by_ms: int) -> None:
        """Let wall time jump."""
        self._host(name).clock.step_wall(by_ms * MS)

    def drift_clock(self, name: str, ppm: int | None) -> None:
        """Let all clocks of a machine run at another rate; None = its usual one."""
        self._host(name).clock.set_rate(self._rates[name] if ppm is None else ppm)

    def _host(self, name: str) -> SimHost:
        return self.world.hosts[name]


class _View:
    """One running replica; satisfies `swarm.oracle.ReplicaView`."""

    def __init__(self, name: str, replica: Replica) -> None:
        self.name = name
        self.leader = replica.driver.leader
        self.term = replica.driver.core.term
        self.applied_index = replica.driver.applied_index
        self.state = replica.state
        self.sessions = tuple(replica.sessions.usage())
        self._replica = replica

    @property
    def digest(self) -> str:
        """Of the state as it is."""
        return self.state.freeze().digest()


def rot_log(disk: ForgettingDisk, dice: Random) -> bool:
    """Flip a bit of a synced byte in the first quarter of the oldest log segment.

    Far from the last frame: a last frame that is damaged is taken for torn, by rule.
    """
    for name in disk.stored():
        if not name.endswith(SEGMENT_SUFFIX):
            continue
        filled = len(disk.durable(name).rstrip(b"\0"))
        if filled >= ROT_BYTES_MIN:
            disk.rot(name, dice.randrange(filled // 4), 1 << dice.randrange(8))
            return True
    return False


def _of_disk(error: BaseException) -> bool:
    """Whether a process ended because its disk did."""
    return all(isinstance(leaf, OSError | StoreError | DiskFull) for leaf in _leaves(error))


def _leaves(error: BaseException | None) -> list[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        return [leaf for each in error.exceptions for leaf in _leaves(each)]
    return [] if error is None else [error]
