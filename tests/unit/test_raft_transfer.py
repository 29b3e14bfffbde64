"""Handing leadership over: who is told, what is closed meanwhile, and when the leader goes on."""

from __future__ import annotations

from raft.effects import HandedOver, HandOverRefused, ProposalAppended, ProposalRefused, RoleChanged
from raft.events import HandOver
from raft.messages import Append, AppendReply, Configuration, JoinRequest, TimeoutNow, VoteRequest
from tests.support.raft_table import T, Table


def led(*names: str, **config: int) -> Table:
    table = Table(names or ("n1", "n2", "n3"), **config)
    table.elect("n1")
    return table


def hand_over(table: Table, name: str, to: str | None = None) -> None:
    table.step(name, HandOver(table.now, 7, to))


def test_a_voter_that_holds_everything_is_told_at_once_and_leads() -> None:
    table = led()
    term = table["n1"].term
    hand_over(table, "n1", "n3")
    assert ("n1", "n3", TimeoutNow(term)) in table.mail
    table.settle()
    assert table["n3"].role == "leader"
    assert table["n3"].term == term + 1
    assert table.seen("n1", HandedOver) == [HandedOver(7, "n3")]
    stood = next(effect for effect in table.seen("n3", RoleChanged) if effect.term == term + 1)
    assert stood.why == "n1 hands its leadership over"


def test_it_passes_the_stickiness_of_those_who_hear_the_leader() -> None:
    """Two steps after a heartbeat nobody would grant an ordinary vote; the successor says that it is one."""
    table = led()
    table.beat("n1")
    table.settle()
    hand_over(table, "n1", "n2")
    table.deliver()
    table.sync("n2")
    asked = [message for _, _, message in table.mail if isinstance(message, VoteRequest)]
    assert asked
    assert all(message.transfer and not message.pre for message in asked)
    table.settle()
    assert table["n2"].role == "leader"


def test_one_that_lacks_entries_is_told_only_when_it_has_them_on_disk() -> None:
    table = led()
    table.propose("n1", b"x")
    table.take(lambda sender, to, message: to == "n3")
    hand_over(table, "n1")
    assert not [message for _, _, message in table.mail if isinstance(message, TimeoutNow)]
    table.deliver(lambda sender, to, message: isinstance(message, Append))
    assert not table.deliver(lambda sender, to, message: isinstance(message, AppendReply)), "n2's disk has it not yet"
    table.sync("n2")
    table.deliver(lambda sender, to, message: isinstance(message, AppendReply))
    assert [to for _, to, message in table.mail if isinstance(message, TimeoutNow)] == ["n2"]


def test_the_log_is_closed_meanwhile_and_open_again_when_nobody_took_over() -> None:
    table = led()
    hand_over(table, "n1", "n2")
    table.take()
    table.propose("n1", b"x")
    assert [effect.code for effect in table.seen("n1", ProposalRefused)] == ["handing-over"]
    started = table.now
    while not table.seen("n1", HandOverRefused):
        table.beat("n1")
        table.deliver(lambda sender, to, message: not isinstance(message, TimeoutNow))
        table.sync()
        table.deliver()
        assert table.now <= started + T + T // 4, "it is bounded by an election timeout"
    assert table.seen("n1", HandOverRefused) == [HandOverRefused(7, "no-successor", "n1")]
    assert table["n1"].role == "leader"
    table.propose("n1", b"y")
    assert len(table.seen("n1", ProposalAppended)) == 1


def test_the_deadline_is_one_that_the_core_asks_to_be_woken_at() -> None:
    table = led(heartbeat_ns=10 * T)
    hand_over(table, "n1")
    assert table["n1"].next_deadline_ns() == table.now + T


def test_a_follower_has_nothing_to_hand_over() -> None:
    table = led()
    hand_over(table, "n2")
    assert table.seen("n2", HandOverRefused) == [HandOverRefused(7, "not-leader", "n1")]


def test_nobody_else_votes_so_nobody_takes_over() -> None:
    table = led("n1")
    hand_over(table, "n1")
    assert table.seen("n1", HandOverRefused) == [HandOverRefused(7, "no-successor", "n1")]


def test_a_voter_that_is_silent_or_unknown_is_no_successor() -> None:
    table = led()
    while table.now - table["n1"].progress["n3"].heard_ns <= T:
        table.beat("n1")
        table.settle(("n1", "n2"))
    for to in ("n3", "n9", "n1"):
        hand_over(table, "n1", to)
    assert [effect.code for effect in table.seen("n1", HandOverRefused)] == ["no-successor"] * 3
    hand_over(table, "n1")
    assert ("n1", "n2", TimeoutNow(table["n1"].term)) in table.mail


def test_a_learner_is_no_successor() -> None:
    table = led()
    table["n1"]._state.configurations._held[-1] = (
        1,
        Configuration("c" * 32, 1, {n: table.stores[n] for n in ("n1", "n2")}, {"n3": table.stores["n3"]}),
    )
    hand_over(table, "n1", "n3")
    assert [effect.code for effect in table.seen("n1", HandOverRefused)] == ["no-successor"]


def test_who_asks_meanwhile_shares_the_hand_over() -> None:
    table = led()
    hand_over(table, "n1", "n2")
    table.step("n1", HandOver(table.now, 8, "n3"))
    table.settle()
    assert table.seen("n1", HandedOver) == [HandedOver(7, "n2"), HandedOver(8, "n2")]


def test_a_late_word_of_an_earlier_term_makes_nobody_stand() -> None:
    table = led()
    late = TimeoutNow(table["n1"].term)
    table.elect("n2")
    term = table["n2"].term
    table.receive("n1", "n3", late)
    assert (table["n3"].role, table["n3"].term) == ("follower", term)


def test_only_the_leader_of_the_term_can_hand_it_over() -> None:
    table = led()
    table.receive("n2", "n3", TimeoutNow(table["n3"].term))
    assert table["n3"].role == "follower"


def test_a_repeated_word_makes_no_second_candidacy() -> None:
    table = led()
    word = TimeoutNow(table["n1"].term)
    table.receive("n1", "n2", word)
    table.receive("n1", "n2", word)
    assert table["n2"].term == word.term + 1


def test_who_could_not_keep_its_vote_does_not_stand() -> None:
    table = led()
    table.propose("n1", b"x")
    table.deliver(lambda sender, to, message: to == "n2")
    table.now += T + 1
    table.tick("n2", table.now)
    table.receive("n1", "n2", TimeoutNow(table["n1"].term))
    assert table["n2"].role == "follower", "its write hangs"


def test_the_successor_with_a_log_behind_is_refused_by_the_others() -> None:
    """Nothing of safety rests on the leader's judgement: told too early, it is simply not elected."""
    table = led()
    table.propose("n1", b"x")
    table.settle(("n1", "n3"))
    table.receive("n1", "n2", TimeoutNow(table["n1"].term))
    table.settle()
    assert table["n2"].role != "leader"


def test_no_configuration_is_changed_while_leadership_is_handed_over() -> None:
    table = led()
    table.wipe("n3", "d" * 32)

    def pass_a_beat() -> None:
        table.beat("n1")
        table.settle(("n1", "n2"))
        table.receive("n3", "n1", JoinRequest("d" * 32))

    for _ in range(4):
        pass_a_beat()
    hand_over(table, "n1", "n2")
    table.take(lambda sender, to, message: isinstance(message, TimeoutNow))
    for _ in range(3):
        pass_a_beat()
        assert table["n1"].last_index == 2, "the no-op of its term came last"
    for _ in range(2):
        pass_a_beat()
    assert table.seen("n1", HandOverRefused)
    assert table["n1"].last_index > 2, "the replacement was due, and comes when the log is open again"
