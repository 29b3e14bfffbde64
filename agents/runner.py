"""Carrying out what `agents.reconcile` decides, through one connection to the sandboxer.

Owns: the order of requests to the sandboxer, how many are under way, translating its records.
Must not know: replicas or sessions; reports go to the `Reporter`.

Requests go out in the order of the actions.  A stop may overtake a start that still waits for its
turn: the sandboxer fences the epoch then and refuses the late start.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Any

import structlog

from agents.reconcile import (
    EXITED,
    RUNNING,
    STARTING,
    Action,
    ForgetWorkload,
    Reconciler,
    Report,
    StartWorkload,
    StopWorkload,
)
from agents.reporter import Reporter
from agents.sandbox_client import SandboxClient, SandboxerRefused, WorkloadRecord
from agents.sandboxer import terms
from agents.usage import UsageBook
from scheduler.commands import AllocationStatus
from scheduler.model import Exit
from scheduler.session import Assignment

log = structlog.get_logger(__name__)

STARTS_AT_ONCE = 64
RETRY_S = 0.5
GRACE_UNKNOWN_S = 5.0
"""Stop grace of an attempt whose assignment this agent never saw."""
DETAIL_CHARS_MAX = 512
_STATES = {"starting": STARTING, "running": RUNNING, "stopping": RUNNING, "exited": EXITED}


def status_of(record: WorkloadRecord) -> AllocationStatus:
    """A sandboxer's record as the cluster is told."""
    how = record.exit
    if how is not None and len(how.detail) > DETAIL_CHARS_MAX:
        how = Exit(how.code, how.signal, how.reason, how.status_known, how.detail[:DETAIL_CHARS_MAX])
    return AllocationStatus(
        record.allocation, record.epoch, record.sequence, _STATES[record.state], record.pid, record.cgroup, how
    )


class Runner:
    """One connection's worth of work: made with a connected client, run until the sandboxer goes.

    `emit` is the tracer's; `changed` is called when reports may be waiting.
    """

    def __init__(
        self,
        client: SandboxClient,
        reconciler: Reconciler,
        reporter: Reporter,
        usage: UsageBook,
        *,
        emit: Callable[..., Any],
        changed: Callable[[], None],
    ) -> None:
        self._client = client
        self._reconciler = reconciler
        self._reporter = reporter
        self._usage = usage
        self._emit = emit
        self._changed = changed
        self._pending: tuple[Action, ...] = ()
        self._tasks: asyncio.TaskGroup | None = None
        self._turns = asyncio.Semaphore(STARTS_AT_ONCE)
        self._retry: asyncio.TimerHandle | None = None
        self._waits_for_lease = False
        self.starts_allowed = True

    async def adopt(self) -> None:
        """Take over what runs here; raises SandboxerGone."""
        records = await self._client.list()
        for record in records:
            if record.state in ("running", "stopping"):
                self._emit(
                    "run", do="adopt", allocation=record.allocation, attempt=record.attempt, epoch=record.epoch,
                    pid=record.pid, cgroup=record.cgroup,
                )  # fmt: skip
        if records:
            log.info("workloads adopted", records=len(records), sandboxer=self._client.incarnation)
        statuses = [status_of(record) for record in records]
        self._pending = self._reconciler.adopted(statuses, self._client.hello.sequence)

    async def run(self, usage_s: float) -> None:
        """Serve until cancelled; raises (a group with) SandboxerGone when the sandboxer goes."""
        try:
            async with asyncio.TaskGroup() as tasks:
                self._tasks = tasks
                self.take(self._pending)
                tasks.create_task(self._follow())
                tasks.create_task(self._measure(usage_s))
        finally:
            self._tasks = None
            if self._retry is not None:
                self._retry.cancel()

    def take(self, actions: Iterable[Action]) -> None:
        """Carry out actions, in order; does not wait.  Between connections they are dropped:
        the next adoption plans them again.
        """  # fmt: skip
        reported = False
        for action in actions:
            if isinstance(action, Report):
                self._reporter.add(action.status)
                reported = True
            elif self._tasks is not None:
                self._tasks.create_task(self._carry_out(action))
        if reported:
            self._changed()

    async def _carry_out(self, action: Action) -> None:
        match action:
            case StartWorkload():
                await self._start(action)
            case StopWorkload():
                await self._stop(action.allocation, action.epoch)
            case ForgetWorkload():
                await self._forget(action.allocation, action.epoch)

    def renew(self, deadline_ns: int, registration: int) -> None:
        """Hand a confirmed lease to the sandboxer; does not wait.  What waited for one is ordered again."""
        if self._tasks is not None:
            self._tasks.create_task(self._renew(deadline_ns, registration))

    async def _renew(self, deadline_ns: int, registration: int) -> None:
        try:
            await self._client.renew(deadline_ns, registration)
        except SandboxerRefused as error:
            log.error("lease refused by the sandboxer", code=error.reason, why=error.message)
        if self._retry is not None and self._waits_for_lease:
            self._retry.cancel()
            self._plan_again()

    async def _start(self, order: StartWorkload) -> None:
        assignment = order.assignment
        async with self._turns:
            if not self.starts_allowed:
                return
            try:
                record = await self._client.start(
                    assignment, generation=order.generation, registration=order.registration
                )
            except SandboxerRefused as error:
                self._start_refused(assignment, error)
                return
        self.take(self._reconciler.observed(status_of(record)))

    def _start_refused(self, assignment: Assignment, error: SandboxerRefused) -> None:
        retry = error.retry_may_help
        self._waits_for_lease = self._waits_for_lease or error.reason == terms.NO_LEASE
        log.warning(
            "start refused", allocation=assignment.allocation, epoch=assignment.epoch, code=error.reason,
            why=error.message, retry=retry,
        )  # fmt: skip
        why = f"{error.reason}: {error.message}"[:DETAIL_CHARS_MAX]
        self.take(self._reconciler.refused(assignment.allocation, assignment.epoch, why, retry=retry))
        if retry and self._retry is None:
            self._retry = asyncio.get_running_loop().call_later(RETRY_S, self._plan_again)

    def _plan_again(self) -> None:
        self._retry = None
        self._waits_for_lease = False
        self.take(self._reconciler.plan())

    async def _stop(self, allocation: str, epoch: int) -> None:
        grace_s = self._reconciler.grace_s(allocation, epoch)
        try:
            record = await self._client.stop(allocation, epoch, GRACE_UNKNOWN_S if grace_s is None else grace_s)
        except SandboxerRefused as error:
            log.warning("stop refused", allocation=allocation, epoch=epoch, code=error.reason, why=error.message)
            return
        if record is None or record.epoch != epoch:
            self.take(self._reconciler.never_started(allocation, epoch))
        else:
            self.take(self._reconciler.observed(status_of(record)))

    async def _forget(self, allocation: str, epoch: int) -> None:
        try:
            await self._client.forget(allocation, epoch)
        except SandboxerRefused as error:
            log.warning("forget refused", allocation=allocation, epoch=epoch, code=error.reason, why=error.message)

    async def _follow(self) -> None:
        async for event in self._client.events():
            if event.kind == "oom":
                log.warning("out of memory", allocation=event.record.allocation, epoch=event.record.epoch)
            self.take(self._reconciler.observed(status_of(event.record)))

    async def _measure(self, usage_s: float) -> None:
        while True:
            self._usage.take((await self._client.usage()).workloads)
            await asyncio.sleep(usage_s)
