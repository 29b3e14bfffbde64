"""The driver's parts: merging writes, callers and deadlines, slices, counters."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raft.apply import SLICE_NS, Applier
from raft.calls import Calls, Outcome, refusal, unknown
from raft.counters import BOUNDS_NS, Histogram
from raft.effects import Apply, Persist
from raft.errors import OutcomeUnknown, ProposalDropped, SkerryError
from raft.messages import COMMAND, Entry, HardState
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
    applier = Applier(machine, clock)
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
