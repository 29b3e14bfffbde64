"""When arcs change owners: at most one move an arc in ten seconds, and nothing moves for nothing."""

from __future__ import annotations

import random

import pytest

from cluster.ring import positions
from cluster.shards import HISTORY_MAX, MOVE_PAUSE_MS, Assigned, arcs_in_both, moved_share, next_owners, ring_of

ALL = ("n1", "n2", "n3")


def history(*steps: tuple[int, tuple[str, ...]]) -> tuple[Assigned, ...]:
    return tuple(Assigned(number + 1, time_ms, owners) for number, (time_ms, owners) in enumerate(steps))


def test_the_first_owners_are_those_who_live() -> None:
    assert next_owners((), ["n3", "n1"], 5_000) == ("n1", "n3")


def test_nothing_changes_while_the_same_replicas_live_or_none() -> None:
    assert next_owners(history((0, ALL)), ["n3", "n2", "n1"], 99_000) is None
    assert next_owners(history((0, ALL)), [], 99_000) is None


def test_a_dead_owner_is_replaced_at_once() -> None:
    assert next_owners(history((0, ALL)), ["n1", "n3"], 50_000) == ("n1", "n3")


def test_a_replica_that_was_late_for_the_first_owners_joins_at_once() -> None:
    assert next_owners(history((0, ("n1", "n3"))), ALL, 500) == ALL


def test_a_replica_that_comes_back_waits_until_its_arcs_may_move_again() -> None:
    past = history((0, ALL), (50_000, ("n1", "n3")))
    assert next_owners(past, ALL, 50_000 + MOVE_PAUSE_MS - 1) is None
    assert next_owners(past, ALL, 50_000 + MOVE_PAUSE_MS) == ALL


def test_a_second_death_waits_because_it_would_move_what_the_first_moved() -> None:
    past = history((0, ALL), (50_000, ("n1", "n3")))
    assert next_owners(past, ["n1"], 53_000) is None
    assert next_owners(past, ["n1"], 60_000) == ("n1",)


def test_a_clock_set_back_does_not_hold_the_arcs() -> None:
    past = history((0, ALL), (50_000_000, ("n1", "n3")))
    assert next_owners(past, ALL, 1_000) == ALL


def test_one_replica_joining_and_leaving_moves_the_same_arcs() -> None:
    assert arcs_in_both((ALL, ("n1", "n3")), (("n1", "n3"), ALL))
    assert not arcs_in_both((ALL, ALL), (ALL, ("n1", "n3")))
    assert moved_share(ALL, ("n1", "n3")) == pytest.approx(ring_of(ALL).shares()["n2"])
    assert moved_share(ALL, ALL) == 0.0


@pytest.mark.parametrize("seed", range(8))
def test_whatever_fails_and_returns_no_arc_moves_twice_in_ten_seconds(seed: int) -> None:
    dice = random.Random(seed)
    names = ["n1", "n2", "n3", "n4", "n5"]
    keys = positions(f"key-{number}" for number in range(500))
    past: tuple[Assigned, ...] = ()
    moved_ms = [-MOVE_PAUSE_MS] * len(keys)
    owners: list[str] = []
    changes = 0
    for now_ms in range(0, 120_000, 500):
        live = ["n1", *(name for name in names[1:] if dice.random() < 0.9)]
        chosen = next_owners(past, live, now_ms)
        if chosen is None:
            continue
        changes += 1
        assert chosen == tuple(live)
        ring = ring_of(chosen)
        now_owners = [ring.owners[number] for number in ring.numbers_at(keys).tolist()]
        for number, (old, new) in enumerate(zip(owners, now_owners, strict=False)):
            if old != new:
                assert now_ms - moved_ms[number] >= MOVE_PAUSE_MS, "an arc moved twice"
                moved_ms[number] = now_ms
        owners = now_owners
        past = (*past, Assigned(len(past) + 1, now_ms, chosen))[-HISTORY_MAX:]
    assert changes > 4
