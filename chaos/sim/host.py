"""Simulated machines and the processes on them.

Owns: spawning, killing, pausing, losing power; what a process gets from its machine (`cluster.host.Host`).
Must not know: what the processes are.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextvars import copy_context
from typing import TYPE_CHECKING, Any

from chaos.disk import ForgettingDisk
from chaos.sim.clocks import SimClock, TrueClock
from chaos.sim.direct import DirectNetwork
from chaos.sim.disks import Disks
from chaos.sim.lives import LIFE, Life
from chaos.sim.net import EPHEMERAL_PORT, Listener
from chaos.sim.recording import LifeSink
from chaos.sim.threads import SimThreads, Storage
from cluster.aiohttp_network import AiohttpNetwork
from cluster.clock import WallClock
from cluster.dice import SeededDice
from cluster.network import Network
from cluster.trace import Record, Tracer, new_incarnation

if TYPE_CHECKING:
    from chaos.sim.world import World


class SimHost:
    """One machine.

    Args:
        world: what it is part of.
        name: by which others find it.
        clock: its clocks.
        storage: how long its disk takes.
        torn: a power loss keeps a random part of unsynced writes instead of none.
    """

    def __init__(self, world: World, name: str, *, clock: SimClock, storage: Storage, torn: bool) -> None:
        self.world = world
        self.name = name
        self.clock = clock
        self.storage = storage
        self.powered = True
        self.paused = False
        self.boots = 1
        self.lives: list[Life] = []
        """The living ones."""
        self.listeners: dict[int, Listener] = {}
        self.stalled: list[Any] = []
        """Ends of connections at which something arrived while the machine was paused, in order."""
        self.disks = Disks(lambda directory: world.stream(f"disk:{name}:{directory}"), torn=torn)
        self.address = world.network.add_host(self)
        self._port = EPHEMERAL_PORT
        self._spawned = 0

    @property
    def boot_id(self) -> str:
        """Names the time since the machine was last switched on."""
        return f"{self.name}-boot-{self.boots}"

    def spawn(self, name: str, main: Callable[[ProcessHost], Awaitable[Any]]) -> Process:
        """Start a process; `main` gets the machine as the process sees it."""
        assert self.powered, f"{self.name} has no power"
        self._spawned += 1
        life = Life(f"{self.name}/{name}#{self._spawned}", self, self.clock)
        life.halted = self.paused
        self.lives.append(life)
        return Process(self, life, main)

    def end(self, life: Life) -> None:
        """A process is no more: its machine closes what it held."""
        if life.dead:
            return
        life.dead = life.halted = True
        self.lives.remove(life)
        life.graveyard.extend(life.held)
        life.held.clear()
        for each in tuple(life.sockets):
            each.died()
        self.disks.release(life)

    def power_off(self) -> None:
        """All processes end without a word; what no disk had synced is lost."""
        if not self.powered:
            return
        self.powered = False
        self.resume_quietly()
        for life in tuple(self.lives):
            life.dead = life.halted = True
            life.graveyard.extend(life.held)
            life.held.clear()
            for each in tuple(life.sockets):
                each.went_dark()
        self.lives.clear()
        self.listeners.clear()
        self.storage.forget()
        self.disks.lose_power()

    def power_on(self) -> None:
        """The machine is up again, with nothing running."""
        if not self.powered:
            self.powered = True
            self.boots += 1
            self.clock.reboot()

    def pause(self) -> None:
        """Nothing on the machine runs; its clocks and its network card do."""
        self.paused = True
        for life in self.lives:
            life.halted = True

    def resume(self) -> None:
        """Go on with what was due, in its order; then with what arrived."""
        if not self.paused:
            return
        self.paused = False
        loop = self.world.loop
        for life in self.lives:
            life.halted = False
            loop.release(life)
        stalled, self.stalled = self.stalled, []
        for end in stalled:
            loop.call_soon(end.resumed, context=end.context)

    def stop(self, life: Life) -> None:
        """SIGSTOP to one process; the rest of the machine runs.  A pause of the whole machine ends it, too."""
        life.halted = True

    def go_on(self, life: Life) -> None:
        """SIGCONT."""
        if life.dead or self.paused or not life.halted:
            return
        life.halted = False
        self.world.loop.release(life)
        mine = [end for end in self.stalled if end.life is life]
        self.stalled = [end for end in self.stalled if end.life is not life]
        for end in mine:
            self.world.loop.call_soon(end.resumed, context=end.context)

    def resume_quietly(self) -> None:
        """No longer paused, and nothing goes on."""
        self.paused = False
        self.stalled.clear()

    def vanish(self) -> None:
        """The world ends."""
        for life in self.lives:
            life.dead = life.halted = True

    def power_off_at(self, directory: str, operations: int) -> None:
        """Lose power in the middle of the n-th operation on a directory from now."""
        self.disks.lose_power_at(directory, operations, self.power_off)

    def free_port(self) -> int:
        """A port that nobody listens on."""
        while True:
            self._port = EPHEMERAL_PORT + (self._port - EPHEMERAL_PORT + 1) % 28_000
            if self._port not in self.listeners:
                return self._port


class MortalSink:
    """A life's records go to the recording until it is dead; satisfies `cluster.trace.Sink`."""

    __slots__ = ("_keep", "_life", "lost")

    def __init__(self, life: Life, kept: LifeSink) -> None:
        self._life = life
        self._keep = kept.records.append
        self.lost = 0

    def put(self, record: Record) -> bool:
        """Keep one; the dead say nothing, even in the step that killed them."""
        if self._life.dead:
            return False
        self._keep(record)
        return True

    def flush(self, timeout_s: float) -> bool:
        """It is kept already."""
        return True

    def close(self, timeout_s: float) -> None:
        """It is kept already."""


class ProcessHost:
    """The machine as one process sees it; satisfies `cluster.host.Host`."""

    def __init__(self, host: SimHost, life: Life) -> None:
        self.machine = host
        self.life = life
        self.clock: WallClock = host.clock
        self.dice = SeededDice(f"{host.world.seed}/life/{life.name}")
        self.threads = SimThreads(host.storage)
        self.network: Network = (
            DirectNetwork(host.world.network) if host.world.transport == "direct" else AiohttpNetwork()
        )

    def disk(self, directory: str) -> ForgettingDisk:
        """A directory of files, made if it is missing."""
        return self.machine.disks.open(directory, self.life)

    def tracer(
        self, node: str, directory: str, *, roll_bytes: int, heartbeat_sample: int, meta: dict[str, Any]
    ) -> Tracer:
        """The trace of a process, in the world's memory, on true time."""
        world = self.machine.world
        incarnation = new_incarnation(self.dice)
        kept = world.recording.sink(node, incarnation, world.clock.wall_ns(), meta)
        sink = MortalSink(self.life, kept)
        return Tracer(node, sink, TrueClock(world.loop), incarnation=incarnation, heartbeat_sample=heartbeat_sample)

    def settle(self) -> None:
        """The garbage collector is off while a world runs."""


class Process:
    """One run of a program on a machine.

    `exited` is done when it has ended: with what `main` returned or raised, or with None after a crash.
    """

    def __init__(self, host: SimHost, life: Life, main: Callable[[ProcessHost], Awaitable[Any]]) -> None:
        self.host = host
        self.life = life
        self.exited: asyncio.Future[Any] = host.world.loop.create_future()
        self._main = main
        self._context = context = copy_context()
        context.run(LIFE.set, life)
        self.machine = ProcessHost(host, life)
        self.task = host.world.loop.create_task(self._run(), name=life.name, context=context)

    @property
    def alive(self) -> bool:
        """Whether it runs."""
        return not self.life.dead

    def crash(self) -> None:
        """Kill it: nothing of it runs any more, not even a `finally`."""
        self.host.end(self.life)
        self._leave()

    def stop(self) -> None:
        """SIGSTOP."""
        self.host.stop(self.life)

    def go_on(self) -> None:
        """SIGCONT."""
        self.host.go_on(self.life)

    def post(self, callback: Callable[..., object], *args: Any) -> None:
        """Have the process call something, as a signal would; nothing happens if it is dead."""
        self.host.world.loop.call_soon(callback, *args, context=self._context.copy())

    async def _run(self) -> None:
        try:
            result = await self._main(self.machine)
        except asyncio.CancelledError:
            self._finish(None, None)
        except SystemExit as leave:
            self._finish(leave.code, None)
        except Exception as error:
            self._finish(None, error)
        else:
            self._finish(result, None)

    def _finish(self, result: Any, error: Exception | None) -> None:
        """`main` ended; what else the process was doing ends with it."""
        self.host.end(self.life)
        if self.exited.done():
            return
        if error is None:
            self.exited.set_result(result)
        else:
            self.exited.set_exception(error)
            self.exited.exception()  # somebody may ask for it, nobody has to

    def _leave(self) -> None:
        if not self.exited.done():
            self.exited.set_result(None)
