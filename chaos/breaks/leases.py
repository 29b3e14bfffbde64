"""Deliberate bugs of leases: the leader's table and the node's deadline."""

from __future__ import annotations

import time

from agents.agent import Agent
from agents.sandboxer.fence import Lease
from agents.sandboxer.spec import STOP
from raft.protocols import Clock
from scheduler.lease_keeper import LeaseKeeper
from scheduler.leases import LeaseTable, Registered, _Entry
from scheduler.renewals import RenewCall, RenewReply
from scheduler.session import HeartbeatConfirmed

FAR_NS = 3_000 * 1_000_000_000
"""Below the hour that the sandboxer takes for a deadline at most."""

_confirmed = Agent.confirmed


def far_deadline_ns(sent_ns: int, lease_ns: int) -> int:
    """`no-fencing`: the deadline is so far away that nobody is fenced while anybody watches."""
    return sent_ns + max(lease_ns, FAR_NS)


def confirmed_now(self: Agent, message: HeartbeatConfirmed, sent_ns: int) -> None:
    """`deadline-from-receipt`: the lease is counted from when its confirmation came."""
    _confirmed(self, message, self.now_ns())


def found_without_grace(self: LeaseTable, known: Registered) -> None:
    """`no-grace-after-election`: a new leader gives nodes no time to find it."""
    self._entries[known.node] = _Entry(known, self._elected_ns, 0, self._elected_ns)


async def renew_without_round(self: LeaseKeeper, call: RenewCall) -> RenewReply:
    """`renewal-without-quorum-round`: the leader asks nobody whether it still leads."""
    table = self._reigning()
    now_ns = self._now_ns()
    noted = [table.receive(r.node, r.incarnation, r.number, now_ns) for r in call.renewals]
    grants = tuple(self._grant(table, r, was) for r, was in zip(call.renewals, noted, strict=True))
    self._tell_confirmed(call, grants, 0)
    return RenewReply(self._state.index, grants)


def may_run_without_looking(lease: Lease, on_disconnect: str, registration: int, now_ns: int) -> bool:
    """`late-start-past-deadline`: a start is checked against the registration, and not against the time."""
    return on_disconnect != STOP or registration == lease.registration


class _WallClock:
    """The wall clock, read as if it never jumped: set by the true one when it is first asked."""

    def __init__(self, clock: Clock) -> None:
        self._ahead_ns = time.time_ns() - clock.now_ns()

    def now_ns(self) -> int:
        return time.time_ns() - self._ahead_ns


_walls: dict[int, tuple[Clock, _WallClock]] = {}


def wall_ns(clock: Clock) -> int:
    """`lease-on-wall-clock`: renewals and deadlines are counted on a clock that people and servers set."""
    if id(clock) not in _walls:
        _walls[id(clock)] = (clock, _WallClock(clock))
    return _walls[id(clock)][1].now_ns()
