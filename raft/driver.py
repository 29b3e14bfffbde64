"""Runs one replica's consensus: the only file of `raft` that awaits.

Owns: when a turn happens, the threads that wait for the disk, timers, callers' futures, the end.
Must not know: what a turn does (turns), the protocol (core), files (store), sockets.

While one write is in flight in its thread, turns go on; what piled up meanwhile is the next write.  Any failed
write, and any exception out of the core or the state machine, ends `run` with that exception: nothing is
retried.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from raft.alarm import Alarm
from raft.calls import Outcome, not_running, unconfirmed, unknown
from raft.core import Core, CoreConfig
from raft.counters import Counters
from raft.effects import RoleChanged
from raft.errors import SkerryError, StoreError
from raft.events import Proposal
from raft.lanes import Job, Lane, LaneName
from raft.messages import Message
from raft.progress import Pace
from raft.protocols import Clock, Dice, Observer, StateMachine, Threads, Transport
from raft.status import DriverStatus, Standing, status_of
from raft.store.log_store import LogStore
from raft.threads import SystemThreads
from raft.turns import Turns
from raft.writer import Filler, Writer, Written

_REFILL_S = 1.0
_REPORT_S = 5.0
_STOP_S = 10.0
HAND_OVER_S_MAX = 120.0
"""Longer than any election timeout, which bounds a hand-over."""


class Driver:
    """One replica.

    Args:
        config: of the core.
        store: opened for this replica.
        transport: takes messages for peers.
        clock, dice, observer: as in `raft.protocols`.
        machine: what committed entries are applied to.
        threads: where the disk is waited for; the operating system's unless given.
    """

    def __init__(
        self,
        *,
        config: CoreConfig,
        store: LogStore,
        transport: Transport,
        clock: Clock,
        dice: Dice,
        machine: StateMachine,
        observer: Observer,
        threads: Threads | None = None,
    ) -> None:
        self._turns = Turns(
            config=config,
            store=store,
            transport=transport,
            clock=clock,
            dice=dice,
            machine=machine,
            observer=observer,
        )
        self._store = store
        self._clock = clock
        self._loop: asyncio.AbstractEventLoop | None = None
        self._over: asyncio.Future[None] | None = None
        self._turn_due = False
        self._tick = Alarm(clock, self._call_later, lambda: self._guard(self._turns.tick))
        self._expiry = Alarm(clock, self._call_later, self._on_expiry)
        threads = threads or SystemThreads()
        self._threads_ended = asyncio.Semaphore(0)
        self._closed = asyncio.Event()
        self._writer = Writer(store, clock, threads, self._from_writer, self._from_thread_end)
        self._filler = Filler(store, threads, self._from_filler, self._from_thread_end)
        self._lanes = {name: Lane(name, clock, threads, self._from_lane, self._from_thread_end) for name in LaneName}

    # -- for everybody ---------------------------------------------------------------------------

    @property
    def core(self) -> Core:
        """The core, for reading."""
        return self._turns.core

    @property
    def counters(self) -> Counters:
        """What was counted, for metrics."""
        return self._turns.counters

    @property
    def on_role(self) -> list[Callable[[RoleChanged], None]]:
        """Called with every `RoleChanged`, on the event loop, right after it was carried out; append to it."""
        return self._turns.on_role

    @property
    def on_standing(self) -> list[Callable[[], None]]:
        """Called on the event loop when `standing` changed; append to it."""
        return self._turns.digester.on_standing

    @property
    def standing(self) -> Standing:
        """What the comparison of the replicas' states says of this one's."""
        return self._turns.digester.standing

    @property
    def leader(self) -> str | None:
        """The leader as far as this replica knows."""
        return self._turns.core.leader

    @property
    def applied_index(self) -> int:
        """Index of the last entry the state machine has applied."""
        return self._turns.applier.index

    @property
    def in_step(self) -> list[str]:
        """Leading: the followers that are replicated to without having to look for their place, sorted."""
        return [peer for peer, its in sorted(self._turns.core.progress.items()) if its.pace is Pace.REPLICATE]

    def status(self) -> DriverStatus:
        """What this replica knows of itself and, leading, of its followers."""
        return status_of(self._turns.core, self._turns.applier.index, disk_full=self._store.full)

    def receive(self, sender: str, message: Message, store: str) -> None:
        """Take a message from a peer, whose link's hello said that it runs on `store`; drops it when too many wait."""
        self._turns.take_message(sender, store, message)
        self._wake()

    async def propose(self, data: bytes, *, timeout_s: float) -> Outcome:
        """Commit and apply one command; callers of one loop iteration share a batch.

        Raises:
            NotLeader, Overloaded, LogFull, DiskFull, ProposalDropped: it certainly did not happen.
            OutcomeUnknown: it may still happen.
        """
        self._turns.check_proposal(data)
        waiter, call_id = self._call(timeout_s, unknown)
        self._turns.take_proposal(Proposal(call_id, data))
        self._wake()
        outcome: Outcome = await waiter
        return outcome

    async def read_index(self, *, timeout_s: float) -> int:
        """An index confirmed by a quorum round that began after this call, applied here.

        Raises:
            NotLeader, NoQuorum: nothing may be read from here now.
        """
        waiter, call_id = self._call(timeout_s, unconfirmed)
        self._turns.take_read(call_id)
        self._wake()
        index: int = await waiter
        return index

    async def hand_over(self, to: str | None = None) -> str:
        """Hand leadership over to voter `to`, or to whoever can take it soonest; returns who leads then.

        It takes an election timeout at most; meanwhile proposals are refused with `not-leader`.

        Raises:
            NotLeader: this replica does not lead.
            NoSuccessor: nobody took over; this replica goes on.
        """
        waiter, call_id = self._call(HAND_OVER_S_MAX, unconfirmed)
        self._guard(self._turns.hand_over, call_id, to)
        leader: str = await waiter
        return leader

    async def wait_applied(self, index: int, *, timeout_s: float) -> None:
        """Return once `index` is applied here; raises NoQuorum when that takes too long."""
        if index <= self._turns.digester.usable_index:
            return
        waiter, call_id = self._call(timeout_s, unconfirmed)
        self._turns.calls.wait_applied(call_id, index)
        await waiter

    async def run(self) -> None:
        """Drive until `stop`.

        Raises:
            StoreError: a write failed; the process must end.
            Exception: core or state machine failed; the process must end.
        """
        self._loop = asyncio.get_running_loop()
        self._over = self._loop.create_future()
        self._writer.start()
        self._filler.start()
        for lane in self._lanes.values():
            lane.start()
        self._turns.report.recovered()
        tasks = [self._every(_REPORT_S, self._report_disk), self._every(_REFILL_S, self._refill)]
        periodic = [self._loop.create_task(task) for task in tasks]
        try:
            self._refill()
            self._guard(self._turn)
            await self._over
        finally:
            for task in periodic:
                task.cancel()
            await self._close()

    async def stop(self) -> None:
        """End `run` after the write in flight and release the store; who still waits learns that nothing is known."""
        if self._over is None:
            self._store.close()
            return
        if not self._over.done():
            self._over.set_result(None)
        await asyncio.wait_for(self._closed.wait(), 2 * _STOP_S)

    # -- turns -----------------------------------------------------------------------------------

    def _call(self, timeout_s: float, late: Callable[[], SkerryError]) -> tuple[asyncio.Future[Any], int]:
        if self._loop is None or self._over is None or self._over.done():
            raise not_running()
        waiter = self._loop.create_future()
        deadline_ns = self._clock.now_ns() + int(timeout_s * 1e9)
        call_id = self._turns.calls.add(waiter, deadline_ns, late)
        self._expiry.at(deadline_ns)
        return waiter, call_id

    def _wake(self) -> None:
        """Have a turn in this iteration of the loop."""
        if not self._turn_due and self._loop is not None:
            self._turn_due = True
            self._loop.call_soon(self._guard, self._turn)

    def _turn(self) -> None:
        self._turn_due = False
        self._turns.turn()

    def _guard(self, work: Callable[..., None], *arguments: Any) -> None:
        """Do `work` and what follows from it, unless the driver ended; any failure ends it."""
        if self._over is None or self._over.done():
            return
        turns, started_ns = self._turns, self._clock.now_ns()
        try:
            work(*arguments)
            self._submit()
            turns.settle(started_ns)
            self._submit()
        except Exception as error:
            self._fail(error)
            return
        if turns.unfinished:
            self._wake()
        self._tick.at(turns.deadline_ns)
        turns.counters.turns.observe(self._clock.now_ns() - started_ns)

    def _submit(self) -> None:
        """Give the disk what piled up, before anything else takes time."""
        batch = self._turns.next_batch()
        if batch is not None:
            self._writer.submit(batch)
        for job in self._turns.jobs():
            self._lanes[job.lane].submit(job)

    # -- threads ---------------------------------------------------------------------------------

    def _written(self, written: Written) -> None:
        self._turns.written(written)
        if not self._store.full:
            self._refill()

    def _refill(self) -> None:
        if self._store.needs_spare:
            self._filler.request()

    def _from_writer(self, written: Written) -> None:
        """In the writer's thread: bring its answer to the loop."""
        self._from_thread(self._guard, self._written, written)

    def _from_filler(self, error: BaseException | None) -> None:
        if error is not None:
            self._from_thread(self._fail, error)

    def _from_lane(self, job: Job) -> None:
        """In a snapshot thread: bring its answer to the loop."""
        self._from_thread(self._guard, self._turns.job_done, job)

    def _from_thread_end(self) -> None:
        self._from_thread(self._threads_ended.release)

    def _from_thread(self, work: Callable[..., None], *arguments: Any) -> None:
        assert self._loop is not None, "threads run only while the driver does"
        try:
            self._loop.call_soon_threadsafe(work, *arguments)
        except RuntimeError:  # the loop was closed while the disk took its time: nobody waits any more
            return

    # -- time ------------------------------------------------------------------------------------

    def _call_later(self, delay_s: float, work: Callable[[], None]) -> asyncio.TimerHandle:
        assert self._loop is not None, "timers are set while the driver runs"
        return self._loop.call_later(delay_s, work)

    def _on_expiry(self) -> None:
        calls = self._turns.calls
        calls.expire(self._clock.now_ns())
        deadline_ns = calls.next_deadline_ns()
        if deadline_ns is not None:
            self._expiry.at(deadline_ns)

    async def _every(self, period_s: float, work: Callable[[], None]) -> None:
        while True:
            await asyncio.sleep(period_s)
            work()

    def _report_disk(self) -> None:
        self._turns.report.disk_totals(self._turns.counters)

    # -- the end ---------------------------------------------------------------------------------

    def _fail(self, error: BaseException) -> None:
        if self._over is not None and not self._over.done():
            self._over.set_exception(error)

    async def _close(self) -> None:
        """Answer everybody, let the write in flight end, release the store."""
        calls = self._turns.calls
        for call_id in self._turns.unstepped():
            calls.fail(call_id, not_running())
        calls.fail_all()
        self._tick.cancel()
        self._expiry.cancel()
        self._store.interrupt()
        self._turns.snapshots.interrupt()
        threads: list[Writer | Filler | Lane] = [self._writer, self._filler, *self._lanes.values()]
        for thread in threads:
            thread.stop()
        try:
            async with asyncio.timeout(_STOP_S):
                for _ in threads:
                    await self._threads_ended.acquire()
        except TimeoutError as error:
            raise StoreError("the last write did not end", hint="the disk hangs; check it") from error
        else:
            self._store.close()
        finally:
            self._closed.set()
