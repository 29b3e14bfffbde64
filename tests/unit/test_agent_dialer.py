"""Whom an agent dials next, when, and when it gives up."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from agents.dialer import PAUSE_FIRST_S, PAUSE_MAX_S, ROUNDS_REFUSED_MAX, Rotation
from cluster.dice import SeededDice

THREE = ("n1:1", "n2:1", "n3:1")


def rotation(replicas: tuple[str, ...] = THREE, seed: int = 1) -> Rotation:
    return Rotation(replicas, SeededDice(seed))


def test_every_replica_gets_its_turn_in_every_round():
    one = rotation()
    for _ in range(4):
        dialled = []
        for _ in THREE:
            dialled.append(one.address)
            one.failed(fatal=False)
        assert sorted(dialled) == sorted(THREE)


def test_agents_do_not_all_begin_with_the_same_replica():
    assert {rotation(seed=seed).address for seed in range(30)} == set(THREE)


def test_pauses_grow_over_rounds_up_to_a_bound_and_begin_again_after_a_confirmed_session():
    one = rotation()
    first = [one.failed(fatal=False) for _ in THREE]
    assert all(0.5 * PAUSE_FIRST_S <= pause <= PAUSE_FIRST_S for pause in first)
    later = [one.failed(fatal=False) for _ in range(60)]
    assert 0.5 * PAUSE_MAX_S <= later[-1] <= PAUSE_MAX_S
    assert len(set(later[-10:])) > 1, "jittered"
    one.confirmed()
    assert one.failed(fatal=False) <= PAUSE_FIRST_S


def test_a_session_without_a_confirmed_heartbeat_does_not_shorten_the_pauses():
    one = rotation()
    for _ in range(30):
        one.failed(fatal=False)
    one.accepted("n1")
    assert one.failed(fatal=False) >= 0.5 * PAUSE_MAX_S


def test_refusals_by_everyone_who_answers_are_hopeless_after_whole_rounds_only():
    one = rotation()
    for _ in range(ROUNDS_REFUSED_MAX * len(THREE) - 1):
        one.failed(fatal=True)
        assert not one.hopeless
    one.failed(fatal=True)
    assert one.hopeless


def test_refusals_never_end_an_agent_that_was_accepted_once():
    one = rotation()
    one.accepted("n1")
    for _ in range(50):
        one.failed(fatal=True)
    assert not one.hopeless


@given(st.lists(st.sampled_from(["lost", "refused", "accepted", "confirmed"]), max_size=80), st.integers(0, 99))
def test_pauses_stay_within_bounds_whatever_happens(script, seed):
    one = rotation(seed=seed)
    for step in script:
        if step in ("lost", "refused"):
            assert 0.5 * PAUSE_FIRST_S <= one.failed(fatal=step == "refused") <= PAUSE_MAX_S
        elif step == "accepted":
            one.accepted("n1")
        else:
            one.confirmed()
        assert one.address in THREE
