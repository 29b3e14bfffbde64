"""What the sandboxer decides, and nothing it does.

Owns: the life of every attempt, fencing by epochs and by the lease, idempotence of starts, stop with
grace then kill, why an attempt ended, and the order of journal and deed.
Must not know: processes, cgroups, sockets, files, clocks (times come in as numbers).

    PENDING ──journal durable──> SPAWNED ──exec──> RUNNING ──stop──> STOPPING
       │ stop / journal failed      │ failed           │ main exits      │ main exits,
       v                            v                  v                 v grace over: kill
    EXITED <────────────── group empty ───────────── DRAINING <──────────┘
       └─forget─> gone

Rules, each with what it protects:

1. A start needs an epoch above the allocation's floor; accepting it raises the floor, so does a
   stop: an attempt runs at most once here, and never after its stop (fencing, DESIGN.md §6).
2. Nothing is spawned before its intent is durable; stops and fences never wait for the disk.
3. An exit is announced only when no process of the attempt is left, since capacity is freed by it;
   its cgroup is removed only when the exit is durable, so that a crash in between loses no status.
4. An unknown status stays unknown; no code is ever invented.
5. A `stop` workload is let through to its program only under the lease it was asked for, and is ended
   from that lease's deadline on, by SIGTERM, and SIGKILL at deadline + grace, whoever else is alive.
"""

from __future__ import annotations

from typing import Any, Final

from agents.sandboxer import events as ev
from agents.sandboxer import fence, terms
from agents.sandboxer.attempt import Attempt, State, card_fields, conclude, exit_fields, record_of
from agents.sandboxer.fence import Lease
from agents.sandboxer.spec import STOP, Key

MS_NS: Final = 1_000_000
KILL_REPEAT_NS: Final = 1_000 * MS_NS
EXITED_MAX: Final = 4096
"""Exited records kept for an agent that forgets none; the oldest go first."""


class Core:
    """All attempts of a node.  `step` takes one event and returns the effects, in order."""

    def __init__(self, memory: ev.Memory, now_ns: int) -> None:
        self._floors = dict(memory.floors)
        self._attempts: dict[Key, Attempt] = {}
        self._past: dict[Key, Attempt] = {}
        """Exited and released: kept apart, so that a step's cost does not grow with them."""
        self._sequence = 0
        self._journal_sequence = 0
        self._durable = 0
        self._journal_error = ""
        self._shutdown: list[ev.Caller] | None = None
        self._finished = False
        self._lease = memory.lease
        self._lease_over = True
        """The end of `_lease` is past and was acted upon."""
        self._born = [effect for survivor in memory.survivors for effect in self._restore(survivor, now_ns)]
        self._born += self._begin_lease(now_ns)

    # -- views ------------------------------------------------------------------------------------

    @property
    def sequence(self) -> int:
        """Sequence of the last announcement."""
        return self._sequence

    def birth_effects(self) -> list[ev.Effect]:
        """Effects of what was found at the start; carry them out once, before any event."""
        born, self._born = self._born, []
        return born

    def next_deadline_ns(self) -> int | None:
        """When to send the next `Tick`; None = no deadline."""
        deadlines = [a.deadline_ns for a in self._attempts.values() if a.deadline_ns is not None]
        if not self._lease_over:
            deadlines.append(self._lease.deadline_ns)
        return min(deadlines, default=None)

    @property
    def lease(self) -> Lease:
        """The node's lease, as far as it is known here."""
        return self._lease

    def records(self) -> list[dict[str, Any]]:
        """Every attempt, as clients see it (without the paths, which are not the core's)."""
        return [record_of(attempt) for attempt in (*self._past.values(), *self._attempts.values())]

    def live(self) -> list[Key]:
        """Attempts that have or may have processes."""
        return [key for key, a in self._attempts.items() if a.state is not State.EXITED]

    def floor(self, allocation: str) -> int:
        """Highest epoch of `allocation` that must not start (again)."""
        return self._floors.get(allocation, 0)

    # -- stepping ---------------------------------------------------------------------------------

    def step(self, event: ev.Event, now_ns: int) -> list[ev.Effect]:
        """Take one event; `now_ns` on a clock that never goes back."""
        match event:
            case ev.StartAsked():
                effects = self._start(event, now_ns)
            case ev.RenewAsked():
                effects = self._renew(event, now_ns)
            case ev.StopAsked():
                effects = self._stop(event, now_ns)
            case ev.ForgetAsked():
                effects = self._forget(event)
            case ev.ShutdownAsked():
                effects = self._begin_shutdown(event, now_ns)
            case ev.Journaled():
                effects = self._journaled(event.sequence, now_ns)
            case ev.JournalFailed():
                effects = self._journal_failed(event.why)
            case ev.JournalRecovered():
                self._journal_error = ""
                effects = []
            case ev.Tick():
                effects = self._tick(now_ns)
            case _:
                effects = self._about_one(event, now_ns)
        return effects + self._finish_if_done()

    def _about_one(
        self,
        event: (
            ev.Spawned | ev.Executed | ev.StartFailed | ev.StartBarred | ev.MainExited | ev.OomSeen | ev.GroupEmpty
        ),
        now_ns: int,
    ) -> list[ev.Effect]:
        attempt = self._attempts.get(event.key)
        if attempt is None or attempt.state is State.EXITED:
            return []
        match event:
            case ev.Spawned():
                attempt.pid, attempt.unix_ms = event.pid, event.unix_ms
                return []
            case ev.Executed():
                return self._executed(attempt)
            case ev.StartFailed():
                return self._start_failed(attempt, event.why, now_ns)
            case ev.StartBarred():
                attempt.fenced = not attempt.stop_ordered
                return self._drain(attempt, now_ns)
            case ev.MainExited():
                attempt.oom_kills = max(attempt.oom_kills, event.oom_kills)
                return self._main_exited(attempt, event.status, now_ns)
            case ev.OomSeen():
                return self._oom(attempt, event.oom_kills, now_ns)
            case ev.GroupEmpty():
                return self._ended(attempt)

    # -- starting ---------------------------------------------------------------------------------

    def _start(self, event: ev.StartAsked, now_ns: int) -> list[ev.Effect]:
        card = event.spec.card
        known = self._find(card.key)
        if known is not None:
            return self._start_again(event, known)
        refusal = self._refusal(event, now_ns)
        if refusal is not None:
            return [refusal]
        attempt = Attempt(card, State.PENDING, spec=event.spec, floor_before=self.floor(card.allocation))
        attempt.waiting.append(event.caller)
        self._attempts[card.key] = attempt
        self._floors[card.allocation] = card.epoch
        intent = self._journal({"k": "intent", **card_fields(card)})
        attempt.intent = intent.sequence
        return [intent]

    def _start_again(self, event: ev.StartAsked, known: Attempt) -> list[ev.Effect]:
        if known.card.digest != event.spec.card.digest:
            message = f"{known.card.allocation} epoch {known.card.epoch} was asked for with another specification"
            return [ev.Refuse(event.caller, terms.SPEC_CHANGED, message, "a changed job needs a new epoch", False)]
        if known.state in (State.PENDING, State.SPAWNED):
            known.waiting.append(event.caller)
            return []
        return [ev.Reply(event.caller, {"record": record_of(known)})]

    def _refusal(self, event: ev.StartAsked, now_ns: int) -> ev.Refuse | None:
        card, caller = event.spec.card, event.caller
        if self._shutdown is not None:
            return ev.Refuse(caller, terms.SHUTTING_DOWN, "the sandboxer is ending", "connect again", True)
        floor = self.floor(card.allocation)
        if card.epoch <= floor:
            message = f"epoch {card.epoch} of {card.allocation} is fenced: {floor} was seen"
            return ev.Refuse(caller, terms.STALE_EPOCH, message, "ask for the current desired state", False)
        if any(a.card.allocation == card.allocation and a.state is not State.EXITED for a in self._attempts.values()):
            message = f"an older attempt of {card.allocation} still runs"
            return ev.Refuse(caller, terms.EPOCH_BUSY, message, "stop it, and start after its exit", True)
        if not fence.may_run(self._lease, card.on_disconnect, event.registration, now_ns):
            message = f"{card.allocation} starts only under a lease of registration {event.registration}"
            return ev.Refuse(caller, terms.NO_LEASE, message, "ask again once the lease is confirmed", True)
        if self._journal_error:
            message = f"the journal cannot be written: {self._journal_error}"
            return ev.Refuse(caller, terms.JOURNAL_FAILED, message, "free or repair the node's disk", True)
        return None

    def _journaled(self, sequence: int, now_ns: int) -> list[ev.Effect]:
        self._durable = max(self._durable, sequence)
        effects = self._lease_runs_out(now_ns)
        for attempt in self._attempts.values():
            if attempt.state is State.PENDING and attempt.intent <= self._durable:
                assert attempt.spec is not None, "a pending attempt has its specification"
                attempt.state = State.SPAWNED
                effects.append(ev.Spawn(attempt.spec))
        return effects + self._release_recorded()

    def _journal_failed(self, why: str) -> list[ev.Effect]:
        self._journal_error = why
        effects: list[ev.Effect] = []
        for key, attempt in list(self._attempts.items()):
            if attempt.state is not State.PENDING:
                continue
            del self._attempts[key]
            if self._floors.get(attempt.card.allocation) == attempt.card.epoch:
                self._floors[attempt.card.allocation] = attempt.floor_before
            message = f"the journal cannot be written: {why}"
            for caller in attempt.waiting:
                effects.append(ev.Refuse(caller, terms.JOURNAL_FAILED, message, "free or repair the disk", True))
        return effects + self._release_recorded()

    def _executed(self, attempt: Attempt) -> list[ev.Effect]:
        if attempt.state is not State.SPAWNED:
            return []
        attempt.state = State.STOPPING if attempt.stop_ordered else State.RUNNING
        card = attempt.card
        started = self._journal({"k": "started", "a": card.allocation, "e": card.epoch, "p": attempt.pid})
        return [started, self._announce("started", attempt), *self._answer_waiting(attempt)]

    def _start_failed(self, attempt: Attempt, why: str, now_ns: int) -> list[ev.Effect]:
        attempt.failure = attempt.failure or why
        return self._drain(attempt, now_ns)

    def _answer_waiting(self, attempt: Attempt) -> list[ev.Effect]:
        callers, attempt.waiting = attempt.waiting, []
        return [ev.Reply(caller, {"record": record_of(attempt)}) for caller in callers]

    # -- stopping ---------------------------------------------------------------------------------

    def _stop(self, event: ev.StopAsked, now_ns: int) -> list[ev.Effect]:
        effects = self._fence(event.allocation, event.epoch)
        newest: Attempt | None = None
        for attempt in (*self._past.values(), *self._attempts.values()):
            if attempt.card.allocation == event.allocation and attempt.card.epoch <= event.epoch:
                grace_ms = attempt.card.grace_ms if event.grace_ms is None else event.grace_ms
                effects += self._order_stop(attempt, grace_ms, now_ns)
                newest = attempt if newest is None or attempt.card.epoch > newest.card.epoch else newest
        effects.append(ev.Reply(event.caller, {"record": None if newest is None else record_of(newest)}))
        return effects

    def _fence(self, allocation: str, epoch: int) -> list[ev.Effect]:
        """Raise the floor, also the one that comes back if a pending start is refused after all."""
        raised = epoch > self.floor(allocation)
        if raised:
            self._floors[allocation] = epoch
        for attempt in self._attempts.values():
            pending = attempt.state is State.PENDING and attempt.card.allocation == allocation
            if pending and epoch > attempt.floor_before:
                attempt.floor_before, raised = epoch, True
        return [self._journal({"k": "fence", "a": allocation, "e": epoch})] if raised else []

    def _order_stop(self, attempt: Attempt, grace_ms: int, now_ns: int) -> list[ev.Effect]:
        if attempt.state is State.EXITED or attempt.state is State.DRAINING:
            return []
        first, attempt.stop_ordered = not attempt.stop_ordered, True
        if attempt.state is State.PENDING:
            return self._ended(attempt)
        effects: list[ev.Effect] = []
        if first:
            card = attempt.card
            effects.append(self._journal({"k": "stop", "a": card.allocation, "e": card.epoch}))
            if attempt.state is State.RUNNING:
                attempt.state = State.STOPPING
            effects.append(self._announce("stopping", attempt))
        deadline = now_ns + grace_ms * MS_NS
        if not attempt.killed:
            attempt.deadline_ns = deadline if attempt.deadline_ns is None else min(attempt.deadline_ns, deadline)
            if grace_ms == 0:
                effects += self._kill(attempt, now_ns)
            elif first:
                effects.append(ev.Terminate(attempt.card.key))
        return effects

    def _kill(self, attempt: Attempt, now_ns: int) -> list[ev.Effect]:
        attempt.killed = True
        attempt.deadline_ns = now_ns + KILL_REPEAT_NS
        return [ev.Kill(attempt.card.key)]

    def _tick(self, now_ns: int) -> list[ev.Effect]:
        effects = self._lease_runs_out(now_ns)
        for attempt in self._attempts.values():
            if attempt.deadline_ns is not None and attempt.deadline_ns <= now_ns:
                effects += self._kill(attempt, now_ns)
        return effects

    # -- the lease --------------------------------------------------------------------------------

    def _renew(self, event: ev.RenewAsked, now_ns: int) -> list[ev.Effect]:
        """A late renewal does not undo an end that was due: what had to stop by then stops."""
        effects = self._lease_runs_out(now_ns)
        renewed = self._lease.renewed(event.deadline_ns, event.registration)
        if renewed != self._lease:
            self._lease = renewed
            effects.append(ev.KeepLease(renewed))
            self._lease_over = self._lease_over and not renewed.lasts(now_ns)
        return [*effects, ev.Reply(event.caller, {})]

    def _begin_lease(self, now_ns: int) -> list[ev.Effect]:
        """What was found again ends at the deadline that was kept, or now if none was."""
        self._lease_over = False
        return self._lease_runs_out(now_ns)

    def _lease_runs_out(self, now_ns: int) -> list[ev.Effect]:
        """At the deadline: end every `stop` workload, cancel every start of one."""
        if self._lease_over or self._lease.lasts(now_ns):
            return []
        self._lease_over = True
        effects: list[ev.Effect] = []
        fenced = 0
        for attempt in list(self._attempts.values()):
            if attempt.card.on_disconnect == STOP and attempt.state not in (State.EXITED, State.DRAINING):
                fenced += 1
                effects += self._fence_by_lease(attempt, now_ns)
        if fenced or self._lease.deadline_ns:
            effects.insert(0, ev.LeaseOver(self._lease.deadline_ns, fenced))
        return effects

    def _fence_by_lease(self, attempt: Attempt, now_ns: int) -> list[ev.Effect]:
        attempt.fenced = not attempt.stop_ordered
        kill_ns = self._lease.deadline_ns + attempt.card.grace_ms * MS_NS
        left_ms = max(0, kill_ns - now_ns) // MS_NS
        told = ev.Fenced(record_of(attempt), self._lease.deadline_ns)
        return [told, *self._order_stop(attempt, left_ms, now_ns)]

    # -- ending -----------------------------------------------------------------------------------

    def _oom(self, attempt: Attempt, oom_kills: int, now_ns: int) -> list[ev.Effect]:
        if oom_kills <= attempt.oom_kills:
            return []
        first, attempt.oom_kills = attempt.oom_kills == 0, oom_kills
        effects: list[ev.Effect] = [self._announce("oom", attempt)] if first else []
        if attempt.state is State.DRAINING:
            return effects
        # The kernel chose one process; the workload ends as a whole, as memory.oom.group does on v2.
        return effects + self._kill(attempt, now_ns)

    def _main_exited(self, attempt: Attempt, status: ev.Status, now_ns: int) -> list[ev.Effect]:
        if attempt.status is None:
            attempt.status = status
        return self._drain(attempt, now_ns)

    def _drain(self, attempt: Attempt, now_ns: int) -> list[ev.Effect]:
        """The main process is gone: so is the rest, soon."""
        if attempt.state is State.DRAINING:
            return []
        attempt.state = State.DRAINING
        attempt.deadline_ns = now_ns + KILL_REPEAT_NS
        attempt.reason = conclude(attempt)
        return [ev.Kill(attempt.card.key)]

    def _ended(self, attempt: Attempt) -> list[ev.Effect]:
        if attempt.state is not State.DRAINING:
            attempt.reason = conclude(attempt)
        attempt.state = State.EXITED
        attempt.deadline_ns = None
        attempt.spec = None
        announced = self._announce("exited", attempt)
        exited = self._journal(
            {
                "k": "exited",
                **card_fields(attempt.card),
                "p": attempt.pid,
                "t": attempt.unix_ms,
                "o": attempt.oom_kills,
                "x": exit_fields(attempt),
            }
        )
        attempt.exit_record = exited.sequence
        effects = [exited, announced, *self._answer_waiting(attempt)]
        return effects + (self._release_recorded() if self._journal_error else [])

    def _release_recorded(self) -> list[ev.Effect]:
        effects: list[ev.Effect] = []
        for key, attempt in list(self._attempts.items()):
            due = attempt.exit_record <= self._durable or self._journal_error
            if attempt.state is State.EXITED and not attempt.released and due:
                attempt.released = True
                self._past[key] = self._attempts.pop(key)
                effects.append(ev.Release(key))
                if attempt.forgotten:
                    effects += self._drop(attempt)
        return effects + self._trim()

    def _forget(self, event: ev.ForgetAsked) -> list[ev.Effect]:
        key = (event.allocation, event.epoch)
        attempt = self._find(key)
        if attempt is None:
            return [ev.Reply(event.caller, {})]
        if attempt.state is not State.EXITED:
            message = f"{event.allocation} epoch {event.epoch} has not exited"
            return [ev.Refuse(event.caller, terms.NOT_EXITED, message, "stop it first", False)]
        attempt.forgotten = True
        return [*(self._drop(attempt) if attempt.released else []), ev.Reply(event.caller, {})]

    def _drop(self, attempt: Attempt) -> list[ev.Effect]:
        card = attempt.card
        del self._past[card.key]
        return [self._journal({"k": "forget", "a": card.allocation, "e": card.epoch}), ev.Discard(card.key)]

    def _trim(self) -> list[ev.Effect]:
        surplus = list(self._past.values())[: max(0, len(self._past) - EXITED_MAX)]
        return [effect for attempt in surplus for effect in self._drop(attempt)]

    def _find(self, key: Key) -> Attempt | None:
        return self._attempts.get(key) or self._past.get(key)

    # -- shutting down ----------------------------------------------------------------------------

    def _begin_shutdown(self, event: ev.ShutdownAsked, now_ns: int) -> list[ev.Effect]:
        callers = [] if event.caller is None else [event.caller]
        if not event.stop_workloads:
            self._finished = True
            return [ev.Finish(False, tuple(callers))]
        effects: list[ev.Effect] = []
        self._shutdown = [*(self._shutdown or []), *callers]
        for attempt in list(self._attempts.values()):
            effects += self._order_stop(attempt, attempt.card.grace_ms, now_ns)
        return effects

    def _finish_if_done(self) -> list[ev.Effect]:
        if self._shutdown is None or self._finished or self.live():
            return []
        if not self._journal_error and self._journal_sequence > self._durable:
            return []
        self._finished = True
        return [ev.Finish(True, tuple(self._shutdown))]

    # -- small --------------------------------------------------------------------------------------

    def _restore(self, survivor: ev.Survivor, now_ns: int) -> list[ev.Effect]:
        card = survivor.card
        attempt = Attempt(card, State.RUNNING, pid=survivor.pid, unix_ms=survivor.unix_ms, adopted=True)
        attempt.oom_kills = survivor.oom_kills
        attempt.stop_ordered = survivor.stop_ordered
        self._attempts[card.key] = attempt
        self._floors[card.allocation] = max(self.floor(card.allocation), card.epoch)
        if survivor.status is None:
            effects: list[ev.Effect] = [self._announce("adopted", attempt)]
            if survivor.stop_ordered:  # a stop that its sandboxer did not live to finish
                attempt.stop_ordered = False
                effects += self._order_stop(attempt, card.grace_ms, now_ns)
            return effects
        attempt.status = survivor.status
        if survivor.reason == "start-failed":
            attempt.failure = survivor.status.detail or "it was never started"
        if survivor.recorded:
            attempt.state, attempt.reason = State.EXITED, survivor.reason
            attempt.released = True
            self._past[card.key] = self._attempts.pop(card.key)
            self._sequence += 1
            attempt.sequence = self._sequence
            return [ev.Release(card.key)]
        return self._drain(attempt, now_ns)

    def _journal(self, record: dict[str, Any]) -> ev.Journal:
        self._journal_sequence += 1
        return ev.Journal(self._journal_sequence, record)

    def _announce(self, kind: str, attempt: Attempt) -> ev.Announce:
        self._sequence += 1
        attempt.sequence = self._sequence
        return ev.Announce(kind, self._sequence, record_of(attempt))
