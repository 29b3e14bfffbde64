from __future__ import annotations

from raft.effects import ReadReady, ReadRefused, Send
from raft.messages import Append, AppendReply
from tests.support.raft_table import T, Table


def _answers(table: Table, name: str = "n1") -> list[tuple[int, int]]:
    return [(effect.id, effect.index) for effect in table.seen(name, ReadReady)]


def test_a_read_is_released_by_a_quorum_round_begun_after_it() -> None:
    """Dissertation §6.4."""
    table = Table()
    table.elect("n1")
    table.take()
    effects = table.read("n1", 7, 8)
    rounds = [effect.message.sequence for effect in effects if isinstance(effect, Send)]
    assert rounds == [1, 1]
    assert _answers(table) == []
    table.receive("n2", "n1", AppendReply(2, True, 2, 0, 0, 0))
    assert _answers(table) == [], "an answer to an earlier message proves nothing about now"
    table.receive("n2", "n1", AppendReply(2, True, 2, 0, 0, 1))
    assert _answers(table) == [(7, 2), (8, 2)]


def test_the_index_is_the_commit_index_when_the_read_was_asked() -> None:
    table = Table()
    table.elect("n1")
    table.propose("n1", b"x")
    table.settle()
    table.read("n1", 1)
    table.propose("n1", b"y")
    table.settle()
    assert table["n1"].commit_index == 4
    assert _answers(table) == [(1, 3)]


def test_a_new_leader_answers_no_read_before_an_entry_of_its_term_commits() -> None:
    table = Table()
    table.now = 2 * T
    table.tick("n1")
    for _ in range(4):
        table.deliver()
        table.sync("n1", "n2", "n3")
    assert (table["n1"].role, table["n1"].commit_index) == ("leader", 0)
    table.read("n1", 1)
    assert table["n1"].commit_index == 0
    table.settle()
    assert _answers(table) == [(1, 2)]


def test_a_follower_refuses_and_names_the_leader() -> None:
    table = Table()
    table.elect("n1")
    assert table.read("n2", 5) == [ReadRefused(5, "not-leader", "n1")]


def test_a_leader_cut_off_answers_no_quorum_when_it_steps_down() -> None:
    table = Table()
    table.elect("n1")
    table.read("n1", 1)
    while table["n1"].role == "leader":
        table.take()
        table.tick("n1")
    assert table.seen("n1", ReadRefused) == [ReadRefused(1, "no-quorum", None)]
    assert table.read("n1", 2) == [ReadRefused(2, "not-leader", None)]


def test_a_deposed_leader_refuses_what_waits_and_names_the_new_one() -> None:
    table = Table()
    table.elect("n1")
    table.read("n1", 1)
    table.take()
    table.receive("n2", "n1", Append(3, 2, 2, 2, 0, ()))
    assert table.seen("n1", ReadRefused) == [ReadRefused(1, "not-leader", "n2")]


def test_a_refused_append_of_the_same_term_also_confirms_the_leader() -> None:
    table = Table()
    table.elect("n1")
    table.read("n1", 1)
    table.receive("n2", "n1", AppendReply(2, False, 2, 0, 1, 1))
    assert _answers(table) == [(1, 2)]


def test_later_reads_share_a_round_when_enough_are_under_way() -> None:
    table = Table()
    table.elect("n1")
    table.take()
    for number in range(1, 11):
        table.read("n1", number)
    sent = [mail[2].sequence for mail in table.mail if mail[1] == "n2"]
    assert sent == [1, 2, 3, 4]
    table.settle()
    assert [read for read, _ in _answers(table)] == list(range(1, 11))


def test_a_made_up_round_number_confirms_nothing_that_was_not_begun() -> None:
    table = Table()
    table.elect("n1")
    table.receive("n2", "n1", AppendReply(2, True, 2, 0, 0, 1 << 40))
    table.read("n1", 1)
    assert _answers(table) == []


def test_a_single_voter_reads_at_once() -> None:
    table = Table(names=("n1",))
    table.tick("n1")
    table.settle()
    table.read("n1", 1)
    assert _answers(table) == [(1, 2)]
