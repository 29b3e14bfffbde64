"""Columns, their pages, and the queue of what waits."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from scheduler.state.columns import PAGE_ROWS, Column, Table
from scheduler.state.waiting import Waiting


def test_a_column_grows_by_pages_and_reads_zero_where_nothing_was_written() -> None:
    column = Column()
    column.grow(PAGE_ROWS + 1)
    column[PAGE_ROWS] = 7
    assert (column[0], column[PAGE_ROWS], column[PAGE_ROWS - 1]) == (0, 7, 0)
    assert len(column.dense(PAGE_ROWS + 1)) == PAGE_ROWS + 1


def test_gather_reads_rows_across_pages_in_the_order_asked() -> None:
    column = Column()
    column.grow(3 * PAGE_ROWS)
    rows = [2 * PAGE_ROWS + 5, 1, PAGE_ROWS, 0, 3 * PAGE_ROWS - 1]
    for row in rows:
        column[row] = row * 10
    assert column.gather(np.array(rows)).tolist() == [row * 10 for row in rows]


def test_frozen_pages_do_not_see_later_writes() -> None:
    column = Column()
    column.grow(2 * PAGE_ROWS)
    column[1], column[PAGE_ROWS] = 5, 6
    frozen, still = column.freeze(), column.snapshot()
    before = [page.packed() for page in frozen]
    column[1] = 50
    column[2] = 51
    assert (still[1], still[2], column[1], column[2]) == (5, 0, 50, 51)
    assert [page.packed() for page in frozen] == before
    assert frozen[1] is column.freeze()[1], "an untouched page is shared, not copied"
    assert frozen[0] is not column.freeze()[0]


def test_a_freed_row_is_reused_and_reads_zero() -> None:
    table = Table(["a", "b"])
    rows = [table.new_row() for _ in range(3)]
    table.columns["a"][rows[1]] = 9
    table.free_row(rows[1])
    assert table.new_row() == rows[1]
    assert table.columns["a"][rows[1]] == 0
    assert table.rows == 3


def test_an_allocation_in_back_off_is_ready_only_from_its_time_on() -> None:
    waiting = Waiting()
    waiting.add(3, 0)
    waiting.add(1, 500)
    waiting.promote(499)
    assert list(waiting.ready()) == [3]
    assert waiting.next_due_ms() == 500
    waiting.promote(500)
    assert list(waiting.ready()) == [3, 1]
    assert waiting.next_due_ms() is None


def test_a_follower_that_never_asks_what_is_due_keeps_no_hoard() -> None:
    waiting = Waiting()
    for round_number in range(10_000):
        waiting.add(0, round_number + 1)
        waiting.discard(0)
    assert len(waiting._heap) < 200


@settings(deadline=None)
@given(st.lists(st.tuples(st.sampled_from(["add", "discard", "promote"]), st.integers(0, 5), st.integers(0, 20))))
def test_the_queue_agrees_with_a_plain_dictionary(steps: list[tuple[str, int, int]]) -> None:
    waiting, model, now = Waiting(), {}, 0
    for what, ordinal, number in steps:
        if what == "add":
            waiting.add(ordinal, number)
            model[ordinal] = number
        elif what == "discard":
            waiting.discard(ordinal)
            model.pop(ordinal, None)
        else:
            now = max(now, number)
            waiting.promote(now)
            model = {key: 0 if due <= now else due for key, due in model.items()}
        assert len(waiting) == len(model)
        assert sorted(waiting.ready()) == sorted(key for key, due in model.items() if due == 0)
        later = [due for due in model.values() if due]
        assert waiting.next_due_ms() == (min(later) if later else None)
