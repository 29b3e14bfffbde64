"""The clocks of a real machine.

Owns: reading time.  Must not know: what anybody does with it.  Deciding code gets nanoseconds
as data; only shells hold a clock.
"""

from __future__ import annotations

import time
from typing import Protocol


class WallClock(Protocol):
    """What the trace needs: both readings, so that a simulated clock can stand in."""

    def now_ns(self) -> int:
        """Nanoseconds on a clock that counts suspended time too."""
        ...

    def wall_ns(self) -> int:
        """Unix time in nanoseconds; may jump."""
        ...


class SystemClock:
    """CLOCK_BOOTTIME for deadlines and CLOCK_REALTIME for people; satisfies `raft.protocols.Clock`.

    CLOCK_BOOTTIME goes on while the machine is suspended, which CLOCK_MONOTONIC does not: a
    lease or an election timeout must not stand still while the rest of the cluster goes on.
    """

    __slots__ = ()

    def now_ns(self) -> int:
        """Nanoseconds since boot, suspended time included."""
        return time.clock_gettime_ns(time.CLOCK_BOOTTIME)

    def wall_ns(self) -> int:
        """Unix time in nanoseconds.  For people and the trace, never for safety."""
        return time.time_ns()
