"""`no-fencing`: the lease's deadline is so far away that nobody is fenced while anybody watches."""

from __future__ import annotations

FAR_NS = 3_000 * 1_000_000_000
"""Below the hour that the sandboxer takes for a deadline at most."""


def deadline_ns(sent_ns: int, lease_ns: int) -> int:
    """In place of `agents.lease.deadline_ns`, which counts the lease from the renewal's send."""
    return sent_ns + max(lease_ns, FAR_NS)
