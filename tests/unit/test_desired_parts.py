"""A node's set cut into frames."""

from __future__ import annotations

import pytest

from scheduler import held_session
from scheduler.held_session import _parts
from scheduler.model import Limits, Workload
from scheduler.session import Assignment

WORKLOAD = Workload("web", "default", "service", ("sleep", "1"), {}, Limits(0, 0, 0), (), 5, "keep")
SET = tuple(Assignment(f"default/web.{number}", number + 1, 1, WORKLOAD) for number in range(10))


@pytest.mark.parametrize("bytes_max", [1, 100, 300, 1 << 20])
def test_the_parts_are_the_set_in_order_and_only_the_last_says_so(monkeypatch, bytes_max):
    monkeypatch.setattr(held_session, "DESIRED_BYTES_MAX", bytes_max)
    parts = list(_parts(SET))
    assert tuple(item for part, _ in parts for item in part) == SET
    assert [more for _, more in parts] == [True] * (len(parts) - 1) + [False]
    assert all(part for part, _ in parts)
    assert (len(parts) == 1) == (bytes_max == 1 << 20)


def test_an_empty_set_is_one_part():
    assert list(_parts(())) == [((), False)]
