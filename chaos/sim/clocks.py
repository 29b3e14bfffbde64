"""The clocks of simulated machines.

Owns: how a machine's clocks differ from true time: offsets, rates, steps.
Must not know: who reads them.

A machine has one oscillator: its rate moves both clocks.  CLOCK_BOOTTIME runs on while the machine is paused, as a
suspended machine's does.  Arithmetic is in integers, so that every reading repeats.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from chaos.sim.loop import SimLoop

EPOCH_NS: Final = 1_800_000_000_000_000_000
"""True Unix time at the start of every world (January 2027)."""
MILLION: Final = 1_000_000


class TrueClock:
    """True time; satisfies `cluster.clock.WallClock`."""

    __slots__ = ("_loop", "ppm")

    def __init__(self, loop: SimLoop) -> None:
        self._loop = loop
        self.ppm = 0

    def now_ns(self) -> int:
        """Nanoseconds since the world began."""
        return self._loop.now

    def wall_ns(self) -> int:
        """Unix time, exactly."""
        return EPOCH_NS + self._loop.now

    def true_delay_ns(self, delay_ns: int) -> int:
        """The same."""
        return delay_ns


class SimClock:
    """One machine's clocks; satisfies `cluster.clock.WallClock`.

    Args:
        loop: keeps true time.
        boot_ns: reading of CLOCK_BOOTTIME now.
        wall_offset_ns: how far wall time is ahead of true time now.
        rate_ppm: how much faster than true time both run.
    """

    __slots__ = ("_anchor_ns", "_loop", "_reading_ns", "_seen_ns", "_wall_shift_ns", "_zero_ns", "ppm")

    def __init__(self, loop: SimLoop, *, boot_ns: int = 0, wall_offset_ns: int = 0, rate_ppm: int = 0) -> None:
        self._loop = loop
        self._anchor_ns = loop.now
        """True time of the last change of the rate."""
        self._zero_ns = boot_ns
        """Reading at the anchor."""
        self._wall_shift_ns = EPOCH_NS + loop.now + wall_offset_ns - boot_ns
        """Wall time minus CLOCK_BOOTTIME."""
        self.ppm = rate_ppm
        self._seen_ns, self._reading_ns = loop.now, boot_ns
        """The last reading and its true moment: a step asks several times at one moment."""

    def now_ns(self) -> int:
        """CLOCK_BOOTTIME."""
        now = self._loop.now
        if now != self._seen_ns:
            elapsed = now - self._anchor_ns
            self._reading_ns = self._zero_ns + elapsed + elapsed * self.ppm // MILLION
            self._seen_ns = now
        return self._reading_ns

    def wall_ns(self) -> int:
        """CLOCK_REALTIME."""
        return self.now_ns() + self._wall_shift_ns

    def true_delay_ns(self, delay_ns: int) -> int:
        """True nanoseconds until `delay_ns` have passed on this clock, rounded up."""
        if not self.ppm:
            return delay_ns
        return -(-delay_ns * MILLION // (MILLION + self.ppm))

    def set_rate(self, ppm: int) -> None:
        """Run at another rate from now on; no reading jumps.  Timers that are set keep their true moment."""
        assert ppm > -MILLION, "a clock never runs backwards"
        self._zero_ns, self._anchor_ns = self.now_ns(), self._loop.now
        self.ppm = ppm

    def step_wall(self, by_ns: int) -> None:
        """Let wall time jump."""
        self._wall_shift_ns += by_ns

    def reboot(self) -> None:
        """CLOCK_BOOTTIME begins at 0; wall time goes on (there is a battery)."""
        now_ns = self.now_ns()
        self._zero_ns, self._anchor_ns = 0, self._loop.now
        self._seen_ns, self._reading_ns = self._loop.now, 0
        self._wall_shift_ns += now_ns
