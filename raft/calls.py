"""Callers that wait: for their entry's fate, for a read, for an index to be applied.

Owns: matching what happened to who asked, and deadlines.  Must not know: asyncio, the core, or the disk.

A caller learns `ProposalDropped` only when another entry was *applied* at its index.  An entry that was
merely overwritten here may still be committed by a leader that kept it (Figure 8 of the paper).
"""

from __future__ import annotations

from collections.abc import Callable
from heapq import heappop, heappush
from itertools import count
from typing import Any, Protocol

from msgspec import Struct

from raft.errors import (
    DiskFull,
    LogFull,
    NoQuorum,
    NoSuccessor,
    NotLeader,
    OutcomeUnknown,
    Overloaded,
    ProposalDropped,
    SkerryError,
    StateDiverged,
)

_BUCKET_BITS = 23
"""Deadlines are kept to 2**23 ns, about 8 ms; they are never early."""


class Outcome(Struct, frozen=True, gc=False):
    """A proposal that was applied: where, and what the state machine answered."""

    index: int
    term: int
    result: Any


class Waiter(Protocol):
    """The part of a future that is needed here."""

    def done(self) -> bool:
        """Whether it has an answer, or its caller went away."""
        ...

    def set_result(self, result: Any, /) -> None:
        """Answer."""
        ...

    def set_exception(self, exception: BaseException, /) -> None:
        """Fail."""
        ...


class Call:
    """One waiting caller.  `where` is the (term, index) its proposal got, None before."""

    __slots__ = ("bucket", "id", "late", "waiter", "where")

    def __init__(self, call_id: int, waiter: Waiter, bucket: int, late: Callable[[], SkerryError]) -> None:
        self.id = call_id
        self.waiter = waiter
        self.bucket = bucket
        self.late = late
        self.where: tuple[int, int] | None = None


class Calls:
    """All callers of one driver."""

    def __init__(self) -> None:
        self._ids = count(1)
        self._open: dict[int, Call] = {}
        self._buckets: dict[int, dict[int, Call]] = {}
        self._by_index: dict[int, list[Call]] = {}
        self._by_applied: list[tuple[int, int]] = []

    def __len__(self) -> int:
        return len(self._open)

    # -- asking --------------------------------------------------------------------------------

    def add(self, waiter: Waiter, deadline_ns: int, late: Callable[[], SkerryError]) -> int:
        """Keep a caller until it is answered or `deadline_ns` passes; returns its id."""
        call_id = next(self._ids)
        bucket = (deadline_ns >> _BUCKET_BITS) + 1
        call = Call(call_id, waiter, bucket, late)
        self._open[call_id] = call
        slot = self._buckets.get(bucket)
        if slot is None:
            self._buckets[bucket] = {call_id: call}
        else:
            slot[call_id] = call
        return call_id

    def wait_applied(self, call_id: int, index: int) -> None:
        """The caller is answered with `index` once that is applied."""
        heappush(self._by_applied, (index, call_id))

    def appended(self, call_id: int, term: int, index: int) -> None:
        """The caller's proposal became entry (term, index)."""
        call = self._open.get(call_id)
        if call is not None:
            call.where = (term, index)
            self._by_index.setdefault(index, []).append(call)

    # -- answering -----------------------------------------------------------------------------

    def applied_entry(self, term: int, index: int, result: Any) -> None:
        """Entry (term, index) was applied: tell who proposed it, and who hoped for its place."""
        calls = self._by_index.pop(index, None)
        if calls is None:
            return
        for call in calls:
            if call.where == (term, index):
                self._resolve(call.id, Outcome(index, term, result))
            else:
                self.fail(call.id, dropped(index))

    def skipped(self, index: int) -> None:
        """A snapshot took the place of applying up to `index`: whose entry is in it is not known here."""
        for passed in sorted(each for each in self._by_index if each <= index):
            for call in self._by_index.pop(passed):
                self.fail(call.id, call.late())

    def applied_upto(self, index: int) -> None:
        """Everything up to `index` is applied."""
        waiting = self._by_applied
        while waiting and waiting[0][0] <= index:
            wanted, call_id = heappop(waiting)
            self._resolve(call_id, wanted)

    def done(self, call_id: int, value: Any) -> None:
        """Answer."""
        self._resolve(call_id, value)

    def fail(self, call_id: int, error: SkerryError) -> None:
        """Answer with an error."""
        call = self._close(call_id)
        if call is not None and not call.waiter.done():
            call.waiter.set_exception(error)

    def fail_all(self) -> None:
        """Answer everybody as if their deadline had passed: the replica stops."""
        for call in list(self._open.values()):
            self.fail(call.id, call.late())
        self._by_index.clear()
        self._by_applied.clear()

    # -- deadlines -----------------------------------------------------------------------------

    def next_deadline_ns(self) -> int | None:
        """When `expire` should be called, or None while nobody waits."""
        return min(self._buckets) << _BUCKET_BITS if self._buckets else None

    def expire(self, now_ns: int) -> None:
        """Answer those whose deadline has passed."""
        reached = now_ns >> _BUCKET_BITS
        for bucket in sorted(bucket for bucket in self._buckets if bucket <= reached):
            for call in list(self._buckets[bucket].values()):
                self._forget_place(call)
                self.fail(call.id, call.late())
        if len(self._by_applied) > 2 * len(self._open) + 64:
            self._by_applied = sorted(item for item in self._by_applied if item[1] in self._open)

    def _resolve(self, call_id: int, value: Any) -> None:
        call = self._close(call_id)
        if call is not None and not call.waiter.done():
            call.waiter.set_result(value)

    def _close(self, call_id: int) -> Call | None:
        call = self._open.pop(call_id, None)
        if call is not None:
            slot = self._buckets[call.bucket]
            del slot[call_id]
            if not slot:
                del self._buckets[call.bucket]
        return call

    def _forget_place(self, call: Call) -> None:
        """A caller that gave up no longer needs its index watched."""
        if call.where is None:
            return
        others = [other for other in self._by_index.get(call.where[1], ()) if other is not call]
        if others:
            self._by_index[call.where[1]] = others
        else:
            self._by_index.pop(call.where[1], None)


def refusal(code: str, leader: str | None) -> SkerryError:
    """The error for a code of `ProposalRefused`, `ReadRefused` or `HandOverRefused`."""
    match code:
        case "not-leader":
            return NotLeader(
                "this replica does not lead", hint=f"ask {leader}" if leader else "ask again shortly", leader=leader
            )
        case "handing-over":
            return NotLeader("this replica hands its leadership over", hint="ask again shortly", leader=None)
        case "state-diverged":
            return StateDiverged(
                "the replicas' states differ, and no majority of the voters agrees on one: nothing is written",
                hint="`skerry status` shows the digests; bring missing voters back, or restart all on one version",
            )
        case "no-successor":
            return NoSuccessor(
                "no other voter took the leadership over within an election timeout",
                hint="another voter must be reachable and have the whole log; see `skerry status`",
            )
        case "overloaded":
            return Overloaded("too many bytes are waiting to be committed", hint="ask again after a pause")
        case "log-full":
            return LogFull(
                "the log has reached its bound before a snapshot could shorten it",
                hint="ask again after a pause; if it stays, the disk is full or too slow for snapshots",
            )
        case "disk-full":
            return DiskFull("the disk has no room for the log", hint="free space on the disk of the data directory")
        case "no-quorum":
            return unconfirmed()
    raise AssertionError(f"unknown refusal {code}")


def not_running() -> NotLeader:
    """The driver does not run (yet, or any more)."""
    return NotLeader("this replica's consensus is not running", hint="ask another replica", leader=None)


def dropped(index: int) -> ProposalDropped:
    """Another leader's entry was applied at the proposal's index."""
    return ProposalDropped("another leader's entry took this one's place", hint="ask again", index=index)


def unknown() -> OutcomeUnknown:
    """The deadline passed, or the replica stopped, before the proposal's fate was known."""
    return OutcomeUnknown(
        "the proposal was not applied in time; it may still be", hint="ask again with the same request id"
    )


def unconfirmed() -> NoQuorum:
    """A read's or barrier's deadline passed."""
    return NoQuorum("no majority confirmed this leader in time", hint="check the links between replicas")
