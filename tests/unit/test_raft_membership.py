"""Membership by hand: n3's disk is lost, and it comes back under the same id with store D."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from msgspec.structs import replace

from raft.configuration import enter_joint, leave_joint, promote, replace_store
from raft.core import Core
from raft.effects import Reconfigured, Role
from raft.errors import ProtocolViolation
from raft.messages import (
    CONFIGURATION,
    Admission,
    Append,
    AppendReply,
    Configuration,
    Entry,
    FoundingQuestion,
    HardState,
    JoinRequest,
    VoteReply,
    VoteRequest,
    encode_configuration,
)
from tests.support.raft_table import MS, T, Table, first_entry, store_of

A, B, C, D = (store_of(name) for name in ("n1", "n2", "n3", "n4"))
FOUNDED = Configuration("c" * 32, 1, {"n1": A, "n2": B, "n3": C})
LEAVING = replace_store(FOUNDED, "n3", D)
LEARNING = leave_joint(LEAVING)
RETURNING = promote(LEARNING, "n3")
RETURNED = leave_joint(RETURNING)


def entry(configuration: Configuration, index: int, term: int = 1) -> Entry:
    return Entry(term, index, CONFIGURATION, encode_configuration(configuration))


def formed(*later: Configuration, names: tuple[str, ...] = ("n1", "n2", "n3")) -> Table:
    """A cluster whose logs all hold entry 1 and then these configurations; n3 has store D when they name it."""
    table = Table(names)
    log = (first_entry(names), *[entry(each, index) for index, each in enumerate(later, 2)])
    for name in names:
        if name == "n3" and later:
            table.wipe(name, D)
        table.disk[name], table.hard[name] = log, HardState(1, None)
        table.start(name)
    return table


def pass_time(table: Table, *names: str, beats: int = 1, until: Callable[[], bool] = lambda: False) -> None:
    """Beats of the leader among `names`; an asking replica asks at each."""
    for _ in range(beats):
        if until():
            return
        table.now += T // 4
        for name in names or table.names:
            if table[name].role is Role.LEADER or table[name].learns or table[name].configuration is None:
                table.tick(name, table.now)
        table.settle(names or table.names)


def history(table: Table, name: str) -> list[Configuration | None]:
    return [effect.configuration for effect in table.seen(name, Reconfigured)]


# -- the way back ----------------------------------------------------------------------------------


def test_a_wiped_replica_comes_back_as_learner_and_then_as_voter() -> None:
    table = Table()
    table.elect("n1")
    table.propose("n1", b"x", b"y")
    table.settle()
    table.wipe("n3", D)
    pass_time(table, beats=30, until=lambda: table["n1"].configuration == RETURNED)
    assert history(table, "n1") == [LEAVING, LEARNING, RETURNING, RETURNED]
    pass_time(table)
    assert [table[name].configuration for name in table.names] == [RETURNED] * 3
    assert table["n3"].votes
    assert len({table[name].log.hash_at(table["n1"].last_index) for name in table.names}) == 1


def test_the_joint_step_out_needs_no_more_than_the_two_that_are_left() -> None:
    table = Table()
    table.elect("n1")
    table.wipe("n3", D)
    for _ in range(12):
        table.now += T // 4
        for name in ("n3", "n1"):
            table.tick(name, table.now)
        table.sync()
        for _ in range(3):
            table.deliver(lambda sender, to, message: not (isinstance(message, Append) and message.entries))
    assert table["n1"].configuration == LEAVING
    assert table["n1"].commit_index < table["n1"].last_index
    pass_time(table, "n1", "n2", beats=2)
    assert table["n1"].configuration == LEARNING
    assert table["n1"].commit_index == table["n1"].last_index


def test_one_round_of_questions_is_not_enough_and_a_live_store_is_not_replaced() -> None:
    """A late message of a disk that is gone, or a second process under a live one's id, changes nothing."""
    table = Table()
    table.elect("n1")
    table.now += 2 * T
    table.receive("n3", "n1", JoinRequest(D), D)
    assert table["n1"].configuration == FOUNDED
    table.tick("n1", table.now)
    table.settle()
    for _ in range(12):  # the old store answers all the while
        table.now += T // 4
        table.receive("n3", "n1", JoinRequest(D), D)
        table.tick("n1", table.now)
        table.settle()
    assert table["n1"].configuration == FOUNDED


def test_a_request_in_the_name_of_another_store_or_of_nobody_is_not_heard() -> None:
    table = Table()
    table.elect("n1")
    for _ in range(12):
        table.now += T // 4
        table.receive("n3", "n1", JoinRequest(D), C)
        table.receive("n9", "n1", JoinRequest(D), D)
        table.tick("n1", table.now)
        table.settle(("n1", "n2"))
    assert table["n1"].configuration == FOUNDED


def test_a_retired_store_is_never_taken_in_again() -> None:
    table = formed(LEAVING, LEARNING)
    table.elect("n1", ("n1", "n2"))
    table.wipe("n3", C)
    pass_time(table, beats=20)
    assert table["n1"].configuration == LEARNING
    assert table["n3"].configuration is None


def test_one_change_at_a_time_and_none_before_the_own_term_has_committed() -> None:
    table = Table()
    table.elect("n1", ("n1", "n3"))  # n2 has missed it
    table.take()
    table.propose("n1", b"x")
    table.wipe("n3", D)
    for _ in range(20):
        table.now += T // 4
        if table["n1"].role is not Role.LEADER:
            break
        table.receive("n3", "n1", JoinRequest(D), D)
        table.receive("n2", "n1", AppendReply(table["n1"].term, False, 10**6, 0, 10**6, 0))  # in contact, behind
        table.tick("n1", table.now)
        table.sync("n1")
        table.take()
    configurations = [each for each in history(table, "n1") if each is not None]
    assert configurations == [LEAVING], "the second step waits for the first to be committed"


def test_a_learner_that_is_wiped_again_is_replaced_without_a_joint_step() -> None:
    table = formed(LEAVING, LEARNING)
    table.elect("n1", ("n1", "n2"))
    second = "e" * 32
    table.wipe("n3", second)
    pass_time(table, beats=12, until=lambda: table["n1"].configuration != LEARNING)
    pass_time(table, beats=1)
    assert history(table, "n1")[0] == replace(LEARNING, learners={"n3": second}, retired=(C, D))


# -- the empty store -------------------------------------------------------------------------------


@pytest.mark.parametrize("pre", [False, True])
def test_a_wiped_replica_votes_neither_empty_nor_as_a_learner(pre: bool) -> None:
    request = VoteRequest(9, 99, 8, pre, False)
    table = Table()
    table.wipe("n3", D)
    assert table.receive("n1", "n3", request) == []
    table.receive("n1", "n3", Admission(D))
    assert table.receive("n1", "n3", request) == []
    learning = formed(LEAVING, LEARNING)
    assert learning.receive("n1", "n3", request) == []
    assert learning["n3"].term == 1


def test_a_learner_does_not_stand_for_election() -> None:
    table = formed(LEAVING, LEARNING)
    for _ in range(5):
        table.tick("n3")
    assert table["n3"].role is Role.FOLLOWER
    assert not table.take()


def test_an_empty_replica_takes_entries_only_after_an_admission_of_its_store() -> None:
    append = Append(1, 0, 0, 1, 1, (first_entry(("n1", "n2", "n3")),))
    table = Table()
    table.wipe("n3", D)
    assert table.receive("n1", "n3", append) == []
    table.receive("n1", "n3", Admission(C))
    assert table.receive("n1", "n3", append) == []
    table.receive("n1", "n3", Admission(D))
    table.receive("n1", "n3", append)
    assert table["n3"].last_index == 1
    assert table["n3"].learns


def test_the_stores_of_a_configuration_are_admitted_without_entry_1() -> None:
    table = formed(LEAVING, LEARNING)
    table.receive("n3", "n2", FoundingQuestion(D), D)
    assert [mail[2] for mail in table.take()] == [Admission(D)]


# -- what counts -----------------------------------------------------------------------------------


def _led(table: Table) -> Core:
    """n1 leads, everything so far is committed by all; what follows is answered by hand."""
    table.elect("n1")
    pass_time(table)
    table.take()
    return table["n1"]


def _ack(table: Table, name: str, index: int, store: str | None = None) -> None:
    table.receive(name, "n1", AppendReply(table["n1"].term, True, index, 0, 0, 0), store)


def test_a_learners_copy_counts_for_nothing() -> None:
    table = formed(LEAVING, LEARNING)
    table.elect("n1", ("n1", "n2"))
    core = table["n1"]
    table.propose("n1", b"x")
    table.sync("n1")
    index = core.last_index
    _ack(table, "n3", index)
    assert core.commit_index < index
    _ack(table, "n2", index)
    assert core.commit_index == index


def test_what_a_replaced_store_says_counts_for_nothing() -> None:
    table = Table()
    core = _led(table)
    table.propose("n1", b"x")
    table.sync("n1")
    _ack(table, "n3", core.last_index, D)
    assert core.commit_index < core.last_index
    _ack(table, "n3", core.last_index, C)
    assert core.commit_index == core.last_index


def test_a_joint_configuration_commits_by_both_majorities() -> None:
    """Half of the union is not enough: n1 and n3 are a majority of the new voters, not of the old ones."""
    table = formed(LEAVING, LEARNING, RETURNING)
    table.now += 3 * T
    table.tick("n1")
    for _ in range(4):
        table.sync()
        table.deliver(lambda sender, to, message: not isinstance(message, Append))
    table.sync("n1")
    core = table["n1"]
    assert (core.role, core.configuration, core.commit_index) == (Role.LEADER, RETURNING, 0)
    _ack(table, "n3", core.last_index)
    assert core.commit_index == 0
    _ack(table, "n2", 5)
    assert core.commit_index == 5


def test_a_joint_configuration_elects_by_both_majorities() -> None:
    table = formed(LEAVING, LEARNING, RETURNING)
    table.now += 3 * T
    table.tick("n1")
    table.take()
    reply = VoteReply(2, True, pre=True)
    table.receive("n3", "n1", reply)
    assert table["n1"].role is Role.PRE_CANDIDATE
    table.receive("n2", "n1", reply)
    assert table["n1"].role is Role.CANDIDATE
    table.sync("n1")
    table.receive("n3", "n1", VoteReply(2, True, pre=False))
    assert table["n1"].role is Role.CANDIDATE
    table.receive("n2", "n1", VoteReply(2, True, pre=False))
    assert table["n1"].role is Role.LEADER


def test_the_vote_of_a_learner_or_a_replaced_store_elects_nobody() -> None:
    table = formed(LEAVING, LEARNING)
    table.now += 3 * T
    table.tick("n1")
    for store in (C, D):
        table.receive("n3", "n1", VoteReply(2, True, pre=True), store)
    assert table["n1"].role is Role.PRE_CANDIDATE


def test_a_newer_term_in_the_answer_of_a_replaced_store_deposes_nobody() -> None:
    table = formed(LEAVING, LEARNING)
    table.receive("n3", "n1", VoteReply(9, False, pre=True), C)
    assert table["n1"].term == 1
    table.receive("n2", "n1", VoteReply(9, False, pre=True))
    assert table["n1"].term == 9


def test_a_learner_alone_does_not_keep_a_leader_in_office() -> None:
    table = formed(LEAVING, LEARNING)
    table.elect("n1", ("n1", "n2"))
    for _ in range(8):
        table.now += T // 4
        if table["n1"].role is Role.LEADER:
            _ack(table, "n3", 1)
        table.tick("n1", table.now)
    assert table["n1"].role is not Role.LEADER


def test_a_learner_alone_confirms_no_read() -> None:
    table = formed(LEAVING, LEARNING)
    table.elect("n1", ("n1", "n2"))
    pass_time(table, "n1", "n2", beats=2)
    table.take()
    table.read("n1", 7)
    table.deliver(lambda sender, to, message: to == "n3")
    table.deliver(lambda sender, to, message: sender == "n3")
    assert not [effect for effect in table.effects["n1"] if getattr(effect, "id", None) == 7]


# -- promotion -------------------------------------------------------------------------------------


def test_a_learner_that_is_behind_is_not_promoted() -> None:
    table = formed(LEAVING, LEARNING)
    table.elect("n1", ("n1", "n2"))
    pass_time(table, "n1", "n2", beats=8)
    assert table["n1"].configuration == LEARNING
    pass_time(table, beats=12, until=lambda: table["n1"].configuration == RETURNED)
    assert table["n1"].configuration == RETURNED


def test_a_learner_whose_round_took_longer_than_an_election_timeout_gets_another() -> None:
    table = formed(LEAVING, LEARNING)
    table.elect("n1", ("n1", "n2"))
    pass_time(table, "n1", "n2", beats=6)
    index = table["n1"].last_index
    table.propose("n1", b"x")
    _ack(table, "n3", index)
    assert table["n1"].configuration == LEARNING, "the first round began more than an election timeout ago"
    table.now += MS
    _ack(table, "n3", index + 1)
    assert table["n1"].configuration == RETURNING


def test_the_joint_step_in_is_left_when_the_new_voter_knows_that_it_is_one() -> None:
    table = formed(LEAVING, LEARNING, RETURNING)
    table.elect("n1", ("n1", "n2"))
    pass_time(table, "n1", "n2", beats=6)
    assert table["n1"].configuration == RETURNING
    _ack(table, "n3", table["n1"].last_index)
    assert table["n1"].configuration == RETURNED


def test_the_new_voter_that_is_wiped_meanwhile_does_not_hold_the_joint_step() -> None:
    table = formed(LEAVING, LEARNING, RETURNING)
    table.elect("n1", ("n1", "n2"))
    table.wipe("n3", "e" * 32)
    again = replace(RETURNED, voters={"n1": A, "n2": B, "n3": "e" * 32}, retired=(C, D))
    pass_time(table, beats=40, until=lambda: table["n1"].configuration == again)
    assert table["n1"].configuration == again


# -- appended, truncated, left ---------------------------------------------------------------------


def test_a_configuration_counts_when_it_is_appended_and_no_longer_when_it_is_truncated() -> None:
    table = Table()
    table.receive("n2", "n1", Append(1, 1, 1, 1, 1, (entry(LEAVING, 2),)))
    assert table["n1"].configuration == LEAVING
    assert table["n1"].committed_configuration == FOUNDED
    table.sync()
    table.take()
    table.receive("n3", "n1", Append(2, 1, 1, 1, 1, (Entry(2, 2, 0, b""),)))
    assert table["n1"].configuration == FOUNDED
    assert history(table, "n1") == [LEAVING, FOUNDED]
    table.sync()
    table.start("n1")
    assert table["n1"].configuration == FOUNDED


def test_a_voter_that_falls_back_to_learner_stops_standing_for_election() -> None:
    table = formed(LEAVING, LEARNING, RETURNING)
    assert table["n3"].votes
    table.receive("n2", "n3", Append(2, 3, 1, 3, 1, (Entry(2, 4, 0, b""),)))
    assert table["n3"].configuration == LEARNING
    assert not table["n3"].votes


def test_a_leader_that_is_not_in_the_new_configuration_steps_down_once_it_is_committed() -> None:
    table = Table()
    core = _led(table)
    out = enter_joint(FOUNDED, {"n2": B, "n3": C}, {})
    core._replication.reconfigure(out)
    table.sync("n1")
    assert core.role is Role.LEADER, "it leads until the change is committed (dissertation §4.2.2)"
    pass_time(table)
    assert core.configuration == leave_joint(out)
    assert core.role is Role.FOLLOWER
    assert "without this leader" in [effect for effect in table.effects["n1"] if hasattr(effect, "why")][-1].why
    assert core.commit_index == core.last_index
    table.now += 10 * T
    assert not table.tick("n1"), "and it neither campaigns nor asks"
    table.elect("n2", ("n2", "n3"))


def test_a_leader_outside_the_new_voters_does_not_count_itself() -> None:
    table = Table()
    core = _led(table)
    core._replication.reconfigure(enter_joint(FOUNDED, {"n2": B, "n3": C}, {}))
    table.sync("n1")
    index = core.last_index
    _ack(table, "n2", index)
    assert core.commit_index < index, "two of three old voters, one of two new ones"
    _ack(table, "n3", index)
    assert core.commit_index >= index


def test_an_append_with_a_configuration_that_does_not_decode_is_refused_before_the_log_changes() -> None:
    table = Table()
    with pytest.raises(ProtocolViolation, match="configuration"):
        table.receive("n2", "n1", Append(1, 1, 1, 1, 1, (Entry(1, 2, CONFIGURATION, b"?"),)))
    assert table["n1"].last_index == 1


def test_requests_of_a_store_that_we_do_not_know_yet_are_answered() -> None:
    """A replica that missed the change must still follow, and vote for, the new store (dissertation §4.1)."""
    table = Table()
    table.receive("n3", "n1", Append(2, 1, 1, 1, 1, ()), D)
    assert table["n1"].leader == "n3"
    table.take()
    table.now += 5 * T
    table.receive("n3", "n2", VoteRequest(3, 9, 2, False, False), D)
    table.sync("n2")
    assert (table["n2"].voted_for, table["n2"].term) == ("n3", 3)
