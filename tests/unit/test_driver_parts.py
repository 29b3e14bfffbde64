"""The driver's parts: merging writes, callers and deadlines, slices, counters."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chaos.disk import ForgettingDisk
from cluster.dice import SeededDice
from raft.alarm import Alarm
from raft.apply import SLICE_NS, Applier
from raft.calls import Calls, Outcome, refusal, unknown
from raft.core import CoreConfig
from raft.counters import BOUNDS_NS, Histogram
from raft.effects import Apply, Persist, Role, Send
from raft.errors import OutcomeUnknown, Overloaded, ProposalDropped, SkerryError
from raft.messages import (
    COMMAND,
    CONFIGURATION,
    ENTRY_BYTES_MAX,
    Append,
    Configuration,
    Entry,
    HardState,
    VoteReply,
    encode_configuration,
)
from raft.outflow import Outflow
from raft.store.log_store import LogStore, RecoveredLog
from raft.turns import INBOX_MAX, Turns
from raft.writer import merge


def entries(first: int, count: int, term: int = 1) -> tuple[Entry, ...]:
    return tuple(Entry(term, index, COMMAND, b"%d" % index) for index in range(first, first + count))


class Box:
    """A future without a loop."""

    def __init__(self) -> None:
        self.answer: Any = None

    def done(self) -> bool:
        return self.answer is not None

    def set_result(self, result: Any, /) -> None:
        self.answer = result

    def set_exception(self, exception: BaseException, /) -> None:
        self.answer = exception


class Clock:
    def __init__(self) -> None:
        self.now = 0

    def now_ns(self) -> int:
        return self.now


def written(log: list[Entry], new: Sequence[Entry]) -> list[Entry]:
    return log[: new[0].index - 1] + list(new) if new else log


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5), st.booleans()), min_size=1, max_size=8))
def test_a_merged_write_has_the_effect_of_all(shape: list[tuple[int, int, bool]]) -> None:
    before = list(entries(1, 5))
    log, hard_state, persists = before, HardState(1, None), []
    for number, (back, count, votes) in enumerate(shape, 1):
        term = number + 1
        new = entries(max(1, len(log) + 1 - back), count, term)
        persists.append(Persist(number, HardState(term, None) if votes else None, new))
        log, hard_state = written(log, new), persists[-1].hard_state or hard_state
    batch = merge(persists)
    assert written(before, batch.entries) == log
    assert (batch.hard_state or HardState(1, None)) == hard_state
    assert batch.write == len(shape)


def test_only_an_applied_entry_decides_a_proposal() -> None:
    calls, kept, lost = Calls(), Box(), Box()
    calls.appended(calls.add(kept, 1 << 40, unknown), 3, 10)
    calls.appended(calls.add(lost, 1 << 40, unknown), 2, 10)
    assert not kept.done()
    calls.applied_entry(3, 10, "result")
    assert kept.answer == Outcome(10, 3, "result")
    assert isinstance(lost.answer, ProposalDropped)
    assert len(calls) == 0


def test_deadlines_are_never_early_and_at_most_two_buckets_late() -> None:
    calls, box, deadline = Calls(), Box(), 1_000_000_000
    calls.appended(calls.add(box, deadline, unknown), 1, 1)
    calls.expire(deadline - 1)
    assert not box.done()
    due = calls.next_deadline_ns()
    assert due is not None
    assert deadline <= due <= deadline + (2 << 23)
    calls.expire(due)
    assert isinstance(box.answer, OutcomeUnknown)
    assert calls.next_deadline_ns() is None
    calls.applied_entry(1, 1, None)  # its fate comes too late and finds nobody


def test_who_waits_for_an_index_is_answered_when_it_is_applied() -> None:
    calls, boxes = Calls(), [Box() for _ in range(3)]
    for box, index in zip(boxes, (5, 3, 7), strict=True):
        calls.wait_applied(calls.add(box, 1 << 40, unknown), index)
    calls.applied_upto(5)
    assert [box.answer for box in boxes] == [5, 3, None]


def test_a_caller_that_went_away_is_left_alone() -> None:
    calls, box = Calls(), Box()
    calls.appended(calls.add(box, 1 << 40, unknown), 1, 1)
    box.answer = "cancelled"
    calls.applied_entry(1, 1, None)
    assert box.answer == "cancelled"
    assert len(calls) == 0


def test_given_up_waits_are_forgotten() -> None:
    calls = Calls()
    for number in range(1000):
        calls.wait_applied(calls.add(Box(), number << 23, unknown), 10**9)
        calls.expire((number + 2) << 23)
    assert len(calls._by_applied) <= 70


@pytest.mark.parametrize("code", ["not-leader", "overloaded", "log-full", "disk-full", "no-quorum"])
def test_every_refusal_has_its_error_and_a_hint(code: str) -> None:
    error = refusal(code, "n2")
    assert isinstance(error, SkerryError)
    assert error.code == code
    assert error.hint


class Machine:
    def __init__(self, clock: Clock, cost_ns: int) -> None:
        self.clock = clock
        self.cost_ns = cost_ns
        self.slices: list[int] = []
        self.seen: list[int] = []

    def apply(self, some: Sequence[Entry]) -> list[int]:
        self.clock.now += self.cost_ns * len(some)
        self.slices.append(len(some))
        self.seen.extend(entry.index for entry in some)
        return [entry.index for entry in some]


@pytest.mark.parametrize(("cost_ns", "low", "high"), [(1_000, 128, 1024), (100_000, 1, 16), (5_000_000, 1, 1)])
def test_slices_of_applying_adapt_to_their_cost(cost_ns: int, low: int, high: int) -> None:
    clock = Clock()
    machine = Machine(clock, cost_ns)
    applier = Applier(machine, clock, 1 << 30)
    for first in range(1, 20_000, 1000):
        applier.add(Apply(entries(first, 1000)))
    while applier.waiting:
        applier.slice()
    assert machine.seen == list(range(1, 20_001))
    typical = sorted(machine.slices)[len(machine.slices) // 2]
    assert low <= typical <= high
    assert typical * cost_ns <= 2 * SLICE_NS or typical == 1


def test_a_histogram_counts_every_duration() -> None:
    histogram = Histogram()
    for duration in (1, BOUNDS_NS[0], BOUNDS_NS[0] + 1, BOUNDS_NS[-1] + 1):
        histogram.observe(duration)
    assert (histogram.counts[0], histogram.counts[1], histogram.counts[-1]) == (2, 1, 1)
    assert histogram.quantile_ns(0.5) == BOUNDS_NS[0]
    assert histogram.quantile_ns(1.0) == BOUNDS_NS[-1] + 1
    assert Histogram().quantile_ns(0.99) == 0


class Timers:
    """An event loop's timers, by hand."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.pending: dict[int, tuple[int, Any]] = {}
        self.started = 0

    def call_later(self, delay_s: float, work: Any) -> Any:
        self.started += 1
        number, timers = self.started, self

        class Handle:
            def cancel(self) -> None:
                timers.pending.pop(number, None)

        self.pending[number] = (self.clock.now + round(delay_s * 1e9), work)
        return Handle()

    def advance(self, now: int) -> None:
        self.clock.now = now
        for number, (due, work) in list(self.pending.items()):
            if due <= now:
                del self.pending[number]
                work()


def test_a_deadline_that_moves_away_costs_no_timer() -> None:
    clock, rung = Clock(), []
    timers = Timers(clock)
    alarm = Alarm(clock, timers.call_later, lambda: rung.append(clock.now))
    alarm.at(100)
    for deadline in (200, 300, 400):
        alarm.at(deadline)
    assert timers.started == 1
    timers.advance(100)
    assert rung == [100], "early: whoever set it looks at the deadline again"


def test_an_earlier_deadline_replaces_a_later_one() -> None:
    clock, rung = Clock(), []
    timers = Timers(clock)
    alarm = Alarm(clock, timers.call_later, lambda: rung.append(clock.now))
    alarm.at(500)
    alarm.at(50)
    timers.advance(50)
    timers.advance(1000)
    assert rung == [50]
    alarm.at(2000)
    alarm.cancel()
    timers.advance(3000)
    assert rung == [50]


def send(name: str, *, waits: bool) -> Send:
    return Send(name, VoteReply(1, True, False), waits)


def opened_store() -> LogStore:
    return LogStore.open(
        ForgettingDisk(Random(1)), node_id="n1", cluster_name="c", dice=SeededDice(1), segment_bytes=8192
    )


def test_a_promise_waits_for_every_write_before_it_and_for_none_after() -> None:
    outflow = Outflow(opened_store())
    assert not outflow.hold(send("free", waits=True)), "nothing is in flight"
    outflow.persist(Persist(1, HardState(1, "n1"), ()))
    assert outflow.hold(send("first", waits=True))
    assert not outflow.hold(send("beat", waits=False))
    batch = outflow.begin()
    assert batch is not None
    outflow.persist(Persist(2, None, entries(1, 3)))
    assert outflow.begin() is None, "one write in flight"
    assert outflow.hold(send("second", waits=True))
    outflow.written(batch.write)
    assert [effect.to for effect in outflow.released()] == ["first"]
    batch = outflow.begin()
    assert batch is not None
    outflow.written(batch.write)
    assert [effect.to for effect in outflow.released()] == ["second"]
    assert not outflow.hold(send("free", waits=True))


class Wire:
    def __init__(self) -> None:
        self.sent: list[Any] = []

    def send(self, to: str, message: Any) -> None:
        self.sent.append(message)

    def emit(self, kind: str, /, **fields: Any) -> None:
        pass


def formed_turns(clock: Clock, wire: Wire) -> Turns:
    """A follower of a formed cluster, its election deadline set."""
    store = opened_store()
    voters = {"n1": store.store_id, "n2": "b" * 32, "n3": "c" * 32}
    founding = Entry(1, 1, CONFIGURATION, encode_configuration(Configuration("a" * 32, 1, voters)))
    store.append(HardState(1, None), [founding])
    store.recovered = RecoveredLog(HardState(1, None), (founding,))
    return Turns(
        config=CoreConfig(id="n1", store_id=store.store_id, peers=("n1", "n2", "n3")),
        store=store,
        transport=wire,
        clock=clock,
        dice=SeededDice(1),
        machine=Machine(clock, 0),
        observer=wire,
    )


def test_a_timer_on_time_starts_an_election() -> None:
    clock, wire = Clock(), Wire()
    turns = formed_turns(clock, wire)
    clock.now = turns.deadline_ns
    turns.tick()
    assert turns.core.role is not Role.FOLLOWER
    assert wire.sent


def test_after_a_pause_the_peers_are_heard_before_the_time_out() -> None:
    clock, wire = Clock(), Wire()
    turns = formed_turns(clock, wire)
    clock.now = turns.deadline_ns + 3_000_000_000
    turns.tick()
    assert not wire.sent, "the leader's message may still be in the socket"
    assert clock.now < turns.deadline_ns <= clock.now + 2_000_000
    clock.now = turns.deadline_ns
    turns.take_message("n2", "b" * 32, Append(2, 1, 1, 1, 1, ()))
    turns.tick()
    assert turns.core.role is Role.FOLLOWER
    assert turns.core.leader == "n2"


def test_after_a_pause_without_a_leader_the_time_out_counts() -> None:
    clock, wire = Clock(), Wire()
    turns = formed_turns(clock, wire)
    clock.now = turns.deadline_ns + 3_000_000_000
    turns.tick()
    clock.now = turns.deadline_ns
    turns.tick()
    assert turns.core.role is not Role.FOLLOWER


def test_a_full_inbox_drops_and_counts() -> None:
    clock, wire = Clock(), Wire()
    turns = formed_turns(clock, wire)
    for _ in range(INBOX_MAX + 5):
        turns.take_message("n2", "b" * 32, Append(2, 1, 1, 1, 1, ()))
    assert turns.counters.received_dropped == 5
    turns.turn()
    assert turns.counters.received == INBOX_MAX
    turns.settle(clock.now)
    assert not turns.unfinished


def test_an_oversized_proposal_is_refused_before_it_is_queued() -> None:
    turns = formed_turns(Clock(), Wire())
    with pytest.raises(Overloaded, match="too large") as caught:
        turns.check_proposal(bytes(ENTRY_BYTES_MAX + 1))
    assert caught.value.hint
