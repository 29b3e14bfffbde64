from __future__ import annotations

import pytest

from raft.durability import Durability
from raft.effects import Appended, Persist, ReadReady, ReadRefused, Send
from raft.events import Proposal, Proposed
from raft.log import Log
from raft.messages import COMMAND, Append, AppendReply, Entry, VoteReply, VoteRequest
from tests.support.raft_table import T, Table


def _log(*terms: int) -> Log:
    return Log([Entry(term, index, COMMAND, b"") for index, term in enumerate(terms, 1)])


def test_a_write_counts_when_it_completed_and_not_before() -> None:
    own = Durability(1)
    assert own.begin(3, False, 7) == 1
    assert (own.index, own.oldest_write_ns) == (1, 7)
    own.completed(1, 1, 3, _log(1, 1, 1))
    assert (own.index, own.oldest_write_ns) == (3, None)


def test_one_completion_may_stand_for_several_merged_writes() -> None:
    own = Durability(0)
    for last in (1, 2, 3):
        own.begin(last, last == 2, 0)
    assert not own.hard_state_durable
    own.completed(2, 1, 2, _log(1, 1, 1))
    assert (own.index, own.hard_state_durable) == (2, True)


def test_a_hard_state_is_durable_only_when_the_last_change_of_it_is() -> None:
    own = Durability(0)
    own.begin(0, True, 0)
    own.begin(0, True, 0)
    own.completed(1, 0, 0, _log())
    assert not own.hard_state_durable
    own.completed(2, 0, 0, _log())
    assert own.hard_state_durable


@pytest.mark.parametrize(
    ("on_disk", "counts"),
    [((2, 5), False), ((3, 5), True)],
    ids=["the overwritten suffix", "what replaced it"],
)
def test_a_completion_counts_only_if_it_names_the_entry_that_is_in_the_log(
    on_disk: tuple[int, int], counts: bool
) -> None:
    own = Durability(4)
    own.begin(5, False, 0)
    own.completed(1, *on_disk, _log(1, 1, 1, 2, 3))
    assert own.index == (5 if counts else 4)


def test_an_entry_that_was_overwritten_and_came_back_waits_for_its_own_write() -> None:
    """ABA: write 1 holds 5@2, write 2 holds 5@3, write 3 holds 5@2 again; the first two prove nothing about it."""
    own = Durability(4)
    own.begin(5, False, 0)
    own.overwritten(5)
    own.begin(5, False, 0)
    own.overwritten(5)
    own.begin(5, False, 0)
    log = _log(1, 1, 1, 2, 2)
    own.completed(1, 2, 5, log)
    assert own.index == 4
    own.completed(2, 3, 5, log)
    assert own.index == 4
    own.completed(3, 2, 5, log)
    assert own.index == 5


def test_overwriting_takes_back_what_was_durable() -> None:
    own = Durability(9)
    own.overwritten(6)
    assert own.index == 5


def test_a_follower_acknowledges_an_entry_that_came_back_only_after_its_own_write() -> None:
    """The ABA race through the whole core: n1's 5@2 is overwritten by n2's 5@3, then sent again in term 4."""
    table = Table(logs={"n3": [1]})
    one = Entry(2, 2, COMMAND, b"old")
    table.receive("n1", "n3", Append(2, 1, 1, 0, 1, (one,)))
    table.receive("n2", "n3", Append(3, 1, 1, 0, 1, (Entry(3, 2, COMMAND, b"new"),)))
    table.receive("n1", "n3", Append(4, 1, 1, 0, 1, (one,)))
    for _ in range(2):
        table.sync_one("n3")
        table.receive("n1", "n3", Append(4, 2, 2, 0, 2, ()))
        heartbeats = [send for send in table.seen("n3", Send) if send.message.sequence == 2]
        assert all(send.message.match_index < 2 for send in heartbeats), "an empty Append promises what is durable"
        assert table["n3"].durable_index == 1
    table.sync_one("n3")
    assert table["n3"].durable_index == 2
    assert [effect.first for effect in table.seen("n3", Appended)] == [2], "the overwritten ones never were durable"


def test_votes_and_vote_requests_wait_for_the_disk() -> None:
    table = Table()
    table.now = 2 * T
    table.tick("n1")
    table.deliver(lambda *mail: isinstance(mail[2], VoteRequest))
    table.deliver(lambda *mail: isinstance(mail[2], VoteReply))
    assert table["n1"].role == "candidate"
    assert not table.mail, "the request is held until the candidate's term and vote are on disk"
    table.sync("n1")
    assert [type(mail[2]) for mail in table.mail] == [VoteRequest, VoteRequest]
    table.deliver()
    assert not table.mail, "the grants are held until they are on disk"
    table.sync("n2")
    assert [mail[2] for mail in table.mail] == [VoteReply(2, True, False)]


def test_a_term_that_is_not_durable_is_not_spoken_of_even_in_a_refusal() -> None:
    table = Table(logs={"n1": [1, 1]})
    effects = table.receive("n2", "n1", VoteRequest(9, 1, 1, False, False))
    replies = [effect for effect in effects if isinstance(effect, Send)]
    assert [(reply.message, reply.after_persist) for reply in replies] == [(VoteReply(9, False, False), True)]
    effects = table.receive("n3", "n1", Append(4, 1, 1, 0, 0, ()))
    assert [effect.after_persist for effect in effects if isinstance(effect, Send)] == [True]
    table.sync("n1")
    effects = table.receive("n3", "n1", Append(4, 1, 1, 0, 0, ()))
    assert [effect.after_persist for effect in effects if isinstance(effect, Send)] == [False]


def test_a_candidate_does_not_count_its_own_vote_before_it_is_durable() -> None:
    table = Table(names=("n1",))
    table.tick("n1")
    assert table["n1"].role == "candidate"
    table.sync_one("n1")
    assert table["n1"].role == "leader"


def test_the_leader_sends_before_its_own_write_is_durable_and_does_not_count_it() -> None:
    table = Table()
    table.elect("n1")
    effects = table.propose("n1", b"a")
    assert isinstance(effects[0], Persist)
    assert [effect.after_persist for effect in effects if isinstance(effect, Send)] == [False, False]
    table.deliver(lambda sender, to, message: to == "n2")
    table.sync("n2")
    table.deliver(lambda sender, to, message: sender == "n2")
    assert table["n1"].commit_index == 2, "one follower and an unwritten own copy are no majority"
    table.sync("n1")
    assert table["n1"].commit_index == 3


def test_followers_may_commit_before_the_leaders_own_disk() -> None:
    table = Table()
    table.elect("n1")
    table.propose("n1", b"a")
    for _ in range(3):
        table.deliver()
        table.sync("n2", "n3")
    assert (table["n1"].commit_index, table["n1"].durable_index) == (3, 2)


def test_an_acknowledgement_is_sent_at_once_when_everything_it_promises_is_durable() -> None:
    table = Table()
    table.elect("n1")
    table.propose("n1", b"a")
    append = next(mail[2] for mail in table.mail if mail[1] == "n2")
    table.settle()
    effects = table.receive("n1", "n2", append)
    replies = [effect for effect in effects if isinstance(effect, Send)]
    assert [(reply.message.match_index, reply.after_persist) for reply in replies] == [(3, False)]


def test_a_heartbeat_is_answered_while_the_disk_is_busy() -> None:
    table = Table()
    table.elect("n1")
    table.propose("n1", b"a")
    table.deliver()
    assert not table.mail
    table.receive("n1", "n2", Append(2, 3, 2, 2, 9, ()))
    assert [mail[2] for mail in table.mail] == [AppendReply(2, True, 2, 0, 0, 9)]


def test_a_leader_whose_own_write_hangs_steps_down_and_does_not_stand_again() -> None:
    table = Table()
    table.elect("n1")
    table.step("n1", Proposed(table.now, (Proposal(1, b"a"),)))
    start = table.now
    while table["n1"].role == "leader":
        table.tick("n1")
        table.deliver()
        table.sync("n2", "n3")
        assert table.now < start + 2 * T
    assert table.now == start + T, "to the moment"
    table.tick("n1")
    assert table["n1"].role == "follower", "a term it cannot write would only stand in the way"
    table.sync("n1")
    table.tick("n1")
    assert table["n1"].role == "pre-candidate"


def test_it_steps_down_to_the_moment_and_sends_nothing_that_renews_anything_after_it() -> None:
    table = Table(heartbeat_ns=T - 1)
    table.elect("n1")
    table.propose("n1", b"a")
    hung = table.now
    table.deliver()
    table.sync("n2", "n3")
    table.deliver()
    assert table["n1"].commit_index == table["n1"].last_index, "the others have it: the leader's disk is not needed"
    table.read("n1", 1)
    assert table["n1"].next_deadline_ns() <= hung + T
    table.tick("n1", hung + T)
    assert table["n1"].role == "follower"
    assert [effect.id for effect in table.seen("n1", ReadRefused)] == [1]
    table.mail.clear()
    table.read("n1", 2)
    for name in ("n2", "n3"):  # late answers to the round that began before
        table.receive(name, "n1", AppendReply(table["n1"].term, True, table["n1"].last_index, 0, 0, 1))
    for _ in range(8):
        table.tick("n1")
    assert not [message for sender, _, message in table.mail if sender == "n1" and isinstance(message, Append)]
    assert [effect.id for effect in table.seen("n1", ReadRefused)] == [1, 2]
    assert not table.seen("n1", ReadReady)


def test_a_late_answer_confirms_nothing_once_the_write_has_hung_too_long() -> None:
    """The answers of the round come before the timer: whichever is first, the read is not confirmed."""
    table = Table()
    table.elect("n1")
    table.propose("n1", b"a")
    table.deliver()
    table.sync("n2", "n3")
    table.read("n1", 1)
    table.take()
    table.now += T
    table.receive("n2", "n1", AppendReply(table["n1"].term, True, table["n1"].last_index, 0, 0, 1))
    assert not table.seen("n1", ReadReady)
