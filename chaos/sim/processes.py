"""Processes of a simulated machine, and what its kernel needs of the machine.

Owns: their shapes.  Must not know: how processes come and go (`chaos.sim.kernel`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

from chaos.sim.programs import Program


class Emits(Protocol):
    """The part of a tracer that is used."""

    def emit(self, kind: str, /, **fields: Any) -> object:
        """Record one event."""
        ...

    def clocks(self) -> tuple[int, int]:
        """(Lamport, hybrid) clocks after everything emitted so far."""
        ...

    def observe(self, lc: int, hlc: int) -> None:
        """Merge the clocks of a received message."""
        ...


class Timers(Protocol):
    """The machine's time: a clock, and callbacks that power-off ends and a pause holds back."""

    def now_ns(self) -> int:
        """CLOCK_BOOTTIME."""
        ...

    def wall_ns(self) -> int:
        """Unix time, as the machine believes it."""
        ...

    def after(self, delay_ns: int, callback: Callable[[], None]) -> None:
        """Call back once, `delay_ns` of the machine's clock from now."""
        ...


class Traits:
    """What this kernel is like.

    `tells_exits`: PIDFD_INFO_EXIT (Linux ≥ 6.15).  `oom_groups`: it kills a group whole (cgroup v2).
    """

    __slots__ = ("oom_groups", "tells_exits")

    def __init__(self, *, tells_exits: bool = True, oom_groups: bool = False) -> None:
        self.tells_exits = tells_exits
        self.oom_groups = oom_groups


@dataclass(slots=True, eq=False)
class Process:
    """One process.  `parent` is what waits for it, None = the machine's init, which reaps within milliseconds."""

    pid: int
    ticks: int
    name: str
    parent: object | None
    init: Process | None = None
    """The init of its PID namespace."""
    group: str = ""
    dies_with: object | None = None
    """It is killed when this ends."""
    workload: Workload | None = None
    foreign: bool = False
    """It has nothing to do with the cluster; its number may be one that a workload had."""
    alive: bool = True
    reaped: bool = False
    status: int = 0
    """Its wait status, once it ended."""
    watchers: list[Callable[[], None]] = field(default_factory=list)
    """Called when it ends."""


@dataclass(slots=True, eq=False)
class Workload:
    """One attempt's processes, and who it is to the world outside."""

    allocation: str
    epoch: int
    token: str
    program: Program
    main: Process | None = None
    running: bool = False
    left: int = 0
    """Processes of the program that live: the main one and what it forked."""
    memory_gone: bool = False
