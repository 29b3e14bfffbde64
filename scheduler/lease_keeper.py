"""Granting leases and declaring nodes lost, on the leader.

Owns: when the table of leases is asked, what is proposed, and one reign's end of it all.
Must not know: the arithmetic (`scheduler.leases`), sessions, or what a loss means (`scheduler.state.losses`).

A table belongs to one term: a renewal or a verdict of another term's table is worth nothing, since
another leader may have granted leases in between.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any, Protocol

from cluster.trace import lease_sample
from raft.errors import NotLeader, SkerryError
from scheduler.commands import Command, Loss, NodeSettled, NodesLost, encode
from scheduler.leases import MS_NS, LeaseTable, Overdue, Registered, Rules
from scheduler.proposals import Consensus
from scheduler.renewals import GRANTED, WITHHELD, Grant, Renewal, RenewCall, RenewReply
from scheduler.session_wire import Trace
from scheduler.state import State
from scheduler.state.nodes import Registration
from scheduler.state.results import LossResult

PROPOSE_S = 5.0
RETRY_S = 0.1
IDLE_NS = 5_000 * MS_NS
LOSSES_MAX = 64
"""Nodes in one command."""
TOLD_MAX = 64
"""Renewals named in one trace event."""


class Log(Protocol):
    """The part of a logger that is used."""

    def warning(self, event: str, **fields: Any) -> Any:
        """Say that something is odd."""
        ...


class LeaseKeeper:
    """The leases, whenever this replica leads.

    Args:
        node: this replica's id.
        consensus: its driver.
        term: the driver's present term.
        state: the replicated state, read-only here.
        rules: the terms of leases; the same on all replicas.
        now_ns: nanoseconds on CLOCK_BOOTTIME.
        wall_ms: Unix milliseconds, for people.
    """

    def __init__(
        self,
        *,
        node: str,
        consensus: Consensus,
        term: Callable[[], int],
        state: State,
        rules: Rules,
        trace: Trace,
        log: Log,
        now_ns: Callable[[], int],
        wall_ms: Callable[[], int],
    ) -> None:
        self._node = node
        self._consensus = consensus
        self._current_term = term
        self._state = state
        self._rules = rules
        self._trace = trace
        self._log = log
        self._now_ns = now_ns
        self._wall_ms = wall_ms
        self._table: LeaseTable | None = None
        self._term = 0
        self._seen_index = 0
        self._unsettled: dict[str, None] = {}
        self._settling: dict[str, None] = {}
        self._woken = asyncio.Event()
        self._refused: dict[str, int] = {}
        self._confirmed_rounds = 0
        self.alert = ""
        """Why no node is declared lost now, "" when nothing is wrong."""

    # -- renewals ----------------------------------------------------------------------------------

    async def renew(self, call: RenewCall) -> RenewReply:
        """Note renewals, confirm them by a round begun after that, and answer.

        Raises:
            NotLeader: this replica does not lead, or not for long enough to know.
            NoQuorum: no majority answered.
        """
        table = self._reigning()
        now_ns = self._now_ns()
        noted = [table.receive(r.node, r.incarnation, r.number, now_ns) for r in call.renewals]
        index = await self._consensus.read_index(timeout_s=call.timeout_ms / 1000)
        waited_ns = self._now_ns() - now_ns
        if self._reigning() is not table:
            raise self._not_leading()
        grants = tuple(self._grant(table, r, was) for r, was in zip(call.renewals, noted, strict=True))
        self._tell_confirmed(call, grants, waited_ns)
        return RenewReply(index, grants)

    def _tell_confirmed(self, call: RenewCall, grants: tuple[Grant, ...], waited_ns: int) -> None:
        """Trace one round in some, the first included: what was confirmed, and since when it waited."""
        sample = lease_sample(self._trace.heartbeat_sample)
        self._confirmed_rounds += 1
        if sample < 1 or self._confirmed_rounds % sample != 1 % sample:
            return
        given = [(r.node, r.number) for r, grant in zip(call.renewals, grants, strict=True) if not grant.code]
        if given:
            self._trace.emit(
                "lease", do="confirm", node=self._node, number=0, deadline_ns=0, term=self._term,
                nodes=given[:TOLD_MAX], waited_us=waited_ns // 1000, lease_ms=self._rules.lease_ns // MS_NS,
            )  # fmt: skip

    def _reigning(self) -> LeaseTable:
        if self._table is None or self._term != self._current_term():
            raise self._not_leading()
        return self._table

    def _not_leading(self) -> NotLeader:
        return NotLeader(f"{self._node} grants no leases now", hint="ask the leader", leader=self._consensus.leader)

    def _grant(self, table: LeaseTable, renewal: Renewal, noted: bool) -> Grant:
        known = self._state.registration(renewal.node)
        code = _standing(known, renewal)
        confirmed = table.confirms(renewal.node, renewal.incarnation) if noted else None
        if not code and (known is None or confirmed is None or confirmed.registration != known.registered_index):
            code = WITHHELD
        if code or confirmed is None:
            self._note_refusal(renewal, code)
            return Grant(code, 0, 0)
        self._refused.pop(renewal.node, None)
        return Grant(GRANTED, self._rules.lease_ns // MS_NS, confirmed.registration)

    def _note_refusal(self, renewal: Renewal, code: str) -> None:
        """Trace the first of a row of refusals."""
        if renewal.node not in self._refused:
            self._refused[renewal.node] = renewal.number
            self._trace.emit("lease", do="refused", node=renewal.node, number=renewal.number, deadline_ns=0, why=code)

    # -- one reign ---------------------------------------------------------------------------------

    def applied(self, index: int) -> None:
        """The state moved on: take in who registered, and who is lost."""
        table = self._table
        if table is None:
            return
        now_ns = self._now_ns()
        for node in self._state.changed_nodes(self._seen_index):
            self._take_in(table, node, now_ns)
        self._seen_index = index

    async def reign(self) -> None:
        """Keep the leases of this reign until cancelled; everything committed before it is applied."""
        table = self._begin()
        try:
            async with asyncio.TaskGroup() as group:
                while True:
                    self._woken.clear()
                    wake_ns = self._look(table, group)
                    try:
                        async with asyncio.timeout(max(0.001, (wake_ns - self._now_ns()) / 1e9)):
                            await self._woken.wait()
                    except TimeoutError:
                        continue
        finally:
            self._table = None
            self.alert = ""

    def _begin(self) -> LeaseTable:
        self._term = self._current_term()
        table = LeaseTable(self._rules, self._now_ns())
        self._unsettled, self._settling, self._refused = {}, {}, {}
        self._seen_index = self._state.index
        for node in sorted(self._state.books.nodes.slot_of):
            known = self._state.registration(node)
            if known is not None and not known.lost_index:
                table.found(Registered(node, known.incarnation, known.registered_index))
                if not known.settled:
                    self._unsettled[node] = None
        self._table = table
        return table

    def _take_in(self, table: LeaseTable, node: str, now_ns: int) -> None:
        known = self._state.registration(node)
        if known is None or known.lost_index:
            table.gone(node)
            self._unsettled.pop(node, None)
            return
        table.registered(Registered(node, known.incarnation, known.registered_index), now_ns)
        if known.settled:
            self._unsettled.pop(node, None)
        elif node not in self._unsettled:
            self._unsettled[node] = None
            self._woken.set()

    def _look(self, table: LeaseTable, group: asyncio.TaskGroup) -> int:
        """Declare who is due; returns when to look again."""
        now_ns = self._now_ns()
        if self._term != self._current_term():
            return now_ns + int(RETRY_S * 1e9)  # about to be ended
        verdict = table.judge(now_ns, self._grace_ns)
        self._note_storm(verdict.paused)
        for part in _batches(verdict.lost):
            for overdue in part:
                table.propose(overdue, now_ns)
            group.create_task(self._declare(table, part), name="loss")
        wakes = [now_ns + IDLE_NS, *self._settle(table, group, now_ns)]
        if verdict.next_ns is not None:
            wakes.append(verdict.next_ns)
        return min(wakes)

    def _grace_ns(self, node: str) -> int:
        grace_s = self._state.stop_grace_s(node)
        return 0 if grace_s is None else grace_s * 1000 * MS_NS

    def _note_storm(self, paused: str) -> None:
        if paused and not self.alert:
            self._log.warning("declaring nodes lost is paused", why=paused)
            self._trace.emit("lease", do="storm", node="", number=0, deadline_ns=0, why=paused)
        self.alert = f"declaring nodes lost is paused: {paused}" if paused else ""

    # -- proposing ---------------------------------------------------------------------------------

    async def _declare(self, table: LeaseTable, part: tuple[Overdue, ...]) -> None:
        """Propose losses until their outcome is known; until then these nodes' renewals are refused."""
        for overdue in part:
            silent_ms = overdue.silent_ns // MS_NS
            self._log.warning("declaring a node lost", node=overdue.node, silent_ms=silent_ms)
            self._trace.emit(
                "lease", do="lost", node=overdue.node, number=overdue.number, deadline_ns=0, silent_ms=silent_ms,
                term=self._term, lease_ms=self._rules.lease_ns // MS_NS, delta_ms=self._rules.delta_ns // MS_NS,
                drift_ppm=self._rules.drift_ppm, grace_ms=self._grace_ns(overdue.node) // MS_NS,
            )  # fmt: skip
        losses = tuple(
            Loss(overdue.node, overdue.incarnation, overdue.registration, overdue.silent_ns // MS_NS)
            for overdue in part
        )
        result = await self._decided(NodesLost(losses, self._node, self._wall_ms()))
        refused = {node for node, _ in result.refused} if isinstance(result, LossResult) else set()
        for overdue in part:
            if overdue.node in refused:
                table.decided(overdue.node)
        self._woken.set()

    def _settle(self, table: LeaseTable, group: asyncio.TaskGroup, now_ns: int) -> Iterator[int]:
        """Propose that nodes may get work whose former lease is over; yields when the others are due."""
        for node in list(self._unsettled):
            due_ns = table.settled_at_ns(node, self._grace_ns(node))
            if due_ns > now_ns:
                yield due_ns
            elif node not in self._settling:
                self._settling[node] = None
                group.create_task(self._settled(node), name="settle")

    async def _settled(self, node: str) -> None:
        known = self._state.registration(node)
        try:
            if known is not None and not known.settled:
                await self._decided(NodeSettled(node, known.registered_index, self._wall_ms()))
        finally:
            self._settling.pop(node, None)

    async def _decided(self, command: Command) -> object:
        """The result of a command, proposed until there is one; it may be applied twice, and then says so."""
        while self._term == self._current_term():
            try:
                return (await self._consensus.propose(encode(command), timeout_s=PROPOSE_S)).result
            except SkerryError as error:
                self._log.warning("a lease's command was not committed", code=error.code, why=error.message)
                await asyncio.sleep(RETRY_S)
        return None


def _standing(known: Registration | None, renewal: Renewal) -> str:
    """Why a node has to register before it can renew, or ""."""
    if known is None:
        return "no-such-node"
    if known.lost_index:
        return "node-lost"
    return "" if known.incarnation == renewal.incarnation else "stale-incarnation"


def _batches(overdue: tuple[Overdue, ...]) -> Iterator[tuple[Overdue, ...]]:
    for first in range(0, len(overdue), LOSSES_MAX):
        yield overdue[first : first + LOSSES_MAX]
