"""What the node shall do, from what the cluster wants and what the sandboxer saw.

Owns: the comparison of the desired set with the workloads of this node, as a pure state machine:
methods take what happened and return actions, in order.
Must not know: sockets, processes, files, time.

The rules (DESIGN.md §8), each of which a test tries to break:

1. *Lower is ignored.*  A `Desired` below the highest (generation, index) seen changes nothing.
2. *Absence never stops anything.*  Only a `StopOrder` of exactly (allocation, epoch) does.
3. *An epoch runs once.*  What was started, stopped or has ended here under an epoch is never
   started again under it, however often or late an assignment repeats it.
4. *One attempt of an allocation at a time.*  A newer epoch waits until the older one has ended.
5. *What runs here but is in no set is reported*, and left alone until the cluster has answered.
6. *What the cluster is unsure of is told again*, as often as it asks: it had given this node up.
"""

from __future__ import annotations

from collections.abc import Iterable

from msgspec import Struct, structs

from scheduler.commands import AllocationStatus
from scheduler.model import Exit, ExitReason
from scheduler.session import Assignment, Desired, StopOrder

Key = tuple[str, int]
"""(allocation, epoch): one attempt; the epoch is its fencing token."""

STARTING = "starting"
RUNNING = "running"
EXITED = "exited"

ENDED_KEPT = 256
"""Ended attempts whose record and output the sandboxer keeps after the commit, for `logs`."""

NOT_FOUND = "the sandboxer no longer finds it"
NEVER_STARTED = "never started"


class StartWorkload(Struct, frozen=True):
    """Hand the assignment to the sandboxer, with the generation and registration of the set it is from."""

    assignment: Assignment
    generation: int = 0
    registration: int = 0


class StopWorkload(Struct, frozen=True):
    """Have the sandboxer end this attempt, or fence it if it never began."""

    allocation: str
    epoch: int


class ForgetWorkload(Struct, frozen=True):
    """The exit was committed a while ago: the sandboxer may drop its record and output."""

    allocation: str
    epoch: int


class Report(Struct, frozen=True):
    """Tell the cluster."""

    status: AllocationStatus


Action = StartWorkload | StopWorkload | ForgetWorkload | Report


def stops_of(wanted: Desired, live: tuple[Key, ...]) -> dict[Key, StopOrder]:
    """What a set orders to stop: its stop records and nothing else; what is `live` here never matters (rule 2)."""
    return {(order.allocation, order.epoch): order for order in wanted.stops}


def _better_known(status: AllocationStatus, before: AllocationStatus | None) -> AllocationStatus:
    """How an attempt ended, as it was seen by a sandboxer that did not live to write it down."""
    seen = before.exit if before is not None and before.state == EXITED else None
    unknown = status.exit is not None and not status.exit.status_known
    return structs.replace(status, exit=seen) if unknown and seen is not None and seen.status_known else status


class Reconciler:
    """The node's side of level-triggered placement.

    Records are `AllocationStatus` whose state is starting, running or exited; only the last two are
    reported, once each.

    Invariants: `_seen` never goes down; a key in `_fenced` or `_settled` is never started;
    `_records` holds the highest sequence seen of each attempt; `_sequence` is at least every
    sequence the sandboxer ever gave, so that what is concluded here is never ignored as old.
    """

    def __init__(self) -> None:
        self._seen: tuple[int, int] = (-1, -1)
        self._partial = False
        self._assignments: dict[Key, Assignment] = {}
        self._stops: dict[Key, StopOrder] = {}
        self._records: dict[Key, AllocationStatus] = {}
        self._starting: dict[Key, None] = {}
        self._fenced: dict[Key, None] = {}
        self._settled: dict[Key, int] = {}
        self._kept: dict[Key, None] = {}
        self._newest: dict[str, int] = {}
        self._sequence = 0
        self._registration = 0
        self._grace_s: dict[Key, int] = {}

    @property
    def known_index(self) -> int:
        """The highest `Desired.index` seen, 0 before the first."""
        return max(self._seen[1], 0)

    def live(self) -> tuple[Key, ...]:
        """Attempts that live here or have been ordered to start, sorted."""
        records = [key for key, record in self._records.items() if record.state != EXITED]
        return tuple(sorted([*records, *self._starting]))

    def live_epochs(self, allocation: str) -> tuple[int, ...]:
        """Epochs of the attempts of `allocation` that live or are assigned and still to start."""
        waiting = [key for key in self._assignments if key not in self._records and key not in self._settled]
        return tuple(epoch for name, epoch in (*self.live(), *waiting) if name == allocation)

    def grace_s(self, allocation: str, epoch: int) -> int | None:
        """The stop grace of an attempt whose assignment is known, None for others."""
        return self._grace_s.get((allocation, epoch))

    def desired(self, wanted: Desired) -> tuple[Action, ...]:
        """Take a set, or the next part of one, from the cluster; returns what to do, nothing if it is old (rule 1).

        What a part does not name may be in the next: until the last has come nothing is told to be unknown, and no
        attempt that ended is forgotten.
        """
        stamp = (wanted.generation, wanted.index)
        if stamp < self._seen:
            return ()
        earlier = self._assignments if self._partial and stamp == self._seen else {}
        self._seen, self._partial = stamp, wanted.more
        self._assignments = {**earlier, **{(item.allocation, item.epoch): item for item in wanted.assignments}}
        self._stops = stops_of(wanted, self.live())
        for key, item in self._assignments.items():
            self._grace_s[key] = item.workload.grace_s
        self._registration = wanted.registration
        if not self._partial:
            self._prune(wanted.index)
        told = [Report(self._records[key]) for key in wanted.unsure if self._tells(key)]
        return (*told, *self.plan())

    def _tells(self, key: Key) -> bool:
        """Whether there is anything to say of an attempt; what is starting will be told of by itself."""
        record = self._records.get(key)
        return record is not None and record.state != STARTING

    def adopted(self, records: Iterable[AllocationStatus], sequence: int) -> tuple[Action, ...]:
        """Take the sandboxer's whole list, at the start of each connection to it.

        An attempt that lived and is not listed any more is reported lost: the sandboxer reads the
        cgroup tree and its journal, so what it cannot find does not run.  Orders in flight to the
        earlier connection are given again; the sandboxer takes each once.  `sequence` is the last
        one that the sandboxer gave to anything.
        """
        self._sequence = max(self._sequence, sequence)
        before, self._records = self._records, {}
        self._starting = {}
        self._fenced = {key: None for key in self._fenced if key not in self._stops}
        actions: list[Action] = []
        for status in sorted(records, key=lambda record: record.sequence):
            actions.extend(self._observe(_better_known(status, before.get((status.allocation, status.epoch)))))
        for key, status in before.items():
            if key not in self._records:
                gone = status if status.state == EXITED else self._ended(key, ExitReason.LOST, NOT_FOUND, status)
                actions.extend(self._observe(gone))
        return (*actions, *self.plan())

    def observed(self, status: AllocationStatus) -> tuple[Action, ...]:
        """Take one event of the sandboxer; repeated or older ones change nothing."""
        actions = self._observe(status)
        if not actions or status.state != EXITED:
            return actions
        return (*actions, *self.plan())

    def never_started(self, allocation: str, epoch: int) -> tuple[Action, ...]:
        """The sandboxer was told to stop this attempt and never knew it: it is fenced there now."""
        key = (allocation, epoch)
        return self.observed(self._ended(key, ExitReason.STOPPED, NEVER_STARTED, self._records.get(key)))

    def refused(self, allocation: str, epoch: int, why: str, *, retry: bool) -> tuple[Action, ...]:
        """The sandboxer did not start it; with `retry` the next `plan` orders it again, else it has failed."""
        key = (allocation, epoch)
        self._starting.pop(key, None)
        if retry:
            return ()
        reason = ExitReason.STOPPED if key in self._stops else ExitReason.START_FAILED
        return self.observed(self._ended(key, reason, why, self._records.get(key)))

    def committed(self, reports: Iterable[AllocationStatus], index: int) -> tuple[Action, ...]:
        """The cluster holds these reports since `index`; ended attempts may be forgotten."""
        actions: list[Action] = []
        for status in reports:
            key = (status.allocation, status.epoch)
            if status.state != EXITED or key in self._settled:
                continue
            self._records.pop(key, None)
            self._settled[key] = index
            self._kept[key] = None
        while len(self._kept) > ENDED_KEPT:
            oldest = next(iter(self._kept))
            del self._kept[oldest]
            actions.append(ForgetWorkload(*oldest))
        return tuple(actions)

    def unknown(self) -> tuple[Key, ...]:
        """Attempts that run here but are in no set (rule 5), at most those the set could know."""
        if self._partial:
            return ()
        return tuple(
            key
            for key in sorted(self._records)
            if self._records[key].state != EXITED
            and key[1] <= self.known_index
            and key not in self._assignments
            and key not in self._stops
        )

    def _observe(self, status: AllocationStatus) -> tuple[Action, ...]:
        key = (status.allocation, status.epoch)
        before = self._records.get(key)
        if key in self._settled or (before is not None and before.sequence >= status.sequence):
            return ()
        if before is not None and before.state == EXITED:
            return ()
        self._starting.pop(key, None)
        self._sequence = max(self._sequence, status.sequence)
        self._newest[key[0]] = max(self._newest.get(key[0], 0), key[1])
        self._records[key] = status
        told = before is not None and before.state == status.state
        return () if told or status.state == STARTING else (Report(status),)

    def plan(self) -> tuple[Action, ...]:
        """Orders that follow from the sets and have not been given.

        Stops come first: what is to stop is fenced, ended or settled when starts are looked at.
        """
        stops = [StopWorkload(*key) for key in self._stops if self._must_stop(key)]
        for stop in stops:
            self._fenced[(stop.allocation, stop.epoch)] = None
        starts: list[StartWorkload] = []
        busy = {allocation: None for allocation, _ in self.live()}
        for key, item in self._assignments.items():
            if key[0] not in busy and self._may_start(key):
                self._starting[key] = busy[key[0]] = None
                starts.append(StartWorkload(item, self._seen[0], self._registration))
        return (*stops, *starts)

    def _must_stop(self, key: Key) -> bool:
        record = self._records.get(key)
        ended = record is not None and record.state == EXITED
        return not ended and key not in self._fenced and key not in self._settled

    def _may_start(self, key: Key) -> bool:
        if key in self._records or key in self._starting or key in self._fenced or key in self._settled:
            return False
        return self._newest.get(key[0], 0) < key[1]

    def _prune(self, index: int) -> None:
        """Drop the memory of settled attempts that a set at or after their commit no longer names."""
        for key in [key for key, at in self._settled.items() if at <= index]:
            if key not in self._assignments and key not in self._stops:
                del self._settled[key]
                if self._newest.get(key[0]) == key[1]:
                    del self._newest[key[0]]
                self._fenced.pop(key, None)
                self._grace_s.pop(key, None)

    def _ended(self, key: Key, reason: ExitReason, why: str, before: AllocationStatus | None) -> AllocationStatus:
        """The exit report of an attempt whose end only this agent can tell; its status is not known."""
        pid, cgroup = (before.pid, before.cgroup) if before is not None else (0, "")
        return AllocationStatus(
            key[0], key[1], self._sequence + 1, EXITED, pid, cgroup, Exit(None, None, reason, False, why)
        )
