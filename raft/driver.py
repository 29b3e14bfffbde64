"""Runs one replica's consensus: the only file of `raft` that awaits.

Owns: the order of things around the core: what is stepped when, one write in flight, what waits for it,
slices of applying, timers, callers.  Must not know: the protocol (core), files (store), sockets.

The contract with the core (effects.py): effects are carried out in order; a `Persist` may stay in
flight while later events are stepped; what is marked `after_persist` waits until all earlier writes are
durable.  Writes that pile up meanwhile become the next frame.  Any failed write, and any exception
out of the core or the state machine, ends `run` with that exception: nothing is retried.

Every turn of the loop is bounded: messages stepped, proposals batched, and entries applied
are counted against `TURN_NS`; what is left over goes on in the next iteration.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any

from raft.apply import Applier
from raft.calls import Calls, Outcome, not_running, refusal, unconfirmed, unknown
from raft.core import Core, CoreConfig, Recovered
from raft.counters import Counters
from raft.effects import (
    Appended,
    Apply,
    Committed,
    Effect,
    Persist,
    ProposalAppended,
    ProposalRefused,
    ReadReady,
    ReadRefused,
    Role,
    RoleChanged,
    Send,
    VoteCast,
)
from raft.errors import Overloaded, ProtocolViolation, SkerryError, StoreError
from raft.events import ApplyDone, Event, Persisted, Proposal, Proposed, ReadRequested, Received, Tick
from raft.messages import ENTRY_BYTES_MAX, Append, Message
from raft.observe import Reporter
from raft.protocols import Clock, Dice, Observer, StateMachine, Transport
from raft.status import DriverStatus, status_of
from raft.store.log_store import LogStore
from raft.writer import Filler, Writer, Written, merge, persisted_bytes

TURN_NS = 2_000_000
"""After this long a turn leaves the rest to the next iteration of the loop."""
INBOX_MAX = 4096
"""Messages that may wait; more are dropped, which Raft allows."""
PROPOSALS_PER_STEP = 512
PROPOSALS_WAITING_MAX = 65_536
_PROPOSAL_OVERHEAD_BYTES = 160
_LATE_NS = 5_000_000
_REFILL_S = 1.0
_REPORT_S = 5.0
_STOP_S = 10.0


class Driver:
    """One replica.

    Attributes:
        core: for reading only.
        counters: for metrics.
        on_role: called with every `RoleChanged`, on the event loop, right after it was carried out.
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
    ) -> None:
        assert config.store_id == store.store_id, "a core is bound to the store it votes with"
        recovered = Recovered(store.recovered.hard_state, store.recovered.entries)
        self.core = Core(config, recovered, dice, clock.now_ns())
        self.counters = Counters()
        self.on_role: list[Callable[[RoleChanged], None]] = []
        self._store = store
        self._transport = transport
        self._clock = clock
        self._report = Reporter(observer, self.core)
        self._applier = Applier(machine, clock)
        self._calls = Calls()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._over: asyncio.Future[None] | None = None
        self._inbox: deque[tuple[str, Message]] = deque()
        self._proposals: deque[Proposal] = deque()
        self._reads: list[int] = []
        self._persists: list[Persist] = []
        self._issued = self._durable = 0
        self._unwritten_bytes = 0
        self._writing_bytes = 0
        self._writing = False
        self._held: deque[tuple[int, Send]] = deque()
        self._turn_due = False
        self._tick: asyncio.TimerHandle | None = None
        self._tick_ns = 0
        self._expiry: asyncio.TimerHandle | None = None
        self._expiry_ns = 0
        self._threads = asyncio.Semaphore(0)
        self._closed = asyncio.Event()
        self._writer = Writer(store, clock, self._from_writer, self._from_thread_end)
        self._filler = Filler(store, self._from_filler, self._from_thread_end)
        self._do: dict[type, Callable[[Any], None]] = {
            Persist: self._do_persist,
            Send: self._do_send,
            Apply: self._applier.add,
            ProposalAppended: self._do_proposal_appended,
            ProposalRefused: self._do_refused,
            ReadReady: self._do_read_ready,
            ReadRefused: self._do_refused,
            RoleChanged: self._do_role,
            VoteCast: self._report.vote,
            Appended: self._report.appended,
            Committed: self._report.committed,
        }

    # -- for everybody ---------------------------------------------------------------------------

    @property
    def leader(self) -> str | None:
        """The leader as far as this replica knows."""
        return self.core.leader

    @property
    def applied_index(self) -> int:
        """Index of the last entry the state machine has applied."""
        return self._applier.index

    def receive(self, sender: str, message: Message) -> None:
        """Take a message from a peer; drops it when too many wait."""
        if len(self._inbox) >= INBOX_MAX:
            self.counters.received_dropped += 1
            return
        self._inbox.append((sender, message))
        self._wake()

    async def propose(self, data: bytes, *, timeout_s: float) -> Outcome:
        """Commit and apply one command; callers of one loop iteration share a batch.

        Raises:
            NotLeader, Overloaded, LogFull, DiskFull, ProposalDropped: it certainly did not happen.
            OutcomeUnknown: it may still happen.
        """
        if len(self._proposals) >= PROPOSALS_WAITING_MAX or len(data) > ENTRY_BYTES_MAX:
            raise Overloaded(f"{len(self._proposals)} proposals wait, this one has {len(data)} bytes")
        waiter, call_id = self._call(timeout_s, unknown)
        self._proposals.append(Proposal(call_id, data))
        self._wake()
        outcome: Outcome = await waiter
        return outcome

    async def read_index(self, *, timeout_s: float) -> int:
        """An index confirmed by a quorum round that began after this call, applied here.

        Raises:
            NotLeader, NoQuorum: nothing may be read from here now.
        """
        waiter, call_id = self._call(timeout_s, unconfirmed)
        self._reads.append(call_id)
        self._wake()
        index: int = await waiter
        return index

    async def wait_applied(self, index: int, *, timeout_s: float) -> None:
        """Return once `index` is applied here; raises NoQuorum when that takes too long."""
        if index <= self._applier.index:
            return
        waiter, call_id = self._call(timeout_s, unconfirmed)
        self._calls.wait_applied(call_id, index)
        await waiter

    def status(self) -> DriverStatus:
        """What this replica knows of itself and, leading, of its followers."""
        return status_of(self.core, self._applier.index, disk_full=self._store.full)

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
        self._report.recovered()
        tasks = [self._every(_REPORT_S, self._report_disk), self._every(_REFILL_S, self._refill)]
        periodic = [self._loop.create_task(task) for task in tasks]
        try:
            self._refill()
            self._wake()
            self._arm()
            await self._over
        finally:
            for task in periodic:
                task.cancel()
            await self._close()

    async def stop(self) -> None:
        """End `run` after the write in flight and release the store; waiting callers learn that nothing is known."""
        if self._over is None:
            self._store.close()
            return
        if not self._over.done():
            self._over.set_result(None)
        await asyncio.wait_for(self._closed.wait(), 2 * _STOP_S)

    # -- turns of the loop -----------------------------------------------------------------------

    def _call(self, timeout_s: float, late: Callable[[], SkerryError]) -> tuple[asyncio.Future[Any], int]:
        if self._loop is None or self._over is None or self._over.done():
            raise not_running()
        waiter = self._loop.create_future()
        deadline_ns = self._clock.now_ns() + int(timeout_s * 1e9)
        call_id = self._calls.add(waiter, deadline_ns, late)
        if self._expiry is None or deadline_ns < self._expiry_ns:
            self._arm_expiry()
        return waiter, call_id

    def _wake(self) -> None:
        """Have a turn in this iteration of the loop."""
        if not self._turn_due and self._loop is not None:
            self._turn_due = True
            self._loop.call_soon(self._guard, self._turn)

    def _guard(self, work: Callable[..., None], *arguments: Any) -> None:
        """Do `work` unless the driver ended; any failure ends it.  Measures how long the loop was held."""
        if self._over is None or self._over.done():
            return
        started = self._clock.now_ns()
        try:
            work(*arguments)
            self._settle(started)
        except Exception as error:
            self._fail(error)
        self.counters.turns.observe(self._clock.now_ns() - started)

    def _turn(self) -> None:
        self._turn_due = False
        until = self._clock.now_ns() + TURN_NS
        self._step_messages(until)
        self._step_proposals()
        if self._reads:
            reads, self._reads = self._reads, []
            self._step(ReadRequested(self._clock.now_ns(), tuple(reads)))
        if self._inbox or self._proposals:
            self._wake()

    def _settle(self, started_ns: int) -> None:
        """After stepping: apply, hand the disk what piled up, set the clock."""
        while self._applier.waiting:
            entries, results = self._applier.slice()
            for entry, result in zip(entries, results, strict=True):
                self._calls.applied_entry(entry.term, entry.index, result)
            self.counters.applied += len(entries)
            self._report.applied(entries)
            self._step(ApplyDone(self._clock.now_ns(), self._applier.index))
            self._calls.applied_upto(self._applier.index)
            if self._clock.now_ns() - started_ns >= TURN_NS:
                break
        if self._applier.waiting:
            self._wake()
        if self._persists and not self._writing:
            self._write()
        self._arm()

    def _step(self, event: Event) -> None:
        self.counters.steps += 1
        self._carry_out(self.core.step(event))

    def _carry_out(self, effects: list[Effect]) -> None:
        do = self._do
        for effect in effects:
            do[type(effect)](effect)

    def _step_messages(self, until_ns: int) -> None:
        inbox = self._inbox
        while inbox:
            now_ns = self._clock.now_ns()
            if now_ns >= until_ns:
                return
            sender, message = inbox.popleft()
            self.counters.received += 1
            if self._store.full and type(message) is Append and message.entries:
                message = self._without_room(message)
            try:
                self._step(Received(now_ns, sender, message))
            except ProtocolViolation as violation:
                self.counters.received_dropped += 1
                self._report.violation(sender, message, violation)

    def _step_proposals(self) -> None:
        waiting = self._proposals
        if not waiting:
            return
        batch = tuple(waiting.popleft() for _ in range(min(PROPOSALS_PER_STEP, len(waiting))))
        self.counters.proposed += len(batch)
        if self._store.full and not self._has_room(sum(len(one.data) + _PROPOSAL_OVERHEAD_BYTES for one in batch)):
            for proposal in batch:
                self._do_refused(ProposalRefused(proposal.id, "disk-full", self.core.leader))
            return
        self._step(Proposed(self._clock.now_ns(), batch))

    # -- a full disk -----------------------------------------------------------------------------

    def _has_room(self, size_bytes: int) -> bool:
        return self._unwritten_bytes + self._writing_bytes + size_bytes <= self._store.headroom_bytes

    def _without_room(self, message: Append) -> Append:
        """The same Append without entries if they would not fit: a heartbeat the leader could have sent."""
        if self._has_room(sum(len(entry.data) + _PROPOSAL_OVERHEAD_BYTES for entry in message.entries)):
            return message
        return Append(message.term, message.prev_index, message.prev_term, message.commit_index, message.sequence, ())

    def _refill(self) -> None:
        if self._store.needs_spare:
            self._filler.request()

    # -- effects ---------------------------------------------------------------------------------

    def _do_persist(self, effect: Persist) -> None:
        assert effect.write > self._issued, "writes are numbered upwards"
        self._issued = effect.write
        self._unwritten_bytes += persisted_bytes(effect)
        self._persists.append(effect)

    def _do_send(self, effect: Send) -> None:
        if effect.after_persist and self._durable < self._issued:
            self._held.append((self._issued, effect))
        else:
            self._transport.send(effect.to, effect.message)

    def _do_proposal_appended(self, effect: ProposalAppended) -> None:
        self._calls.appended(effect.id, effect.term, effect.index)

    def _do_refused(self, effect: ProposalRefused | ReadRefused) -> None:
        self.counters.refused += 1
        self._calls.fail(effect.id, refusal(effect.code, effect.leader))

    def _do_read_ready(self, effect: ReadReady) -> None:
        self._calls.wait_applied(effect.id, effect.index)
        self._calls.applied_upto(self._applier.index)

    def _do_role(self, effect: RoleChanged) -> None:
        self.counters.elections += effect.role is Role.LEADER
        self._report.role(effect)
        for callback in self.on_role:
            callback(effect)

    # -- the disk --------------------------------------------------------------------------------

    def _write(self) -> None:
        batch = merge(self._persists)
        self._persists = []
        self._writing = True
        self._writing_bytes, self._unwritten_bytes = self._unwritten_bytes, 0
        self._writer.submit(batch)

    def _written(self, written: Written) -> None:
        self._writing, self._writing_bytes = False, 0
        self._report.disk(written)
        if written.error is not None:
            raise written.error
        self.counters.writes.observe(written.duration_ns)
        self.counters.written_bytes += written.size_bytes
        self._durable = written.write
        self._step(Persisted(self._clock.now_ns(), written.write, written.last_term, written.last_index))
        while self._held and self._held[0][0] <= self._durable:
            effect = self._held.popleft()[1]
            self._transport.send(effect.to, effect.message)
        if self._store.needs_spare and not self._store.full:
            self._filler.request()

    def _from_writer(self, written: Written) -> None:
        """In the writer's thread: bring its answer to the loop."""
        self._from_thread(self._guard, self._written, written)

    def _from_thread_end(self) -> None:
        self._from_thread(self._threads.release)

    def _from_filler(self, error: BaseException | None) -> None:
        if error is not None:
            self._from_thread(self._fail, error)

    def _from_thread(self, work: Callable[..., None], *arguments: Any) -> None:
        assert self._loop is not None, "threads run only while the driver does"
        try:
            self._loop.call_soon_threadsafe(work, *arguments)
        except RuntimeError:  # the loop was closed while the disk took its time: nobody waits any more
            return

    # -- time ------------------------------------------------------------------------------------

    def _arm(self) -> None:
        """Have the core's next deadline noticed.  A timer that is early anyway stays: it arms the next."""
        deadline_ns = self.core.next_deadline_ns()
        if self._tick is not None:
            if self._tick_ns <= deadline_ns:
                return
            self._tick.cancel()
        self._tick_ns = deadline_ns
        self._tick = self._after(deadline_ns, self._guard, self._on_tick)

    def _after(self, deadline_ns: int, work: Callable[..., None], *arguments: Any) -> asyncio.TimerHandle:
        assert self._loop is not None, "timers are set while the driver runs"
        delay_ns = min(max(0, deadline_ns - self._clock.now_ns()), 3_600_000_000_000)
        return self._loop.call_later(delay_ns / 1e9, work, *arguments)

    def _on_tick(self) -> None:
        self._tick = None
        now_ns = self._clock.now_ns()
        if now_ns < self.core.next_deadline_ns():
            return
        if now_ns - self._tick_ns > _LATE_NS and self._loop is not None:
            # The loop was held or the process paused: what peers sent meanwhile is read first.
            self._tick_ns = self.core.next_deadline_ns()
            self._tick = self._loop.call_later(0.001, self._guard, self._on_late_tick)
            return
        self._on_late_tick()

    def _on_late_tick(self) -> None:
        self._tick = None
        self._step_messages(self._clock.now_ns() + TURN_NS)
        now_ns = self._clock.now_ns()
        if now_ns >= self.core.next_deadline_ns():
            self._step(Tick(now_ns))

    def _arm_expiry(self) -> None:
        if self._expiry is not None:
            self._expiry.cancel()
            self._expiry = None
        deadline_ns = self._calls.next_deadline_ns()
        if deadline_ns is not None:
            self._expiry_ns = deadline_ns
            self._expiry = self._after(deadline_ns, self._on_expiry)

    def _on_expiry(self) -> None:
        self._expiry = None
        self._calls.expire(self._clock.now_ns())
        self._arm_expiry()

    async def _every(self, period_s: float, work: Callable[[], None]) -> None:
        while True:
            await asyncio.sleep(period_s)
            work()

    def _report_disk(self) -> None:
        self._report.disk_totals(self.counters)

    # -- the end ---------------------------------------------------------------------------------

    def _fail(self, error: BaseException) -> None:
        if self._over is not None and not self._over.done():
            self._over.set_exception(error)

    async def _close(self) -> None:
        """Answer everybody, let the write in flight end, release the store."""
        for proposal in self._proposals:
            self._calls.fail(proposal.id, not_running())
        self._calls.fail_all()
        for timer in (self._tick, self._expiry):
            if timer is not None:
                timer.cancel()
        self._writer.stop()
        self._filler.stop()
        try:
            async with asyncio.timeout(_STOP_S):
                await self._threads.acquire()
                await self._threads.acquire()
        except TimeoutError as error:
            raise StoreError("the last write did not end", hint="the disk hangs; check it") from error
        else:
            self._store.close()
        finally:
            self._closed.set()
