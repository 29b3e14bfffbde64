"""What a process gets from the machine it runs on.

Owns: the seam between a whole process and its machine, and the real machine.
Must not know: which kind of process asks.

`scheduler.assembly.Replica` and `agents.agent.Agent` take one; nothing below them reads a clock, throws dice, opens
a file or starts a thread by itself.  The simulator gives them another (`chaos.sim`).
"""

from __future__ import annotations

import gc
from pathlib import Path
from typing import Any, Protocol

from cluster.aiohttp_network import AiohttpNetwork
from cluster.clock import SystemClock, WallClock
from cluster.dice import SystemDice
from cluster.network import Network
from cluster.trace import Tracer, new_incarnation
from cluster.trace_writer import file_tracer
from raft.disk import RealDisk
from raft.protocols import Dice, Disk, Threads
from raft.threads import SystemThreads

GC_FIRST_GENERATION = 50_000


class Host(Protocol):
    """One machine, as one process on it sees it."""

    @property
    def clock(self) -> WallClock:
        """The machine's clocks."""
        ...

    @property
    def dice(self) -> Dice:
        """Chance."""
        ...

    @property
    def threads(self) -> Threads:
        """Where work goes that may block."""
        ...

    @property
    def network(self) -> Network:
        """How it reaches others and is reached."""
        ...

    def disk(self, directory: str) -> Disk:
        """A directory of files, made if it is missing; raises StoreError."""
        ...

    def tracer(
        self, node: str, directory: str, *, roll_bytes: int, heartbeat_sample: int, meta: dict[str, Any]
    ) -> Tracer:
        """The trace of a process named `node`, of a new incarnation.

        Args:
            node: id of the process in the trace.
            directory: as configured; "" turns the trace off.
            roll_bytes: a file this large is followed by the next one.
            heartbeat_sample: links trace one in this many heartbeats.
            meta: what the trace opens with.
        """
        ...

    def settle(self) -> None:
        """Everything that stays until the process ends has been made."""
        ...


class SystemHost:
    """This machine; satisfies `Host`."""

    def __init__(self) -> None:
        self.clock: WallClock = SystemClock()
        self.dice: Dice = SystemDice()
        self.threads: Threads = SystemThreads()
        self.network: Network = AiohttpNetwork()

    def disk(self, directory: str) -> RealDisk:
        """A directory of the file system."""
        return RealDisk(Path(directory))

    def tracer(
        self, node: str, directory: str, *, roll_bytes: int, heartbeat_sample: int, meta: dict[str, Any]
    ) -> Tracer:
        """A trace in files."""
        return file_tracer(
            node,
            Path(directory) if directory else None,
            self.clock,
            incarnation=new_incarnation(self.dice),
            roll_bytes=roll_bytes,
            heartbeat_sample=heartbeat_sample,
            meta=meta,
        )

    def settle(self) -> None:
        """Keep the garbage collector from walking, again and again, what was made at the start."""
        gc.collect()
        gc.freeze()
        gc.set_threshold(GC_FIRST_GENERATION, 20, 50)
