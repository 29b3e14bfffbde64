"""The node's lease as the agent counts it.

Owns: the deadline's arithmetic, the pace of renewals, which of them the trace is told of.
Must not know: sessions, or what ends when a lease runs out (the sandboxer holds the deadline).

The deadline counts from the *send* of the renewal that was confirmed (DESIGN.md §6): the leader counts
from its receipt, which is later, so it never gives up a node that still believes in its lease.
"""

from __future__ import annotations

from typing import Final

from raft.protocols import Clock

MS_NS: Final = 1_000_000
RENEWALS_PER_LEASE: Final = 8
PATIENCE_PARTS: Final = 3
CONFIRM_TIMEOUT_S: Final = 3.0
"""Patience with a replica that does not say how long a lease is."""


def now_ns(clock: Clock) -> int:
    """The clock that leases count on: it goes on while the machine sleeps, as the leader's does."""
    return clock.now_ns()


def deadline_ns(sent_ns: int, lease_ns: int) -> int:
    """Until when `stop` workloads may run, after the renewal that was sent at `sent_ns` was confirmed."""
    return sent_ns + lease_ns


def pace(lease_ms: int, heartbeat_s: float, confirm_timeout_s: float) -> tuple[float, float]:
    """(seconds between renewals, patience without a confirmation) for a lease of `lease_ms`, 0 = not known."""
    if not lease_ms:
        return heartbeat_s, confirm_timeout_s or CONFIRM_TIMEOUT_S
    lease_s = lease_ms / 1000
    return min(heartbeat_s, lease_s / RENEWALS_PER_LEASE), confirm_timeout_s or lease_s / PATIENCE_PARTS


class LeaseLog:
    """Which confirmations the trace gets: each grant, and one renewal in `sample` (0 = none)."""

    def __init__(self, sample: int) -> None:
        self.sample = sample
        self._deadline_ns = 0
        self._registration = 0
        self._renewed = 0

    def confirmed(self, at_ns: int, deadline_ns: int, registration: int) -> str:
        """``grant`` when there was no lease, ``renew`` for one of the sample, else ""."""
        fresh = at_ns >= self._deadline_ns or registration != self._registration
        self._deadline_ns, self._registration = max(self._deadline_ns, deadline_ns), registration
        if fresh:
            return "grant"
        self._renewed += 1
        return "renew" if self.sample > 0 and self._renewed % self.sample == 0 else ""
