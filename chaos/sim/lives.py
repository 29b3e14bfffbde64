"""Who a callback belongs to: one life of one simulated process.

Owns: the context variable that tasks and callbacks inherit, and what dead and paused mean.
Must not know: the loop, the network, or what the process runs.

A crash marks the life dead.  From then on nothing that carries it runs: no callback, no timer, no `finally`.  What
could have run is kept in the graveyard, because dropping the last reference of a suspended coroutine would run its
`finally` after all.
"""

from __future__ import annotations

import time
from contextvars import ContextVar
from typing import Any, Final, Protocol

NS_PER_S: Final = 1_000_000_000


class LifeClock(Protocol):
    """What time is for a life."""

    ppm: int
    """How much faster than true time it runs, in millionths."""

    def now_ns(self) -> int:
        """Nanoseconds on the machine's clock that no step changes."""
        ...

    def wall_ns(self) -> int:
        """Unix time in nanoseconds, as the machine believes it."""
        ...

    def true_delay_ns(self, delay_ns: int) -> int:
        """True nanoseconds until `delay_ns` have passed on this clock, rounded up."""
        ...


class _RealClock:
    """The root's clock while no world runs."""

    ppm = 0

    def __init__(self) -> None:
        self.now_ns = time.monotonic_ns
        self.wall_ns = time.time_ns

    def true_delay_ns(self, delay_ns: int) -> int:
        return delay_ns


class Life:
    """One run of one process on one machine.

    `halted` is what the loop looks at before every step: the life is dead, or its machine is paused.
    """

    __slots__ = ("clock", "dead", "graveyard", "halted", "held", "host", "name", "sockets")

    def __init__(self, name: str, host: Any, clock: LifeClock) -> None:
        self.name = name
        self.host = host
        self.clock = clock
        self.dead = False
        self.halted = False
        self.graveyard: list[Any] = []
        self.held: list[Any] = []
        """What was due while the machine was paused, in order."""
        self.sockets: dict[Any, None] = {}
        """Its ends of connections and its listeners, which the machine closes when the life ends."""

    def __repr__(self) -> str:
        return f"<life {self.name}{' dead' if self.dead else ''}>"


ROOT: Final = Life("world", None, _RealClock())
"""The harness: never paused, never dead, on true time."""

LIFE: Final[ContextVar[Life]] = ContextVar("skerry_life", default=ROOT)
