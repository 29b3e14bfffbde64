"""The search for an order, against every order tried, and what it says of histories that have none."""

from __future__ import annotations

from random import Random

import pytest

from chaos.history.linear import check, check_key
from chaos.history.models import Job, Lock, Register
from chaos.history.operations import NEVER, UNKNOWN, Operation
from tests.support.histories import MODELS, by_trying_all, made_by_one_copy, spoiled

SMALL = 1_500


@pytest.mark.parametrize("kind", MODELS)
def test_the_search_agrees_with_trying_every_order(kind: str) -> None:
    """Small histories, honest and spoiled, with calls that nobody got an answer to."""
    verdicts = {True: 0, False: 0}
    for seed in range(SMALL):
        dice = Random(f"{kind}:{seed}")
        history = made_by_one_copy(dice, kind, dice.randint(1, 6), dice.randint(1, 4), unanswered=0.2)
        if seed % 3:
            history = spoiled(dice, kind, history)
        wanted = by_trying_all(history, MODELS[kind])
        assert check_key(history, MODELS[kind]).ok is wanted, (seed, history)
        assert wanted or seed % 3, "one copy's own answers have an order"
        verdicts[wanted] += 1
    assert min(verdicts.values()) > SMALL // 20, verdicts


@pytest.mark.parametrize("kind", MODELS)
def test_an_honest_history_of_many_calls_and_keys_has_an_order(kind: str) -> None:
    history = made_by_one_copy(Random(7), kind, 3_000, 10, keys=3, unanswered=0.01)
    outcomes = check(history, MODELS[kind])
    assert sorted(outcome.key for outcome in outcomes) == [0, 1, 2]
    assert all(outcome.ok for outcome in outcomes)


def test_a_read_of_a_value_that_was_overwritten_before_is_named_with_what_came_before_it() -> None:
    history = [
        Operation("x", 1, 2, ("write", 1), None, "a"),
        Operation("x", 3, 4, ("write", 2), None, "b"),
        Operation("x", 5, 6, ("read",), 1, "c"),
        Operation("y", 5, 6, ("read",), 0, "d"),
    ]
    wrong, fine = check(history, Register(0))
    assert (wrong.ok, wrong.key, [o.ref for o in wrong.stuck], [o.ref for o in wrong.after]) == (
        False, "x", ["c"], ["a", "b"],
    )  # fmt: skip
    assert fine.ok


def test_calls_that_touch_in_time_count_as_concurrent() -> None:
    write, read = Operation("x", 1, 2, ("write", 1), None), Operation("x", 2, 3, ("read",), 0)
    assert check_key([write, read], Register(0)).ok
    later = Operation("x", 2.001, 3, ("read",), 0)
    assert check_key([write, later], Register(0)).ok is False


def test_a_call_without_an_answer_may_take_effect_once_at_any_time_or_never() -> None:
    lost = Operation("x", 1, NEVER, ("write", 1), UNKNOWN)
    reads = [Operation("x", at, at + 0.5, ("read",), value) for at, value in ((2, 0), (3, 0), (4, 1), (5, 1))]
    assert check_key([lost, *reads], Register(0)).ok
    assert check_key([lost, *reads[:2]], Register(0)).ok
    back = Operation("x", 6, 7, ("read",), 0)
    assert check_key([lost, *reads, back], Register(0)).ok is False


def test_two_holders_of_a_lock_have_no_order_and_tokens_only_rise() -> None:
    one, two = Operation("l", 1, 2, ("acquire", "a"), 5), Operation("l", 3, 4, ("acquire", "b"), 6)
    assert check_key([one, two], Lock()).ok is False
    free = Operation("l", 2.2, 2.5, ("release", "a", 5), True)
    assert check_key([one, free, two], Lock()).ok
    assert check_key([one, free, Operation("l", 3, 4, ("acquire", "b"), 5)], Lock()).ok is False


def test_an_index_that_falls_between_two_reads_has_no_order() -> None:
    reads = [Operation("j", at, at + 0.5, "read", (0, index)) for at, index in ((1, 7), (2, 6))]
    assert check_key(reads, Job()).ok is False
    assert check_key([Operation("j", 1, 3, "read", (0, 7)), reads[1]], Job()).ok


def test_a_search_without_budget_left_says_that_it_does_not_know() -> None:
    history = made_by_one_copy(Random(3), "register", 200, 8)
    outcome = check_key(history, Register(0), steps_max=50)
    assert (outcome.ok, outcome.steps) == (None, 50)
    assert [each.ok for each in check([*history, Operation(9, 1, 2, ("read",), 0)], Register(0), 50)] == [None, None]
