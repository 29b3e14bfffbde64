from __future__ import annotations

from itertools import product

import pytest

from raft.quorum import agreed, lost, majority, won


@pytest.mark.parametrize(("voters", "needed"), [(1, 1), (2, 2), (3, 2), (4, 3), (5, 3), (6, 4), (7, 4)])
def test_a_majority_is_more_than_half(voters: int, needed: int) -> None:
    assert majority(voters) == needed


@pytest.mark.parametrize(
    ("reached", "index"),
    [
        ([12], 12),
        ([12, 13], 12),
        ([0, 13], 0),
        ([0, 0, 102], 0),
        ([100, 101, 0], 100),
        ([100, 101, 103], 101),
        ([0, 101, 103, 104], 101),
        ([99, 101, 103, 104], 101),
        ([0, 0, 101, 103, 104], 101),
        ([101, 101, 103, 103, 104], 103),
    ],
)
def test_the_agreed_index_is_the_highest_that_a_majority_reached(reached: list[int], index: int) -> None:
    assert agreed(reached) == index


def test_agreement_is_what_counting_every_index_gives() -> None:
    for size in (1, 2, 3, 4, 5):
        for reached in product(range(4), repeat=size):
            best = max(index for index in range(4) if sum(value >= index for value in reached) > size // 2)
            assert agreed(reached) == best, reached


def test_a_vote_is_won_lost_or_open_and_never_two_of_them() -> None:
    for voters in range(1, 8):
        for granted in range(voters + 1):
            for refused in range(voters + 1 - granted):
                is_won, is_lost = won(granted, voters), lost(refused, voters)
                assert not (is_won and is_lost)
                if granted + refused == voters:
                    assert is_won != is_lost, "when all have answered it is decided"


def test_two_majorities_always_share_a_voter() -> None:
    for voters in range(1, 10):
        assert 2 * majority(voters) > voters
