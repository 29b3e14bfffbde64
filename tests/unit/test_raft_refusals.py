from __future__ import annotations

import pytest

from raft.effects import ProposalAppended, ProposalRefused
from raft.errors import ProtocolViolation
from raft.messages import COMMAND, Append, Entry
from tests.support.raft_table import T, Table

# -- refusals ----------------------------------------------------------------------------------


def _codes(effects: list[object]) -> list[tuple[int, str, str | None]]:
    return [(e.id, e.code, e.leader) for e in effects if isinstance(e, ProposalRefused)]


def test_a_follower_names_the_leader_and_a_cut_off_one_names_nobody() -> None:
    table = Table()
    assert _codes(table.propose("n2", b"x")) == [(1, "not-leader", None)]
    table.elect("n1")
    assert _codes(table.propose("n2", b"x")) == [(2, "not-leader", "n1")]
    while table["n1"].role == "leader":
        table.tick("n1")
        table.take()
    assert _codes(table.propose("n1", b"x")) == [(3, "not-leader", None)]


def test_too_many_uncommitted_bytes_are_overloaded_until_they_commit() -> None:
    table = Table(uncommitted_bytes_max=300)
    table.elect("n1")
    effects = table.propose("n1", *[b"x" * 76] * 5)
    assert [e.id for e in effects if isinstance(e, ProposalAppended)] == [1, 2, 3]
    assert _codes(effects) == [(4, "overloaded", "n1"), (5, "overloaded", "n1")]
    assert _codes(table.propose("n1", b"")) == [(6, "overloaded", "n1")]
    table.settle()
    assert _codes(table.propose("n1", b"x")) == []


def test_one_proposal_larger_than_the_bound_passes_when_nothing_else_waits() -> None:
    table = Table(uncommitted_bytes_max=300)
    table.elect("n1")
    assert _codes(table.propose("n1", b"x" * 1000)) == []
    assert _codes(table.propose("n1", b"")) == [(2, "overloaded", "n1")]


def test_uncommitted_bytes_of_earlier_terms_count() -> None:
    table = Table(logs={name: [1, 1, 1] for name in ("n1", "n2", "n3")}, uncommitted_bytes_max=60)
    table.now = 2 * T
    table.tick("n1")
    for _ in range(4):
        table.sync()
        table.take(lambda sender, to, message: isinstance(message, Append))
        table.deliver()
    assert table["n1"].role == "leader"
    assert _codes(table.propose("n1", b"x")) == [(1, "overloaded", "n1")]


def test_a_full_log_refuses_commands_and_still_takes_the_no_op_of_a_new_leader() -> None:
    table = Table(log_entries_max=16)
    table.elect("n1")
    effects = table.propose("n1", *[b""] * 20)
    assert [code for _, code, _ in _codes(effects)] == ["log-full"] * 8
    table.settle()
    assert table["n1"].last_index == 14, "two of sixteen are kept for no-ops"
    table.elect("n2")
    assert table["n2"].commit_index == 15
    assert [code for _, code, _ in _codes(table.propose("n2", b""))] == ["log-full"]


def test_a_full_log_is_counted_in_bytes_too() -> None:
    table = Table(log_bytes_max=1600)
    table.elect("n1")
    effects = table.propose("n1", *[b"x" * 176] * 7)
    used = table["n1"].log.size_bytes
    assert used <= 1400 < used + 200
    assert {code for _, code, _ in _codes(effects)} == {"log-full"}


# -- what no correct peer sends -----------------------------------------------------------------


def _command(term: int, index: int) -> Entry:
    return Entry(term, index, COMMAND, b"")


@pytest.mark.parametrize(
    "message",
    [
        Append(2, 1, 1, 0, 0, (_command(2, 3),)),
        Append(2, 1, 1, 0, 0, (_command(2, 2), _command(2, 4))),
        Append(2, 1, 1, 0, 0, (_command(3, 2),)),
        Append(3, 1, 1, 0, 0, (_command(3, 2), _command(2, 3))),
        Append(3, 2, 2, 0, 0, (_command(1, 3),)),
        Append(2, 5, 3, 0, 0, ()),
        Append(0, 0, 0, 0, 0, ()),
    ],
    ids=["gap", "hole", "term above its own", "falling terms", "below prev", "prev above its own", "no term"],
)
def test_an_impossible_append_is_a_protocol_violation_and_changes_nothing(message: Append) -> None:
    table = Table()
    with pytest.raises(ProtocolViolation):
        table.receive("n2", "n1", message)
    assert (table["n1"].term, table["n1"].last_index) == (1, 1)
    table.elect("n1")


def test_a_second_leader_in_a_term_is_a_protocol_violation() -> None:
    table = Table()
    table.elect("n1")
    for name in ("n1", "n2"):
        with pytest.raises(ProtocolViolation):
            table.receive("n3", name, Append(2, 1, 1, 0, 0, ()))
    assert table["n1"].role == "leader"


def test_contradicting_a_committed_entry_is_a_protocol_violation() -> None:
    table = Table()
    table.elect("n1")
    table.beat("n1")
    table.settle()
    with pytest.raises(ProtocolViolation):
        table.receive("n3", "n2", Append(9, 1, 1, 0, 0, (_command(9, 2),)))
    assert table.terms("n2") == [1, 2]
    table.receive("n3", "n2", Append(9, 2, 2, 0, 0, (_command(9, 3),)))
    assert table.terms("n2") == [1, 2, 9], "it goes on, in the term it adopted"
