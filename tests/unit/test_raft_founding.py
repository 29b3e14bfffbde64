from __future__ import annotations

import msgspec
import pytest

from raft.core import Core, CoreConfig, Recovered
from raft.effects import Persist, Send
from raft.events import Received
from raft.messages import (
    CONFIGURATION,
    Append,
    AppendReply,
    Configuration,
    Entry,
    Founding,
    FoundingAnswer,
    FoundingQuestion,
    HardState,
    VoteRequest,
    encode_configuration,
)
from tests.support.raft_table import FixedDice, Table, first_entry, log_of, store_of

EMPTY = {"n1": None, "n2": None, "n3": None}


def _ask_all(table: Table) -> None:
    for name in table.names:
        if table[name].configuration is None:
            table.tick(name, max(table.now, table[name].next_deadline_ns()))


def test_three_empty_replicas_found_one_cluster_and_elect_its_founder() -> None:
    table = Table(logs=dict(EMPTY))
    _ask_all(table)
    table.settle()
    assert table["n1"].role == "leader", "the founder does not wait for a time-out"
    table.tick("n1")
    table.settle()
    configurations = [table[name].configuration for name in table.names]
    assert configurations[0] is not None
    assert configurations == [configurations[0]] * 3
    assert configurations[0].voters == {name: store_of(name) for name in table.names}
    assert len({table[name].log.hash_at(1) for name in table.names}) == 1
    assert [table[name].commit_index for name in table.names] == [2, 2, 2]


def test_nothing_is_founded_while_one_initial_voter_is_silent() -> None:
    table = Table(logs=dict(EMPTY))
    for _ in range(20):
        _ask_all(table)
        table.settle(("n1", "n2"))
    assert [table[name].configuration for name in table.names] == [None, None, None]


def test_only_the_first_of_the_initial_voters_founds() -> None:
    table = Table(logs=dict(EMPTY))
    for _ in range(5):
        table.tick("n2")
        table.tick("n3")
        table.take(lambda sender, to, message: to == "n1")
        table.deliver()
    assert not table.writes["n2"]
    assert not table.writes["n3"]


def test_an_empty_replica_never_votes_and_takes_no_entries() -> None:
    """A wiped disk has forgotten its votes (§5.2) and its acknowledgements (§5.3)."""
    table = Table(logs={"n1": None})
    for message in (
        VoteRequest(9, 9, 8, False, False),
        VoteRequest(9, 9, 8, True, False),
        Append(2, 0, 0, 1, 1, (first_entry(table.names),)),
    ):
        assert table.receive("n2", "n1", message) == []
    assert table["n1"].term == 0


def test_a_formed_replica_offers_entry_1_to_the_empty_store_that_it_names() -> None:
    table = Table(logs={"n3": None})
    table.tick("n3")
    table.settle()
    assert table["n3"].configuration == table["n1"].configuration
    table.elect("n2")
    assert table["n3"].commit_index == 0 or table["n3"].commit_index == 2
    assert table["n3"].last_index == 2


def test_a_question_of_an_unknown_store_is_answered_without_the_log() -> None:
    table = Table(logs={"n3": None})
    for _ in range(3):
        table.receive("n3", "n1", FoundingQuestion("f" * 32), "f" * 32)
        assert [mail[2] for mail in table.take()] == [FoundingAnswer(store_of("n1"), False, "f" * 32)]


def test_a_question_in_the_name_of_another_store_is_not_answered() -> None:
    table = Table(logs={"n3": None})
    assert table.receive("n3", "n1", FoundingQuestion(store_of("n3")), "f" * 32) == []


def test_a_word_to_the_store_that_was_here_before_founds_nothing() -> None:
    """The others were empty when they said so; the cluster was founded meanwhile, and the founder's disk was lost."""
    table = Table(logs=dict(EMPTY))
    _ask_all(table)
    table.deliver(lambda sender, to, message: sender == "n1")
    late = table.take()
    table.wipe("n1", "e" * 32)
    for sender, to, message in late:
        table.receive(sender, to, message)
    assert table["n1"].configuration is None
    table.tick("n1")
    table.settle()
    assert table["n1"].configuration is not None, "they are empty still, and say so to the new store"


def test_a_wiped_founder_does_not_found_again() -> None:
    table = Table(logs={"n1": None})
    table.cores["n1"] = Core(
        CoreConfig(id="n1", store_id="e" * 32, peers=table.names), Recovered(HardState(0, None), ()), FixedDice(1), 0
    )
    for _ in range(10):
        table.tick("n1")
        table.settle()
    assert table["n1"].configuration is None


@pytest.mark.parametrize(
    "entry",
    [
        Entry(1, 1, CONFIGURATION, b"garbage"),
        Entry(1, 2, CONFIGURATION, b""),
        Entry(1, 1, 1, first_entry(("n1", "n2", "n3")).data),
        Entry(1, 1, CONFIGURATION, encode_configuration(Configuration("c" * 32, 1, {"n1": "d" * 32, "n2": "e" * 32}))),
        Entry(1, 1, CONFIGURATION, encode_configuration(Configuration("c" * 32, 1, {"n1": store_of("n1")}))),
        Entry(1, 1, CONFIGURATION, msgspec.msgpack.encode([1, 2])),
    ],
    ids=["garbage", "another index", "a command", "another store", "without its sender", "another shape"],
)
def test_an_offer_that_is_not_entry_1_for_this_store_is_ignored(entry: Entry) -> None:
    table = Table(logs=dict(EMPTY))
    assert table.receive("n2", "n1", Founding(entry)) == []
    assert table["n1"].configuration is None


def test_entry_1_is_acknowledged_when_it_is_durable() -> None:
    table = Table(logs=dict(EMPTY))
    effects = table.receive("n1", "n2", Founding(first_entry(table.names)))
    assert isinstance(effects[0], Persist)
    assert effects[0].hard_state == HardState(1, None)
    sends = [effect for effect in effects if isinstance(effect, Send)]
    assert [(send.message, send.after_persist) for send in sends] == [(AppendReply(1, True, 1, 0, 0, 0), True)]


def test_the_founder_stands_for_election_only_with_a_majority_able_to_vote() -> None:
    table = Table(logs=dict(EMPTY))
    _ask_all(table)
    table.deliver()
    table.deliver()
    table.sync("n1")
    assert table["n1"].configuration is not None
    assert table["n1"].role == "follower"
    table.receive("n2", "n1", AppendReply(1, True, 1, 0, 0, 0))
    assert table["n1"].role == "pre-candidate"


def test_a_store_that_its_log_does_not_name_has_no_vote() -> None:
    names = ("n1", "n2", "n3")
    config = CoreConfig(id="n1", store_id="f" * 32, peers=names)
    core = Core(config, Recovered(HardState(1, None), log_of(names, [1])), FixedDice(1), 0)
    assert not core.votes
    assert core.step(Received(0, "n2", VoteRequest(9, 9, 8, False, False), store_of("n2"))) == []


@pytest.mark.parametrize("retired", ["n1", "n2"])
def test_a_store_that_took_a_damaged_ones_place_takes_no_part_in_founding(retired: str) -> None:
    """Three empty stores, one of which had a log: that would found a second cluster over the first."""
    table = Table(logs=dict(EMPTY))
    table.config = {"founds": False}
    table.start(retired)
    table.config = {}
    for _ in range(5):
        _ask_all(table)
        table.settle()
    assert [table[name].configuration for name in table.names] == [None, None, None]


def test_messages_before_founding_are_ignored_from_strangers() -> None:
    table = Table(logs=dict(EMPTY))
    assert table.step("n1", Received(0, "n7", FoundingQuestion("f" * 32), "f" * 32)) == []


def test_a_single_replica_founds_itself() -> None:
    table = Table(names=("n1",), logs={"n1": None})
    table.tick("n1")
    table.settle()
    assert (table["n1"].role, table["n1"].commit_index) == ("leader", 2)
