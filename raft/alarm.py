"""One deadline on an injected timer, cheap to move.

Owns: not re-arming when it is not needed.  Must not know: event loops, or what the deadline is for.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from raft.protocols import Clock

_FAR_S = 3600.0


class Handle(Protocol):
    """A pending timer."""

    def cancel(self) -> None:
        """Do not ring."""
        ...


class Alarm:
    """Calls `ring` at or after the earliest deadline that was set.

    A deadline that moves away leaves the timer as it is: it rings early, and `ring` sets the next one.
    For a heartbeat that moves an election deadline 25 times a second that is one comparison.

    Args:
        call_later: starts a timer: seconds, function.
        ring: called with the alarm unset.
    """

    def __init__(
        self, clock: Clock, call_later: Callable[[float, Callable[[], None]], Handle], ring: Callable[[], None]
    ) -> None:
        self._clock = clock
        self._call_later = call_later
        self._ring = ring
        self._handle: Handle | None = None
        self.deadline_ns = 0

    def at(self, deadline_ns: int) -> None:
        """Ring no later than this deadline, as far as the timer allows."""
        if self._handle is not None:
            if self.deadline_ns <= deadline_ns:
                return
            self._handle.cancel()
        self.deadline_ns = deadline_ns
        delay_s = min(max(0.0, (deadline_ns - self._clock.now_ns()) / 1e9), _FAR_S)
        self._handle = self._call_later(delay_s, self._rings)

    def cancel(self) -> None:
        """Unset it."""
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None

    def _rings(self) -> None:
        self._handle = None
        self._ring()
