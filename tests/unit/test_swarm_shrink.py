"""Delta debugging: what it keeps still fails, and little else is kept."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from chaos.sim.swarm.shrink import shrink


@given(st.sets(st.integers(0, 19), min_size=1, max_size=3))
def test_exactly_the_guilty_are_left(guilty):
    trials = []

    def fails(items):
        trials.append(items)
        return guilty <= set(items)

    assert set(shrink(range(20), fails, 10_000)) == guilty
    assert len(trials) < 400


def test_order_is_kept():
    assert shrink("abcdefgh", lambda items: {"c", "g"} <= set(items)) == ("c", "g")


def test_nothing_is_left_of_what_fails_without_anything():
    assert shrink((1, 2, 3), lambda items: True) == ()


def test_after_its_trials_the_smallest_found_so_far_is_returned():
    seen = []

    def fails(items):
        seen.append(items)
        return 99 in items and 0 in items

    found = shrink(range(100), fails, 5)
    assert len(seen) == 5
    assert {0, 99} <= set(found)


def test_an_item_that_cannot_be_left_out_alone_stays():
    def fails(items):
        return sum(items) >= 10

    found = shrink((1, 2, 3, 4), fails)
    assert sum(found) >= 10
