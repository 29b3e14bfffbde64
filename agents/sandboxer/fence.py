"""The node's lease: until when its `stop` workloads may run.

Owns: what a renewal changes, and how a lease is written down.  Must not know: who renews it, workloads.

The deadline is on CLOCK_BOOTTIME and counts from the *send* of a renewal that a quorum confirmed
(DESIGN.md §6).  A lease belongs to one *registration* of the node, the log index at which the cluster
took it in: a node that was declared lost registers anew, so a start that was decided before its loss
carries an older registration, however late it arrives, and is refused.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Final

from agents.sandboxer.spec import STOP

LEASE_NS_MAX: Final = 3_600 * 1_000_000_000
"""A deadline further away than this is no lease."""


class LeaseOver(OSError):
    """The lease ran out before a program was let through."""


@dataclass(frozen=True, slots=True)
class Lease:
    """A deadline, and the registration it was granted for; 0 = none was ever."""

    deadline_ns: int = 0
    registration: int = 0

    def lasts(self, now_ns: int) -> bool:
        """Whether it has not run out."""
        return now_ns < self.deadline_ns

    def allows(self, registration: int, now_ns: int) -> bool:
        """Whether a `stop` workload that was decided under `registration` may start now."""
        return registration == self.registration and self.lasts(now_ns)

    def renewed(self, deadline_ns: int, registration: int) -> Lease:
        """With a confirmation taken in: neither the deadline nor the registration ever goes back."""
        if registration < self.registration:
            return self
        return Lease(max(self.deadline_ns, deadline_ns), registration)


NO_LEASE: Final = Lease()
"""None was ever."""


def may_run(lease: Lease, on_disconnect: str, registration: int, now_ns: int) -> bool:
    """Whether a workload that was decided under `registration` may start: asked at the start, and last before exec."""
    return on_disconnect != STOP or lease.allows(registration, now_ns)


def encode(lease: Lease, boot_id: str) -> bytes:
    """For the node's cgroup."""
    return json.dumps({"boot": boot_id, "deadline_ns": lease.deadline_ns, "registration": lease.registration}).encode()


def decode(data: bytes | None, boot_id: str) -> Lease:
    """Inverse of `encode`; no lease for what is missing, damaged, or of another boot."""
    try:
        fields = json.loads(data or b"")
        if fields["boot"] != boot_id:
            return NO_LEASE
        return Lease(int(fields["deadline_ns"]), int(fields["registration"]))
    except (ValueError, KeyError, TypeError):
        return NO_LEASE
