"""Digests of the own state, and giving the state up when they say that it is wrong.

Owns: when the state is frozen for a digest, hashing as a job, and the order in which a state is given up: applying and
snapshots end, the store is told, the core asks for another.  Must not know: who judges (digests), threads, files.

A state that was given up stays unusable until the one that took its place has applied as much: who reads it never
sees it go back.
"""

from __future__ import annotations

from collections.abc import Callable

from raft.apply import Applier
from raft.core import Core, CoreConfig
from raft.effects import Diverged, Split, TakeDigest
from raft.events import Digested, Event, StateDropped
from raft.lanes import Job, LaneName
from raft.observe import Reporter
from raft.protocols import Clock, StateMachine
from raft.snapshotter import Snapshotter
from raft.status import Standing
from raft.store.log_store import LogStore

WORKING_MAX = 2
"""Frozen states that may wait to be hashed; what is applied beyond that meanwhile is passed over."""


class Digester:
    """Between the core's judgement and the state machine of one replica.

    Attributes:
        on_standing: called when `standing` changed.
    """

    def __init__(
        self,
        *,
        core: Core,
        config: CoreConfig,
        store: LogStore,
        clock: Clock,
        machine: StateMachine,
        applier: Applier,
        snapshots: Snapshotter,
        report: Reporter,
        step: Callable[[Event], None],
    ) -> None:
        self._core = core
        self._every = config.digest_every
        self._store = store
        self._clock = clock
        self._machine = machine
        self._applier = applier
        self._snapshots = snapshots
        self._report = report
        self._step = step
        self._jobs: list[Job] = []
        self._working = 0
        self._generation = 0
        self._begun = 0
        self._given_up = False
        self._unusable_until: int | None = None
        self._told = Standing.OK
        self.on_standing: list[Callable[[], None]] = []

    @property
    def standing(self) -> Standing:
        """Whether the state may be used, and the log added to."""
        if self._unusable_until is not None:
            return Standing.DIVERGED
        return Standing.SPLIT if self._core.split else Standing.OK

    @property
    def usable_index(self) -> int:
        """Up to where the state may be read; 0 while it may not be read at all."""
        return self._applier.index if self._unusable_until is None else 0

    def recover(self) -> None:
        """A state that was given up before the process ended, and not replaced, is still worth nothing."""
        if self._store.diverged:
            self._hold()

    def jobs(self) -> list[Job]:
        """What is to be run now; each job must come back to `done`."""
        jobs, self._jobs = self._jobs, []
        return jobs

    # -- digests -----------------------------------------------------------------------------------

    def consider(self) -> None:
        """Called between two applications: freeze the state if a digest is due, go on with what was begun."""
        index = self._applier.index
        if index % self._every == 0:
            self._begin(index)
        if self._unusable_until is None:
            return
        if self._given_up:
            if self._snapshots.idle:
                self._given_up = False
                self._step(StateDropped(self._clock.now_ns()))
        elif not self._applier.held and index >= self._unusable_until:
            self._unusable_until = None
            self._changed()

    def take(self, effect: TakeDigest) -> None:
        """A digest beside the regular ones, of what is applied now."""
        if effect.index == self._applier.index:
            self._begin(effect.index)

    def _begin(self, index: int) -> None:
        if index in (0, self._begun) or self._applier.held or self._working >= WORKING_MAX:
            return
        self._begun = index
        self._working += 1
        generation, frozen = self._generation, self._machine.freeze()

        def hashed(job: Job) -> None:
            self._working -= 1
            frozen.release()
            if job.error is not None:
                raise job.error
            if generation == self._generation:
                self._report.digest(index, job.result)
                self._step(Digested(self._clock.now_ns(), index, job.result))

        self._jobs.append(Job(LaneName.DIGEST, frozen.digest, hashed))

    # -- a state that is wrong -----------------------------------------------------------------------

    def diverged(self, effect: Diverged) -> None:
        """A majority has another state: this one is applied to, frozen and served no more."""
        self._report.diverged(effect)
        self._hold()
        self._mark(diverged=True)

    def split(self, effect: Split) -> None:
        """Nobody knows whose state is right, or that is over."""
        self._report.split(effect)
        self._changed()

    def restored(self) -> None:
        """The state machine has another state."""
        self._generation += 1
        self._begun = 0
        self._given_up = False
        if self._unusable_until is not None:
            self._snapshots.held = False
            self._mark(diverged=False)

    def _hold(self) -> None:
        self._applier.hold()
        self._snapshots.held = True
        self._given_up, self._unusable_until = True, self._applier.index
        self._generation += 1
        self._changed()

    def _mark(self, *, diverged: bool) -> None:
        """Have a restart know that the state is worth nothing, or that it is again."""
        self._jobs.append(Job(LaneName.OWN, lambda: self._store.mark_diverged(diverged), _must))

    def _changed(self) -> None:
        if self.standing is self._told:
            return
        self._told = self.standing
        for callback in self.on_standing:
            callback()


def _must(job: Job) -> None:
    if job.error is not None:
        raise job.error
