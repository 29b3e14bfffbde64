from __future__ import annotations

import pytest

from raft.effects import Persist, RoleChanged, Send, VoteCast
from raft.events import Tick
from raft.messages import NOOP, Append, AppendReply, HardState, VoteReply, VoteRequest
from tests.support.raft_table import T, Table


@pytest.mark.parametrize(
    ("voter", "candidate", "granted"),
    [
        ([1], [1], True),
        ([1, 1], [1], False),
        ([1], [1, 1], True),
        ([1, 2], [1, 1, 1], False),
        ([1, 1, 1], [1, 2], True),
        ([1, 2, 2], [1, 2], False),
        ([1, 2, 2], [1, 2, 2], True),
        ([1, 1, 1, 3], [1, 2, 2, 2, 2], False),
    ],
)
@pytest.mark.parametrize("pre", [True, False])
def test_a_vote_goes_only_to_a_log_at_least_as_up_to_date(
    voter: list[int], candidate: list[int], granted: bool, pre: bool
) -> None:
    """§5.4.1."""
    table = Table(logs={"n1": voter})
    table.receive("n2", "n1", VoteRequest(7, len(candidate), candidate[-1], pre, False))
    table.sync("n1")
    assert [mail[2].granted for mail in table.mail] == [granted]


def test_one_vote_a_term_and_the_same_one_again() -> None:
    """§5.2: repeated requests get the same answer."""
    table = Table()
    for sender in ("n2", "n3", "n2"):
        table.receive(sender, "n1", VoteRequest(2, 1, 1, False, False))
    table.sync("n1")
    assert [(mail[1], mail[2].granted) for mail in table.mail] == [("n2", True), ("n3", False), ("n2", True)]
    assert [(cast.term, cast.candidate) for cast in table.seen("n1", VoteCast)] == [(2, "n2")]


def test_a_vote_survives_a_restart() -> None:
    table = Table()
    table.receive("n2", "n1", VoteRequest(2, 1, 1, False, False))
    table.sync("n1")
    table.start("n1")
    table.take()
    table.receive("n3", "n1", VoteRequest(2, 1, 1, False, False))
    assert [mail[2] for mail in table.mail] == [VoteReply(2, False, False)]


def test_a_request_of_an_earlier_term_is_refused_with_the_newer_term() -> None:
    table = Table(hard={"n1": HardState(5, None)})
    table.receive("n2", "n1", VoteRequest(4, 9, 4, False, False))
    assert [mail[2] for mail in table.mail] == [VoteReply(5, False, False)]


def test_the_timeout_is_drawn_from_t_to_2t() -> None:
    deadlines = [Table(names=("n1", "n2", f"n{seed}"))[f"n{seed}"].next_deadline_ns() for seed in range(30, 90)]
    assert all(T <= deadline <= 2 * T for deadline in deadlines)
    assert len(set(deadlines)) > 50
    assert max(deadlines) - min(deadlines) > T * 3 // 4


def test_a_pre_vote_changes_no_term_anywhere() -> None:
    """Dissertation §9.6."""
    table = Table()
    table.now = 2 * T
    effects = table.tick("n1")
    assert not [effect for effect in effects if isinstance(effect, Persist)]
    table.deliver(lambda *mail: isinstance(mail[2], VoteRequest))
    assert {table[name].term for name in table.names} == {1}
    assert [mail[2] for mail in table.mail] == [VoteReply(2, True, True)] * 2


def test_a_replica_that_returns_deposes_nobody() -> None:
    """A replica cut off for long tries and tries, and has raised no term when it is back."""
    table = Table()
    table.elect("n1")
    for _ in range(60):
        table.tick(min(table.names, key=lambda name: table[name].next_deadline_ns()))
        table.settle(("n1", "n2"))
    assert table["n3"].role == "pre-candidate"
    table.beat("n1")
    table.settle()
    assert (table["n1"].role, table["n1"].term, table["n3"].role) == ("leader", 2, "follower")


def test_votes_are_refused_while_a_leader_is_heard() -> None:
    """Stickiness (§6): not even a higher term is adopted."""
    table = Table()
    table.elect("n1")
    for pre in (True, False):
        table.receive("n3", "n2", VoteRequest(9, 99, 8, pre, False))
        assert [mail[2] for mail in table.take()] == [VoteReply(2, False, pre)]
    assert table["n2"].term == 2
    table.receive("n3", "n1", VoteRequest(9, 99, 8, False, False))
    assert table["n1"].role == "leader", "the leader itself sticks, too"


def test_stickiness_ends_a_timeout_after_the_last_word_of_the_leader() -> None:
    table = Table()
    table.elect("n1")
    heard = table.now
    table.now = heard + T - 1
    table.receive("n3", "n2", VoteRequest(3, 99, 2, True, False))
    table.now = heard + T
    table.receive("n3", "n2", VoteRequest(3, 99, 2, True, False))
    assert [mail[2].granted for mail in table.mail] == [False, True]


def test_a_leadership_transfer_is_not_stopped_by_stickiness() -> None:
    table = Table()
    table.elect("n1")
    table.receive("n3", "n2", VoteRequest(3, 99, 2, False, True))
    table.sync("n2")
    assert [mail[2] for mail in table.mail] == [VoteReply(3, True, False)]


def test_a_leader_without_a_quorum_steps_down_within_a_timeout() -> None:
    """Check-quorum (dissertation §6.2): it must not keep clients or followers waiting."""
    table = Table()
    table.elect("n1")
    since = table.now
    while table["n1"].role == "leader":
        table.tick("n1")
        table.take()
    assert table.now == since + T
    assert table["n1"].leader is None
    assert "check-quorum" in table.seen("n1", RoleChanged)[-1].why


def test_one_follower_of_two_is_quorum_enough() -> None:
    table = Table()
    table.elect("n1")
    for _ in range(40):
        table.tick("n1")
        table.settle(("n1", "n3"))
    assert table["n1"].role == "leader"


def test_a_connected_majority_elects_although_one_of_them_still_hears_the_old_leader() -> None:
    """Bridge partition: n1 (leader) reaches only n2; n2, n3, n4 and n5 reach each other."""
    table = Table(names=("n1", "n2", "n3", "n4", "n5"))
    table.elect("n1")

    def connected(sender: str, to: str) -> bool:
        return "n1" not in (sender, to) or "n2" in (sender, to)

    for _ in range(400):
        name = min(table.names, key=lambda each: (table[each].next_deadline_ns(), each))
        table.tick(name)
        for _ in range(12):
            table.sync()
            table.take(lambda sender, to, message: not connected(sender, to))
            table.deliver()
        if any(table[each].role == "leader" for each in table.names[1:]):
            break
    assert table["n1"].role != "leader"
    assert any(table[each].role == "leader" for each in table.names[1:])


def test_a_split_vote_is_settled_in_a_later_term() -> None:
    table = Table(names=("n1", "n2", "n3", "n4"))
    table.now = 2 * T
    for name in ("n1", "n2"):
        table.tick(name)
    table.deliver()
    table.deliver()
    table.sync()
    assert [table[name].role for name in ("n1", "n2")] == ["candidate", "candidate"]
    pairs = {("n1", "n3"), ("n2", "n4")}
    table.deliver(lambda sender, to, message: (sender, to) in pairs)
    table.sync()
    table.take(lambda sender, to, message: isinstance(message, VoteRequest))
    table.deliver()
    assert [table[name].role for name in ("n1", "n2")] == ["candidate", "candidate"], "two votes of four each"
    table.take()
    table.elect("n1")
    assert table["n1"].term == 3


def test_late_or_repeated_votes_do_not_elect() -> None:
    table = Table(names=("n1", "n2", "n3", "n4", "n5"))
    table.now = 2 * T
    table.tick("n1")
    table.deliver()
    table.deliver()
    table.sync("n1")
    assert table["n1"].role == "candidate"
    for reply in (
        VoteReply(2, True, False),
        VoteReply(2, True, False),
        VoteReply(1, True, False),
        VoteReply(3, True, True),
    ):
        table.receive("n2", "n1", reply)
        assert table["n1"].role == "candidate"
    table.receive("n3", "n1", VoteReply(2, True, False))
    assert table["n1"].role == "leader"


def test_a_higher_term_in_any_answer_ends_a_candidacy_or_an_office() -> None:
    table = Table()
    table.elect("n1")
    table.receive("n2", "n1", AppendReply(8, False, 1, 0, 2, 0))
    assert (table["n1"].role, table["n1"].term, table["n1"].voted_for) == ("follower", 8, None)


def test_a_refused_pre_vote_of_a_newer_term_is_learnt_from() -> None:
    """Or a replica with a short log and a high term would never let the others elect."""
    table = Table(hard={"n3": HardState(6, None)}, logs={"n1": [1, 1], "n2": [1, 1]})
    table.now = 2 * T
    table.tick("n1")
    table.deliver(lambda sender, to, message: to == "n3")
    table.deliver(lambda sender, to, message: to == "n1")
    assert (table["n1"].role, table["n1"].term) == ("follower", 6)
    table.take()
    table.sync("n1")
    table.elect("n1")
    assert table["n1"].term == 7


def test_a_candidate_follows_whoever_won_its_term() -> None:
    table = Table()
    table.now = 2 * T
    table.tick("n1")
    table.deliver()
    table.deliver()
    table.receive("n2", "n1", Append(2, 1, 1, 0, 0, ()))
    assert (table["n1"].role, table["n1"].leader, table["n1"].voted_for) == ("follower", "n2", "n1")


def test_a_new_leader_opens_its_term_with_a_no_op() -> None:
    """§8, and §5.4.2: nothing earlier commits without it."""
    table = Table(logs={name: [1, 1, 1] for name in ("n1", "n2", "n3")})
    table.elect("n1")
    entry = table["n1"].log.entry(4)
    assert (entry.term, entry.kind, entry.data) == (2, NOOP, b"")
    assert table["n1"].commit_index == 4


def test_a_single_voter_elects_itself_at_once() -> None:
    table = Table(names=("n1",))
    assert table["n1"].next_deadline_ns() == 0
    table.tick("n1")
    table.settle()
    assert (table["n1"].role, table["n1"].commit_index) == ("leader", 2)


def test_the_leader_beats_four_times_a_timeout() -> None:
    table = Table()
    table.elect("n1")
    table.tick("n1", table.now)
    first = table["n1"].next_deadline_ns()
    while table["n1"].next_deadline_ns() < first + T:
        table.tick("n1")
        table.settle()
    beats = [send for send in table.seen("n1", Send) if isinstance(send.message, Append) and not send.message.entries]
    assert 8 <= len(beats) <= 14


def test_a_message_from_nobody_of_this_cluster_is_ignored() -> None:
    table = Table()
    assert table.receive("n9", "n1", VoteRequest(99, 99, 98, False, False)) == []
    assert table["n1"].term == 1


def test_an_early_tick_does_nothing() -> None:
    table = Table()
    assert table.step("n1", Tick(T - 1)) == []
