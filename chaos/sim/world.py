"""A deterministic world: one loop, one network, machines; everything from one seed.

Owns: making the parts, the streams of chance, being in force, and leaving nothing behind.
Must not know: what runs in it.

    with World(seed=7, policy="random") as world:
        host = world.host("n1")
        host.spawn("replica", main)
        world.run(harness())
"""

from __future__ import annotations

import asyncio
import gc
import logging
import sys
import warnings
from collections.abc import Coroutine
from random import Random
from typing import Any, Final, Literal, TypeVar

from chaos.sim.clocks import SimClock, TrueClock
from chaos.sim.handles import NUMBERS
from chaos.sim.host import SimHost
from chaos.sim.lives import NS_PER_S, ROOT
from chaos.sim.logs import SILENT, Logs
from chaos.sim.net import LATENCY_NS, Network
from chaos.sim.patches import Patches
from chaos.sim.ready import Policy
from chaos.sim.recording import Recording
from chaos.sim.sockets import NetLoop
from chaos.sim.threads import SYNC_NS, Storage

T = TypeVar("T")
Transport = Literal["direct", "http"]
BOOT_NS_MAX: Final = 100 * NS_PER_S


class World:
    """One simulated world; only one at a time in a process.

    Args:
        seed: decides everything that happens by chance.
        policy: the order of what is ready to run.
        transport: what processes get as their network: aiohttp over simulated streams, or messages without HTTP.
        latency_ns: (least, most) one way between machines.
        loss: share of segments lost on every link.
        recording: takes the traces.
        log_level: what of processes' logs is kept in `logs`: debug, info, warning, error or silent.
    """

    def __init__(
        self,
        seed: int | str,
        *,
        policy: Policy = "fifo",
        transport: Transport = "direct",
        latency_ns: tuple[int, int] = LATENCY_NS,
        loss: float = 0.0,
        recording: Recording | None = None,
        log_level: str = SILENT,
    ) -> None:
        self.seed = seed
        self.transport = transport
        self.recording = recording or Recording({"seed": seed, "backend": "simulator"})
        """The trace of everything that runs in it."""
        NUMBERS.restart()
        self.loop = NetLoop(policy, self.stream("sched"))
        self.clock = TrueClock(self.loop)
        self.network = self.loop.network = Network(self.loop, self.stream("net"), latency_ns=latency_ns, loss=loss)
        self.logs = Logs(log_level, lambda: self.loop.now, self.loop.call_exception_handler)
        self.hosts: dict[str, SimHost] = {}
        self._clocks = self.stream("clock")
        self._patches = Patches(self.stream("global"))
        self._open = False
        self._collects = False

    def stream(self, name: str) -> Random:
        """The seed's stream of chance of that name."""
        return Random(f"{self.seed}:{name}")  # noqa: S311  repeatable on purpose

    # -- being in force -----------------------------------------------------------------------

    def __enter__(self) -> World:
        assert ROOT.clock.__class__ is not TrueClock, "two worlds at once"
        self._open = True
        self._collects = gc.isenabled()
        gc.freeze()  # only what the world makes is looked at in its end
        gc.disable()  # a collection would run finalisers at moments that no seed decides
        self._root_clock, ROOT.clock = ROOT.clock, self.clock
        self._patches.apply()
        self.logs.apply()
        asyncio.set_event_loop(self.loop)
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """End the world: nothing of it runs any more, its memory is free, and what it replaced is back."""
        if not self._open:
            self.loop.close()
            return
        self._open = False
        try:
            self._bury()
        finally:
            self.logs.undo()
            self._patches.undo()
            ROOT.clock = self._root_clock
            asyncio.set_event_loop(None)
            gc.unfreeze()
            if self._collects:
                gc.enable()

    def _bury(self) -> None:
        """Drop everything.  Coroutines that never ended have their `finally` run by that, to no effect and unheard.

        (Python offers no way to drop a suspended coroutine without it.)
        """
        for host in self.hosts.values():
            host.vanish()
        hook, sys.unraisablehook = sys.unraisablehook, _unheard
        disabled = logging.root.manager.disable
        logging.disable()
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                self.loop.bury()
                self.hosts.clear()
                self.network.forget()
                gc.collect()
        finally:
            sys.unraisablehook = hook
            logging.disable(disabled)

    # -- what it is made of -------------------------------------------------------------------

    def host(
        self,
        name: str,
        *,
        wall_offset_ns: int = 0,
        rate_ppm: int = 0,
        sync_ns: tuple[int, int] = SYNC_NS,
        torn: bool = False,
    ) -> SimHost:
        """Add a machine."""
        boot_ns = self._clocks.randrange(BOOT_NS_MAX)
        clock = SimClock(self.loop, boot_ns=boot_ns, wall_offset_ns=wall_offset_ns, rate_ppm=rate_ppm)
        storage = Storage(self.loop, self.stream(f"disk:{name}"), sync_ns)
        host = self.hosts[name] = SimHost(self, name, clock=clock, storage=storage, torn=torn)
        return host

    # -- running ------------------------------------------------------------------------------

    @property
    def now_ns(self) -> int:
        """True time since the beginning."""
        return self.loop.now

    def run(self, main: Coroutine[Any, Any, T]) -> T:
        """Run the harness to its end.

        Raises:
            Deadlock, Livelock: nothing can or nothing does go on.
        """
        return self.loop.run_until_complete(main)

    def run_for(self, seconds: float) -> None:
        """Let so much true time pass."""
        self.run(self.loop.sleep_until(self.loop.now + int(seconds * NS_PER_S)))


def _unheard(*anything: Any) -> None:
    """What the dead say."""
