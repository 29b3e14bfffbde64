"""Comparing states: who is told, who is wrong, who goes on, and how a state that is wrong is replaced."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from raft.digests import KEPT, comparable
from raft.effects import (
    Apply,
    Diverged,
    HandedOver,
    ProposalRefused,
    ReadRefused,
    Restore,
    Split,
    TakeDigest,
    TakeSnapshot,
)
from raft.events import ApplyDone, Digested, SnapshotReceived, SnapshotTaken, StateDropped
from raft.messages import (
    Append,
    Configuration,
    DigestReport,
    Message,
    RefetchRequest,
    Snapshot,
    SnapshotChunk,
    TimeoutNow,
)
from tests.support.raft_table import T, Table

A, B, C = "f0:aa", "f0:bb", "f0:cc"


def led(*names: str, **config: int) -> Table:
    table = Table(names or ("n1", "n2", "n3"), **config)
    table.elect("n1")
    return table


def digested(table: Table, index: int = 16, **digests: str) -> None:
    for name, digest in digests.items():
        table.step(name, Digested(table.now, index, digest))


def told(table: Table, kind: type) -> dict[str, list[Any]]:
    return {name: found for name in table.names if (found := table.seen(name, kind))}


def applied(table: Table, count: int) -> int:
    """So many commands are committed and applied everywhere; returns the last index."""
    table.propose("n1", *[b"%d" % number for number in range(count)])
    table.settle()
    table.beat("n1")
    table.settle()
    last = table["n1"].last_index
    for name in table.names:
        table.step(name, ApplyDone(table.now, last))
    return last


def snapshot_of(table: Table, name: str, index: int) -> Snapshot:
    return Snapshot(table[name].describe_snapshot(index), 100, 7)


# -- judging ---------------------------------------------------------------------------------------


def test_equal_digests_change_nothing() -> None:
    table = led()
    digested(table, n1=A, n2=A, n3=A)
    table.settle()
    assert not told(table, Diverged)
    assert not told(table, Split)
    assert [core.digest for core in table.cores.values()] == [(16, A)] * 3


def test_the_one_in_the_minority_is_told_by_itself_and_nobody_else_changes() -> None:
    table = led()
    digested(table, n1=A, n2=A, n3=B)
    table.settle()
    assert told(table, Diverged) == {"n3": [Diverged(16, B, A, ("n1", "n2"))]}
    assert [name for name in table.names if table[name].diverged] == ["n3"]
    assert not table["n1"].split
    table.propose("n1", b"x")
    assert not table.seen("n1", ProposalRefused)


def test_two_of_five_in_different_ways_are_both_wrong() -> None:
    table = led("n1", "n2", "n3", "n4", "n5")
    digested(table, n1=A, n2=B, n3=C, n4=A, n5=A)
    table.settle()
    assert list(told(table, Diverged)) == ["n2", "n3"]


def test_no_majority_halts_writes_everywhere_and_a_majority_lifts_it() -> None:
    table = led()
    digested(table, n1=A, n2=B)
    table.settle()
    assert table["n1"].split
    table.propose("n1", b"x")
    assert [effect.code for effect in table.seen("n1", ProposalRefused)] == ["state-diverged"]
    digested(table, n3=A)
    table.settle()
    assert not table["n1"].split
    assert table.seen("n1", Split)[-1] == Split(16, ())
    assert list(told(table, Diverged)) == ["n2"]
    table.propose("n1", b"y")
    assert len(table.seen("n1", ProposalRefused)) == 1


def test_three_that_differ_stay_halted_and_nobody_gives_its_state_up() -> None:
    table = led()
    digested(table, n1=A, n2=B, n3=C)
    table.settle()
    assert all(core.split for core in table.cores.values())
    assert not told(table, Diverged)
    assert table.seen("n1", Split)[-1].digests == (("n1", A), ("n2", B), ("n3", C))


def test_a_later_index_with_a_majority_overrules_an_earlier_one_without() -> None:
    table = led()
    digested(table, 16, n1=A, n2=B)
    table.settle()
    digested(table, 32, n1=C, n2=C, n3=C)
    table.settle()
    assert not any(core.split for core in table.cores.values())
    digested(table, 16, n3=C)
    table.settle()
    assert not any(core.split for core in table.cores.values()), "an old index halts nothing"


def test_a_later_digest_alone_lifts_nothing() -> None:
    table = led()
    digested(table, 16, n1=A, n2=B)
    table.settle()
    digested(table, 32, n1=C)
    table.settle()
    assert table["n1"].split
    assert table["n2"].split


def test_a_voter_whose_store_is_replaced_has_no_say_any_more() -> None:
    table = led()
    digested(table, 16, n1=A, n2=B)
    table.settle()
    assert table["n1"].split
    configuration = Configuration("c" * 32, 1, {"n1": table.stores["n1"], "n2": "d" * 32, "n3": table.stores["n3"]})
    table["n1"]._state.configurations._held.append((2, configuration))
    table["n1"]._state.configured()
    started = table.now
    while table["n1"].split:
        table.beat("n1")
        table.settle(("n1", "n3"))
        assert table.now <= started + 9 * T


def test_digests_of_other_ways_to_work_them_out_are_not_compared() -> None:
    """During an upgrade: another program cuts and encodes the same state differently."""
    table = led()
    digested(table, n1="f0:aa", n2="f1:bb", n3="f0:aa")
    table.settle()
    assert not told(table, Diverged)
    assert not told(table, Split)
    assert not comparable("", "f0:aa")


def test_who_does_not_answer_is_told_again_and_those_who_did_are_not() -> None:
    table = led()
    digested(table, n1=A, n2=A)
    table.take(lambda sender, to, message: "n3" in (sender, to))
    table.deliver()
    table.deliver()
    table.take()
    assert table["n2"].next_deadline_ns() <= table.now + 8 * T
    table.now += 8 * T
    table.tick("n2", table.now)
    asked = [(to, message) for _, to, message in table.mail if isinstance(message, DigestReport)]
    assert asked == [("n3", DigestReport(16, A, asks=True))]


def test_an_answer_is_not_answered() -> None:
    table = led()
    digested(table, n1=A, n2=A)
    table.take()
    table.receive("n1", "n2", DigestReport(16, A, asks=False))
    assert not table.mail
    table.receive("n1", "n2", DigestReport(16, A, asks=True))
    assert table.mail == [("n2", "n1", DigestReport(16, A, asks=False))]


def test_a_store_that_nobody_named_has_no_say() -> None:
    table = led()
    digested(table, n1=A)
    table.receive("n2", "n1", DigestReport(16, B, asks=False), store="9" * 32)
    table.receive("n3", "n1", DigestReport(16, B, asks=False))
    assert not told(table, Diverged)


def test_only_the_newest_digests_are_remembered() -> None:
    table = led()
    for number in range(1, 3 * KEPT):
        table.receive("n2", "n1", DigestReport(16 * number, B, asks=False))
        table.receive("n3", "n1", DigestReport(16 * number, B, asks=False))
    digested(table, 16, n1=A)
    assert not told(table, Diverged), "it is too long ago to be compared"
    digested(table, 16 * (3 * KEPT - 1), n1=A)
    assert list(told(table, Diverged)) == ["n1"]


@pytest.mark.parametrize("digest", ["", "aa", "f0:", ":aa", "f0:AA", "f0:" + "a" * 65])
def test_what_is_no_digest_is_no_message(digest: str) -> None:
    raw = msgspec.msgpack.encode(DigestReport(16, digest, asks=False))
    with pytest.raises(msgspec.ValidationError):
        msgspec.msgpack.decode(raw, type=Message)


# -- a leader in the minority ----------------------------------------------------------------------


def test_a_leader_in_the_minority_hands_over_to_one_of_the_majority() -> None:
    table = led()
    digested(table, n1=B, n2=A, n3=A)
    table.read("n1", 1)
    table.settle()
    assert table["n1"].role == "follower"
    assert "leader" in (table["n2"].role, table["n3"].role)
    assert not table.seen("n1", HandedOver), "nobody asked for it"


def test_it_takes_no_proposal_and_confirms_no_read_meanwhile() -> None:
    table = led()
    digested(table, n2=A, n3=A)
    table.settle()
    table.read("n1", 1)
    digested(table, n1=B)
    table.propose("n1", b"x")
    table.read("n1", 2)
    assert [effect.code for effect in table.seen("n1", ProposalRefused)] == ["handing-over"]
    assert [effect.id for effect in table.seen("n1", ReadRefused)] == [1, 2]


def test_it_tries_again_with_another_after_an_election_timeout() -> None:
    table = led()
    digested(table, n2=A, n3=A)
    table.settle()
    digested(table, n1=B)
    first = [to for _, to, message in table.mail if isinstance(message, TimeoutNow)]
    table.take()
    for _ in range(6):
        table.beat("n1")
        for _ in range(2):
            table.deliver(lambda sender, to, message: not isinstance(message, TimeoutNow))
            table.sync()
    again = [to for _, to, message in table.mail if isinstance(message, TimeoutNow)]
    assert len(first) == 1
    assert again


# -- getting another state -------------------------------------------------------------------------


def diverged_follower(table: Table) -> None:
    """n3 has a wrong state, and has stopped using it."""
    digested(table, n1=A, n2=A, n3=B)
    table.settle(("n1", "n2", "n3"))
    table.step("n3", StateDropped(table.now))


def test_the_follower_asks_its_leader_for_a_newer_snapshot_than_its_own() -> None:
    table = led()
    last = applied(table, 4)
    table.step("n3", SnapshotTaken(table.now, snapshot_of(table, "n3", last - 1)))
    diverged_follower(table)
    assert ("n3", "n1", RefetchRequest(table["n1"].term, last - 1)) in table.mail
    table.take()
    assert table["n3"].next_deadline_ns() <= table.now + T
    table.now += T
    table.tick("n3", table.now)
    assert [message for _, _, message in table.mail if isinstance(message, RefetchRequest)], "messages may be lost"


def test_a_leader_without_one_takes_it_and_one_with_one_sends_it_beside_the_entries() -> None:
    table = led()
    last = applied(table, 4)
    diverged_follower(table)
    table.settle()
    assert table.seen("n1", TakeSnapshot) == [TakeSnapshot(0)]
    table.step("n1", SnapshotTaken(table.now, snapshot_of(table, "n1", last)))
    table.now += T
    table.tick("n3", table.now)
    table.deliver(lambda sender, to, message: isinstance(message, RefetchRequest))
    assert [to for _, to, message in table.mail if isinstance(message, SnapshotChunk)] == ["n3"]
    table.propose("n1", b"x")
    assert [to for _, to, message in table.mail if isinstance(message, Append) and message.entries] == ["n2", "n3"]


def test_where_nothing_is_newer_the_leader_makes_it_so() -> None:
    """An idle cluster, and the wrong snapshot is of its very last entry: a restart must find the right one first."""
    table = led()
    last = applied(table, 4)
    for name in ("n1", "n3"):
        table.step(name, SnapshotTaken(table.now, snapshot_of(table, name, last)))
    diverged_follower(table)
    table.settle()
    assert table["n1"].last_index == last + 1
    assert table.seen("n1", TakeSnapshot) == [TakeSnapshot(last)]
    for _ in range(12):
        table.beat("n1")
        table.settle()
        table.tick("n3", table.now)
        table.settle()
    assert len(table.seen("n1", TakeSnapshot)) > 2, "it is asked again"
    assert table["n1"].last_index == last + 1, "once is enough"


def test_the_state_is_replaced_the_log_stays_and_what_follows_is_applied_again() -> None:
    table = led()
    last = applied(table, 4)
    diverged_follower(table)
    taken = snapshot_of(table, "n1", last - 2)
    before = table.terms("n3")
    effects = table.step("n3", SnapshotReceived(table.now, taken))
    assert [type(effect) for effect in effects] == [Restore, Apply]
    assert [entry.index for entry in effects[1].entries] == [last - 1, last]  # type: ignore[union-attr]
    assert not [effect for effect in effects if "Persist" in type(effect).__name__]
    assert table.terms("n3") == before
    assert (table["n3"].commit_index, table["n3"].applied_index) == (last, last - 2)
    assert not table["n3"].diverged
    assert table["n3"].digest == (0, ""), "what was said of the state before is void"
    table.step("n3", ApplyDone(table.now, last))


def test_a_snapshot_that_is_no_newer_than_its_own_is_not_taken_for_one() -> None:
    table = led()
    last = applied(table, 4)
    table.step("n3", SnapshotTaken(table.now, snapshot_of(table, "n3", last)))
    diverged_follower(table)
    effects = table.step("n3", SnapshotReceived(table.now, snapshot_of(table, "n1", last)))
    assert not [effect for effect in effects if isinstance(effect, Restore)]
    assert table["n3"].diverged


def test_the_next_digest_of_the_new_state_is_compared_again() -> None:
    table = led()
    last = applied(table, 4)
    diverged_follower(table)
    table.step("n3", SnapshotReceived(table.now, snapshot_of(table, "n1", last - 1)))
    digested(table, 16, n3=A)
    table.settle()
    assert not table["n3"].diverged
    digested(table, 32, n1=A, n2=A, n3=B)
    table.settle()
    assert table["n3"].diverged


def test_a_digest_of_a_state_that_is_given_up_says_nothing() -> None:
    table = led()
    diverged_follower(table)
    table.take()
    digested(table, 32, n3=C)
    assert not table.mail
    assert table["n3"].digest == (16, B)


def test_a_leader_whose_own_state_is_wrong_sends_it_to_nobody() -> None:
    table = led()
    applied(table, 4)
    table.step("n1", StateDropped(table.now))
    table.receive("n3", "n1", RefetchRequest(table["n1"].term, 0))
    assert not table.seen("n1", TakeSnapshot)


def test_the_transfer_ends_when_nobody_asks_for_it_any_more() -> None:
    table = led()
    last = applied(table, 4)
    table.step("n1", SnapshotTaken(table.now, snapshot_of(table, "n1", last)))
    table.receive("n3", "n1", RefetchRequest(table["n1"].term, 0))
    assert table["n1"].is_sending(snapshot_of(table, "n1", last).id)
    for _ in range(40):
        table.beat("n1")
        table.settle()
    assert not table["n1"].is_sending(snapshot_of(table, "n1", last).id)


def test_who_passed_over_an_index_works_its_digest_out_when_asked_while_it_still_can() -> None:
    """It restarted, or installed a snapshot of that very index."""
    table = led()
    last = applied(table, 4)
    digested(table, last, n1=A)
    table.deliver(lambda sender, to, message: isinstance(message, DigestReport))
    assert told(table, TakeDigest) == {name: [TakeDigest(last)] for name in ("n2", "n3")}
    table.receive("n1", "n2", DigestReport(last - 1, A, asks=True))
    assert table.seen("n2", TakeDigest) == [TakeDigest(last)], "that state is gone"


def test_a_halted_cluster_compares_what_is_applied_now() -> None:
    """The third has no digest of the index at which two differ: only a new comparison can show who is right."""
    table = led()
    last = applied(table, 4)
    digested(table, last - 2, n1=A, n2=B)
    table.settle()
    assert table["n1"].split
    started = table.now
    while not table.seen("n1", TakeDigest):
        table.beat("n1")
        table.settle()
        assert table.now <= started + 9 * T
    assert table.seen("n1", TakeDigest) == [TakeDigest(last)]
    digested(table, last, n1=A, n2=B, n3=A)
    table.settle()
    assert not table["n1"].split
    assert list(told(table, Diverged)) == ["n2"]


def test_who_diverges_again_right_after_it_was_healed_is_sent_a_newer_one() -> None:
    """The leader may not have noticed yet that the first transfer is over."""
    table = led()
    last = applied(table, 4)
    first, second = snapshot_of(table, "n1", last - 1), snapshot_of(table, "n1", last)
    table.step("n1", SnapshotTaken(table.now, first))
    table.receive("n3", "n1", RefetchRequest(table["n1"].term, 0))
    assert table["n1"].is_sending(first.id)
    table.receive("n3", "n1", RefetchRequest(table["n1"].term, last - 1))
    assert table.seen("n1", TakeSnapshot)[-1] == TakeSnapshot(last - 1)
    table.step("n1", SnapshotTaken(table.now, second))
    table.receive("n3", "n1", RefetchRequest(table["n1"].term, last - 1))
    assert table["n1"].is_sending(second.id)
