from __future__ import annotations

from itertools import combinations, pairwise, product

import msgspec
import pytest
from msgspec.structs import replace

from raft.configuration import (
    Configurations,
    Impossible,
    Standing,
    enter_joint,
    halves,
    leave_joint,
    members,
    promote,
    replace_store,
    standing,
)
from raft.messages import (
    COMMAND,
    CONFIGURATION,
    RETIRED_MAX,
    Configuration,
    Entry,
    decode_configuration,
    encode_configuration,
)
from raft.quorum import Halves, jointly_agreed, jointly_lost, jointly_won

A, B, C, D, E = (letter * 32 for letter in "abcde")
THREE = Configuration("0" * 32, 1, {"n1": A, "n2": B, "n3": C})


def entry(index: int, configuration: Configuration) -> Entry:
    return Entry(1, index, CONFIGURATION, encode_configuration(configuration))


# -- joint quorums ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sets", "reached", "index"),
    [
        (("ab", "c"), {"a": 7, "b": 9, "c": 5}, 5),
        (("ab", "c"), {"a": 7, "b": 9}, 0),
        (("abc", "abd"), {"a": 4, "b": 3, "d": 9}, 3),
        (("abc", "abd"), {"a": 4, "c": 8, "d": 9}, 4),
        (("abd", "ab"), {"a": 4, "d": 9}, 0),
        (("a", "a"), {"a": 3}, 3),
    ],
)
def test_a_joint_index_is_what_both_majorities_reached(sets: Halves, reached: dict[str, int], index: int) -> None:
    assert jointly_agreed(tuple(tuple(each) for each in sets), reached) == index


def test_joint_agreement_and_joint_votes_are_what_counting_each_half_gives() -> None:
    voters = "abcd"
    sets = [each for size in (1, 2, 3) for each in combinations(voters, size)]
    for first, second in product(sets, repeat=2):
        both = (first, second)
        for values in product(range(3), repeat=4):
            reached = dict(zip(voters, values, strict=True))
            best = max(
                index for index in range(3)
                if all(sum(reached[each] >= index for each in half) * 2 > len(half) for half in both)
            )  # fmt: skip
            assert jointly_agreed(both, reached) == best
        for given in product((True, False, None), repeat=4):
            votes = {each: vote for each, vote in zip(voters, given, strict=True) if vote is not None}
            yes = [sum(votes.get(each) is True for each in half) * 2 > len(half) for half in both]
            no = [sum(votes.get(each) is not False for each in half) * 2 <= len(half) for half in both]
            assert jointly_won(both, votes) == all(yes)
            assert jointly_lost(both, votes) == any(no)


def test_neighbouring_configurations_cannot_decide_apart() -> None:
    """Whatever is agreed without a store in common would be agreed twice (§6, Figure 10)."""
    joint = replace_store(THREE, "n3", D)
    learning = leave_joint(joint)
    returning = promote(learning, "n3")
    path = [THREE, joint, learning, returning, leave_joint(returning)]
    everyone = (A, B, C, D)
    for before, after in pairwise(path):
        for size in range(5):
            for one in combinations(everyone, size):
                rest = {store: True for store in everyone if store not in one}
                decided = jointly_won(halves(before), dict.fromkeys(one, True))
                assert not (decided and jointly_won(halves(after), rest)), (one, rest)


# -- changes ---------------------------------------------------------------------------------------


def test_a_replaced_store_is_out_and_the_new_one_learns() -> None:
    joint = replace_store(THREE, "n3", D)
    assert joint == replace(THREE, voters={"n1": A, "n2": B}, learners={"n3": D}, outgoing=THREE.voters, retired=(C,))
    assert halves(joint) == ((A, B), (A, B, C))
    assert members(joint) == {"n1": A, "n2": B, "n3": D}
    assert leave_joint(joint) == replace(joint, outgoing={})


def test_a_promoted_learner_votes_and_the_old_voters_still_do() -> None:
    learning = leave_joint(replace_store(THREE, "n3", D))
    assert halves(promote(learning, "n3")) == ((A, B, D), (A, B))
    assert leave_joint(promote(learning, "n3")).voters == {"n1": A, "n2": B, "n3": D}


def test_what_cannot_be_changed_is_refused() -> None:
    joint = replace_store(THREE, "n3", D)
    for impossible in (
        lambda: enter_joint(joint, {"n1": A}, {}),
        lambda: replace_store(joint, "n2", E),
        lambda: replace_store(joint, "n3", E),
        lambda: leave_joint(THREE),
        lambda: enter_joint(THREE, {}, {}),
        lambda: enter_joint(THREE, {"n1": A, "n2": B}, {"n2": D}),
        lambda: enter_joint(THREE, {"n1": A, "n2": B}, {"n3": C}),
    ):
        with pytest.raises(Impossible):
            impossible()


def test_retired_stores_are_remembered_up_to_a_bound() -> None:
    configuration = leave_joint(replace_store(THREE, "n3", D))
    for number in range(RETIRED_MAX + 5):
        configuration = replace_store(configuration, "n3", f"{number:032x}")
    assert len(configuration.retired) == RETIRED_MAX
    assert configuration.retired[-1] == f"{RETIRED_MAX + 3:032x}"
    assert decode_configuration(encode_configuration(configuration)) == configuration


@pytest.mark.parametrize(
    ("store", "expected"),
    [(A, Standing.OUTSIDE), (C, Standing.VOTER), (D, Standing.LEARNER), (E, Standing.OUTSIDE)],
)
def test_a_store_stands_as_the_configuration_says(store: str, expected: Standing) -> None:
    assert standing(replace_store(THREE, "n3", D), "n3", store) is expected
    assert standing(None, "n3", store) is Standing.EMPTY


# -- encodings -------------------------------------------------------------------------------------


def test_a_configuration_without_a_version_is_read_as_the_first_one() -> None:
    old = msgspec.msgpack.encode(["0" * 32, 1, {"n1": A, "n2": B, "n3": C}])
    assert decode_configuration(old) == THREE


def test_a_configuration_survives_its_encoding_and_a_newer_one_is_refused() -> None:
    joint = replace_store(THREE, "n3", D)
    assert decode_configuration(encode_configuration(joint)) == joint
    newer = msgspec.msgpack.encode([3, *msgspec.msgpack.decode(encode_configuration(joint))[1:]])
    with pytest.raises(msgspec.ValidationError):
        decode_configuration(newer)


# -- history ---------------------------------------------------------------------------------------


def test_the_latest_configuration_counts_until_it_is_truncated() -> None:
    history, second = Configurations(), replace_store(THREE, "n3", D)
    assert history.current is None
    assert history.appended([entry(1, THREE), Entry(1, 2, COMMAND, b"x"), entry(3, second)])
    assert (history.index, history.current) == (3, second)
    assert history.at(2) == (1, THREE)
    assert history.at(0) is None
    assert not history.appended([Entry(1, 4, COMMAND, b"y")])
    assert not history.truncated(4)
    assert history.truncated(2)
    assert (history.index, history.current) == (1, THREE)


def test_a_snapshots_configuration_stands_for_all_before_it() -> None:
    history, second = Configurations(), replace_store(THREE, "n3", D)
    history.appended([entry(1, THREE), entry(3, second), entry(9, leave_joint(second))])
    history.rebase(5, THREE)
    assert history.at(8) == (5, THREE)
    assert history.current == leave_joint(second)
    assert history.at(4) is None
