"""One replica's work, a bounded turn at a time, without an event loop.

Owns: the order of things around the core: what is stepped when, effects carried out in order, slices of applying,
what a full disk refuses.  Must not know: asyncio, threads, timers; time is read from the injected clock.

The driver calls `turn`, `tick`, `written` or `job_done` when something happened, and `settle` after each; then it
hands `next_batch` to the writer and `jobs` to their threads, and comes back at `deadline_ns`, at once while
`unfinished`.  A simulator can do the same.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

from raft.apply import Applier
from raft.calls import Calls, refusal
from raft.core import Core, CoreConfig, Recovered
from raft.counters import Counters
from raft.digester import Digester
from raft.effects import (
    Appended,
    Apply,
    Committed,
    Diverged,
    HandedOver,
    HandOverRefused,
    Installed,
    Persist,
    ProposalAppended,
    ProposalRefused,
    ReadReady,
    ReadRefused,
    Reconfigured,
    Restore,
    Role,
    RoleChanged,
    Send,
    SendChunk,
    Split,
    TakeChunk,
    TakeDigest,
    TakeSnapshot,
    VoteCast,
)
from raft.errors import Overloaded, ProtocolViolation
from raft.events import ApplyDone, Event, HandOver, Persisted, Proposal, Proposed, ReadRequested, Received, Tick
from raft.lanes import Job
from raft.messages import ENTRY_BYTES_MAX, Append, Message
from raft.observe import Reporter
from raft.outflow import PROPOSAL_OVERHEAD_BYTES, Outflow
from raft.protocols import Clock, Dice, Observer, StateMachine, Transport
from raft.snapshotter import Snapshotter
from raft.store.log_store import LogStore
from raft.writer import Batch, Written

TURN_NS = 2_000_000
"""After this long a turn leaves the rest to the next one."""
INBOX_MAX = 4096
"""Messages that may wait; more are dropped, which Raft allows."""
PROPOSALS_PER_STEP = 512
PROPOSALS_WAITING_MAX = 65_536
_LATE_NS = 5_000_000
_PAUSE_NS = 1_000_000


class Turns:
    """Core, state machine, callers and what waits for the disk, of one replica.

    Attributes:
        core, counters, applier, calls, snapshots: for reading.
        on_role: called with every `RoleChanged`, right after it was carried out.
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
        found = store.recovered
        recovered = Recovered(found.hard_state, found.entries, found.base, found.snapshot)
        self.core = Core(config, recovered, dice, clock.now_ns())
        self.counters = Counters()
        self.applier = Applier(machine, clock, config.digest_every)
        self.calls = Calls()
        self.report = Reporter(observer, self.core)
        self.snapshots = Snapshotter(
            core=self.core,
            config=config,
            store=store,
            transport=transport,
            clock=clock,
            machine=machine,
            applier=self.applier,
            counters=self.counters,
            report=self.report,
            step=self._step,
        )
        self.digester = Digester(
            core=self.core,
            config=config,
            store=store,
            clock=clock,
            machine=machine,
            applier=self.applier,
            snapshots=self.snapshots,
            report=self.report,
            step=self._step,
        )
        self.on_role: list[Callable[[RoleChanged], None]] = []
        self._store = store
        self._transport = transport
        self._clock = clock
        self._outflow = Outflow(store)
        self._inbox: deque[tuple[str, str, Message]] = deque()
        self._proposals: deque[Proposal] = deque()
        self._reads: list[int] = []
        self._late_until_ns = 0
        self._do: dict[type, Callable[[Any], None]] = {
            Persist: self._outflow.persist,
            Send: self._do_send,
            Apply: self.applier.add,
            ProposalAppended: self._do_proposal_appended,
            ProposalRefused: self._do_refused,
            ReadReady: self._do_read_ready,
            ReadRefused: self._do_refused,
            HandedOver: self._do_handed_over,
            HandOverRefused: self._do_refused,
            RoleChanged: self._do_role,
            Reconfigured: self.report.configuration,
            VoteCast: self.report.vote,
            Appended: self.report.appended,
            Committed: self.report.committed,
            SendChunk: self.snapshots.send_chunk,
            TakeChunk: self.snapshots.take_chunk,
            Restore: self._do_restore,
            TakeSnapshot: self.snapshots.want,
            TakeDigest: self.digester.take,
            Diverged: self.digester.diverged,
            Split: self.digester.split,
            Installed: self.snapshots.installed,
        }
        self.snapshots.recover()
        self.digester.recover()

    # -- what comes in ---------------------------------------------------------------------------

    def take_message(self, sender: str, store: str, message: Message) -> None:
        """A message from the process of `sender` that runs on `store`; dropped when too many wait."""
        if len(self._inbox) >= INBOX_MAX:
            self.counters.received_dropped += 1
        else:
            self._inbox.append((sender, store, message))

    def check_proposal(self, data: bytes) -> None:
        """Raises Overloaded when too many wait, or this one is too large."""
        if len(data) > ENTRY_BYTES_MAX:
            raise Overloaded(f"a proposal of {len(data)} bytes is too large", hint=f"at most {ENTRY_BYTES_MAX} bytes")
        if len(self._proposals) >= PROPOSALS_WAITING_MAX:
            raise Overloaded("too many proposals wait", hint="ask again after a pause")

    def take_proposal(self, proposal: Proposal) -> None:
        """A proposal for the next turn."""
        self._proposals.append(proposal)

    def take_read(self, call_id: int) -> None:
        """A read for the next turn."""
        self._reads.append(call_id)

    def hand_over(self, call_id: int, to: str | None) -> None:
        """Hand leadership over; the caller is answered with who leads then."""
        self._step(HandOver(self._clock.now_ns(), call_id, to))

    def unstepped(self) -> list[int]:
        """Ids of the proposals that the core has not seen: they certainly did not happen."""
        return [proposal.id for proposal in self._proposals]

    # -- turns -----------------------------------------------------------------------------------

    @property
    def unfinished(self) -> bool:
        """Whether another turn has work at once."""
        return bool(self._inbox or self._proposals or self._reads or self.applier.waiting)

    @property
    def deadline_ns(self) -> int:
        """When `tick` should be called."""
        return max(self.core.next_deadline_ns(), self._late_until_ns)

    def turn(self) -> None:
        """Step what waits: messages while time lasts, then one batch of proposals and all reads."""
        self._step_messages(self._clock.now_ns() + TURN_NS)
        if self._proposals:
            self._step_proposals()
        if self._reads:
            reads, self._reads = self._reads, []
            self._step(ReadRequested(self._clock.now_ns(), tuple(reads)))

    def tick(self) -> None:
        """The deadline may have come.  If it is long past, peers are heard first: the loop was held, or we paused."""
        now_ns, due_ns = self._clock.now_ns(), self.core.next_deadline_ns()
        if now_ns - due_ns > _LATE_NS and not self._late_until_ns:
            self._late_until_ns = now_ns + _PAUSE_NS
            return
        if now_ns < self._late_until_ns:
            return
        self._late_until_ns = 0
        self._step_messages(now_ns + TURN_NS)
        now_ns = self._clock.now_ns()
        if now_ns >= self.core.next_deadline_ns():
            self._step(Tick(now_ns))

    def written(self, written: Written) -> None:
        """A write ended; raises its error."""
        self.report.disk(written)
        if written.error is not None:
            raise written.error
        self.counters.writes.observe(written.duration_ns)
        self.counters.written_bytes += written.size_bytes
        self._outflow.written(written.write)
        self._step(Persisted(self._clock.now_ns(), written.write, written.last_term, written.last_index))
        for effect in self._outflow.released():
            self._transport.send(effect.to, effect.message)

    def next_batch(self) -> Batch | None:
        """The next write, None while one is in flight or nothing waits; it must be answered by `written`."""
        return self._outflow.begin()

    def settle(self, started_ns: int) -> None:
        """Apply what was committed, at least one slice, until the turn that began at `started_ns` is over."""
        while self.applier.waiting:
            entries, results = self.applier.slice()
            for entry, result in zip(entries, results, strict=True):
                self.calls.applied_entry(entry.term, entry.index, result)
            self.counters.applied += len(entries)
            self.report.applied(entries)
            self._step(ApplyDone(self._clock.now_ns(), self.applier.index))
            self.digester.consider()
            self.calls.applied_upto(self.digester.usable_index)
            if self._clock.now_ns() - started_ns >= TURN_NS:
                break
        self.snapshots.consider()
        self.digester.consider()
        self.calls.applied_upto(self.digester.usable_index)

    def jobs(self) -> list[Job]:
        """Work with the state for other threads; each job must come back to `job_done`."""
        return self.snapshots.jobs() + self.digester.jobs()

    def job_done(self, job: Job) -> None:
        """A job ended; raises what must end the replica."""
        self.snapshots.done(job)

    def _step(self, event: Event) -> None:
        self.counters.steps += 1
        do = self._do
        for effect in self.core.step(event):
            do[type(effect)](effect)

    def _step_messages(self, until_ns: int) -> None:
        inbox = self._inbox
        while inbox:
            now_ns = self._clock.now_ns()
            if now_ns >= until_ns:
                return
            sender, store, message = inbox.popleft()
            self.counters.received += 1
            if type(message) is Append and self._store.full:
                message = self._outflow.without_room(message)
            try:
                self._step(Received(now_ns, sender, message, store))
            except ProtocolViolation as violation:
                self.counters.received_dropped += 1
                self.report.violation(sender, message, violation)

    def _step_proposals(self) -> None:
        waiting = self._proposals
        batch = tuple([waiting.popleft() for _ in range(min(PROPOSALS_PER_STEP, len(waiting)))])
        self.counters.proposed += len(batch)
        if self._store.full and not self._outflow.has_room(
            sum(len(one.data) + PROPOSAL_OVERHEAD_BYTES for one in batch)
        ):
            for proposal in batch:
                self._do_refused(ProposalRefused(proposal.id, "disk-full", self.core.leader))
            return
        self._step(Proposed(self._clock.now_ns(), batch))

    # -- effects ---------------------------------------------------------------------------------

    def _do_send(self, effect: Send) -> None:
        if not self._outflow.hold(effect):
            self._transport.send(effect.to, effect.message)

    def _do_proposal_appended(self, effect: ProposalAppended) -> None:
        self.calls.appended(effect.id, effect.term, effect.index)

    def _do_handed_over(self, effect: HandedOver) -> None:
        self.report.note(f"leadership was handed over to {effect.leader}")
        self.calls.done(effect.id, effect.leader)

    def _do_refused(self, effect: ProposalRefused | ReadRefused | HandOverRefused) -> None:
        self.counters.refused += 1
        self.calls.fail(effect.id, refusal(effect.code, effect.leader))

    def _do_read_ready(self, effect: ReadReady) -> None:
        self.calls.wait_applied(effect.id, effect.index)
        self.calls.applied_upto(self.digester.usable_index)

    def _do_restore(self, effect: Restore) -> None:
        self.snapshots.restore(effect)
        self.digester.restored()
        self.calls.skipped(effect.snapshot.index)
        self.calls.applied_upto(self.digester.usable_index)

    def _do_role(self, effect: RoleChanged) -> None:
        self.counters.elections += effect.role is Role.LEADER
        self.report.role(effect)
        for callback in self.on_role:
            callback(effect)
