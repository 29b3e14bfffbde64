from __future__ import annotations

import pytest

from raft.effects import Appended, Apply, Committed, ProposalAppended, Send
from raft.messages import COMMAND, Append, AppendReply, Entry, HardState
from raft.progress import Pace, Progress
from tests.support.raft_table import T, Table, store_of

# Figure 7 of the paper: the leader of term 8, and six logs it may meet.
FIGURE_7 = {
    "n1": [1, 1, 1, 4, 4, 5, 5, 6, 6, 6],
    "n2": [1, 1, 1, 4, 4, 5, 5, 6, 6],
    "n3": [1, 1, 1, 4],
    "n4": [1, 1, 1, 4, 4, 5, 5, 6, 6, 6, 6],
    "n5": [1, 1, 1, 4, 4, 5, 5, 6, 6, 6, 7, 7],
    "n6": [1, 1, 1, 4, 4, 4, 4],
    "n7": [1, 1, 1, 2, 2, 2, 3, 3, 3, 3, 3],
}


def _appends(effects: list[object], to: str) -> list[Append]:
    sends = [effect for effect in effects if isinstance(effect, Send) and effect.to == to]
    return [send.message for send in sends if isinstance(send.message, Append)]


def test_figure_7_every_log_becomes_the_leaders() -> None:
    names = tuple(FIGURE_7)
    table = Table(names, logs=FIGURE_7, hard={name: HardState(7, None) for name in names})
    table.elect("n1")
    assert table["n1"].term == 8
    for _ in range(3):
        table.tick("n1")
        table.settle()
    for name in names:
        assert table.terms(name) == [*FIGURE_7["n1"], 8], name
        assert table[name].log.hash_at(11) == table["n1"].log.hash_at(11)
        assert table[name].commit_index == 11


@pytest.mark.parametrize(("follower", "refusals"), [("n2", 1), ("n3", 1), ("n4", 0), ("n5", 0), ("n6", 2), ("n7", 2)])
def test_figure_7_backing_up_takes_one_refusal_a_term_not_one_an_entry(follower: str, refusals: int) -> None:
    """§5.3, the optimisation."""
    names = ("n1", follower, "n8")
    logs = {"n1": FIGURE_7["n1"], follower: FIGURE_7[follower], "n8": FIGURE_7["n1"]}
    table = Table(names, logs=logs, hard={name: HardState(7, None) for name in names})
    table.elect("n1", ("n1", "n8"))
    table.beat("n1")
    refused = 0
    while table.mail:
        for sender, to, message in table.take():
            refused += isinstance(message, AppendReply) and not message.accepted
            table.receive(sender, to, message)
        table.sync()
    assert table.terms(follower) == [*FIGURE_7["n1"], 8]
    assert refused == refusals


def test_figure_8_an_entry_of_an_earlier_term_is_not_committed_by_counting() -> None:
    """§5.4.2: (c) n1 leads term 4 with 2@2 on a majority, which n5's 2@3 may still overwrite."""
    names = ("n1", "n2", "n3", "n4", "n5")
    logs = {"n1": [1, 2], "n2": [1, 2], "n3": [1], "n4": [1], "n5": [1, 3]}
    table = Table(names, logs=logs, hard={name: HardState(3, None) for name in names}, max_message_bytes=1)
    table.now = 2 * T
    table.tick("n1")
    for _ in range(4):
        table.deliver(lambda sender, to, message: "n5" not in (sender, to))
        table.sync()
    assert (table["n1"].role, table["n1"].term) == ("leader", 4)
    table.beat("n1")
    for _ in range(12):  # entry 2 reaches n3; the no-op of term 4 reaches nobody
        table.take(lambda s, to, m: isinstance(m, Append) and any(entry.index == 3 for entry in m.entries))
        table.deliver(lambda sender, to, message: {sender, to} <= {"n1", "n2", "n3"})
        table.sync()
    assert table.terms("n3") == [1, 2]
    assert table["n1"].progress["n3"].match == table["n1"].progress["n2"].match == 2
    assert table["n1"].commit_index == 0, "2@2 is on three of five and not committed"
    table.take()
    table.now += 2 * T
    table.tick("n5")
    table.settle(("n3", "n4", "n5"))
    assert table["n5"].term == 4, "its first trial teaches it the newest term"
    table.elect("n5", ("n3", "n4", "n5"))  # (d)
    assert table.terms("n3") == [1, 3, 5]


def test_figure_8_with_an_entry_of_its_own_term_all_of_it_commits() -> None:
    """(e): once 3@4 is on a majority, n5 cannot be elected any more."""
    names = ("n1", "n2", "n3", "n4", "n5")
    logs = {"n1": [1, 2], "n2": [1, 2], "n3": [1], "n4": [1], "n5": [1, 3]}
    table = Table(names, logs=logs, hard={name: HardState(3, None) for name in names})
    table.elect("n1", ("n1", "n2", "n3"))
    assert table["n1"].commit_index == 3
    table.now += 2 * T
    table.tick("n5")
    table.settle()
    assert table["n5"].role != "leader"


def test_a_batch_is_one_message_a_follower_and_one_commit() -> None:
    table = Table()
    table.elect("n1")
    effects = table.propose("n1", *[b"x"] * 100)
    assert [(e.id, e.term, e.index) for e in effects if isinstance(e, ProposalAppended)] == [
        (number, 2, number + 2) for number in range(1, 101)
    ]
    assert [len(message.entries) for message in _appends(effects, "n2")] == [100]
    table.settle()
    assert [(e.first, e.last) for e in table.seen("n1", Committed)] == [(1, 2), (3, 102)]
    assert [len(e.entries) for e in table.seen("n1", Apply)] == [2, 100]


def test_followers_in_step_share_one_message_object() -> None:
    table = Table()
    table.elect("n1")
    effects = table.propose("n1", b"x")
    assert _appends(effects, "n2")[0] is _appends(effects, "n3")[0]


def test_the_window_counts_messages_and_every_acknowledgement_pushes() -> None:
    table = Table(max_inflight_messages=2)
    table.elect("n1")
    sent = [len(_appends(table.propose("n1", b"x"), "n2")) for _ in range(5)]
    assert sent == [1, 1, 0, 0, 0]
    effects = table.receive("n2", "n1", AppendReply(2, True, 3, 0, 0, 1))
    assert [[entry.index for entry in message.entries] for message in _appends(effects, "n2")] == [[5, 6, 7]]
    effects = table.receive("n2", "n1", AppendReply(2, True, 7, 0, 0, 1))
    assert _appends(effects, "n2") == []
    assert table["n1"].progress["n2"].inflight_messages == 0
    assert len(_appends(table.propose("n1", b"x"), "n2")) == 1


def test_the_window_counts_bytes() -> None:
    table = Table(max_inflight_bytes=250, max_message_bytes=100)
    table.elect("n1")
    effects = table.propose("n1", *[b"x" * 76] * 9)  # 100 bytes each
    assert [[entry.index for entry in message.entries] for message in _appends(effects, "n2")] == [[3], [4], [5]]
    effects = table.receive("n2", "n1", AppendReply(2, True, 4, 0, 0, 1))
    assert [[entry.index for entry in message.entries] for message in _appends(effects, "n2")] == [[6], [7]]


def test_one_acknowledgement_frees_all_that_it_covers_and_a_lost_one_stalls_nothing() -> None:
    """Counting messages instead of indexes stalls for ever once acknowledgements are merged."""
    table = Table(max_inflight_messages=4)
    table.elect("n1")
    for _ in range(4):
        table.propose("n1", b"x")
    table.propose("n1", b"waits")
    table.deliver(lambda sender, to, message: to == "n2")
    table.sync("n2")
    answers = table.take(lambda sender, to, message: sender == "n2")
    assert len(answers) == 4
    effects = table.receive(*answers[-1])
    assert [[entry.data for entry in message.entries] for message in _appends(effects, "n2")] == [[b"waits"]]


def test_a_lost_pipeline_is_noticed_by_the_next_heartbeat() -> None:
    table = Table()
    table.elect("n1")
    for _ in range(3):
        table.propose("n1", b"x")
    table.take()
    table.beat("n1")
    table.settle()
    assert table["n1"].commit_index == 5
    assert table["n2"].last_index == 5


def test_a_lost_probe_is_repeated_without_its_entries() -> None:
    table = Table()
    table.elect("n1", ("n1", "n2"))
    table.propose("n1", b"x" * 1000)
    table.take()
    effects = table.beat("n1")
    assert [(message.prev_index, len(message.entries)) for message in _appends(effects, "n3")] == [(1, 0)]
    table.settle()
    assert table["n3"].last_index == 3


def test_reordered_appends_end_in_the_same_log() -> None:
    table = Table()
    table.elect("n1")
    for number in range(6):
        table.propose("n1", b"%d" % number)
    for mail in reversed(table.take(lambda sender, to, message: to == "n2")):
        table.receive(*mail)
    table.settle()
    table.tick("n1")
    table.settle()
    assert table["n2"].log.hash_at(8) == table["n1"].log.hash_at(8)


def test_an_old_short_or_repeated_append_removes_nothing() -> None:
    table = Table()
    table.elect("n1")
    table.propose("n1", b"a", b"b", b"c")
    append = next(mail[2] for mail in table.mail if mail[1] == "n2")
    table.settle()
    assert isinstance(append, Append)
    for message in (append, Append(2, 2, 2, 0, 0, append.entries[:1]), Append(2, 1, 1, 0, 0, ())):
        table.receive("n1", "n2", message)
        assert table["n2"].last_index == 5
    assert table["n2"].commit_index >= 2


def test_only_the_conflicting_suffix_is_replaced() -> None:
    table = Table(logs={"n2": [1, 2, 2, 2]})
    entries = tuple(Entry(term, index, COMMAND, b"%d.%d" % (term, index)) for index, term in ((2, 2), (3, 3)))
    table.receive("n1", "n2", Append(3, 1, 1, 0, 0, entries))
    assert table.terms("n2") == [1, 2, 3]
    persisted = table.writes["n2"][-1].entries
    assert [(entry.term, entry.index) for entry in persisted] == [(3, 3)]


@pytest.mark.parametrize(
    ("prev", "hint"),
    [((9, 6), (0, 5)), ((4, 9), (4, 4)), ((3, 2), (1, 1)), ((2, 7), (1, 1))],
    ids=["behind the end", "a short run", "a long run", "inside a run"],
)
def test_a_refusal_says_where_the_logs_may_agree(prev: tuple[int, int], hint: tuple[int, int]) -> None:
    table = Table(logs={"n2": [1, 1, 1, 4]})
    table.receive("n1", "n2", Append(9, *prev, 0, 3, ()))
    table.sync("n2")
    assert [mail[2] for mail in table.mail] == [AppendReply(9, False, prev[0], *hint, 3)]


def test_a_deposed_leader_is_told_the_newer_term() -> None:
    table = Table(hard={"n2": HardState(5, None)})
    table.receive("n1", "n2", Append(4, 1, 1, 0, 3, ()))
    assert [mail[2] for mail in table.mail] == [AppendReply(5, False, 1, 0, 2, 3)]


def test_a_follower_commits_only_what_the_message_proved_to_match() -> None:
    """§5.3: min(leader's commit index, last new entry): what lies behind it here may still conflict."""
    table = Table(logs={"n2": [1, 1, 1, 1]})
    table.receive("n1", "n2", Append(1, 2, 1, 4, 0, ()))
    assert table["n2"].commit_index == 2


def test_a_commit_reaches_followers_without_waiting_for_the_next_write() -> None:
    table = Table()
    table.elect("n1")
    table.propose("n1", b"x")
    table.settle()
    assert (table["n1"].commit_index, table["n2"].commit_index) == (3, 2)
    since = table.now
    table.tick("n1")
    table.settle()
    assert table["n2"].commit_index == 3
    assert table.now - since <= T // 16


def test_a_long_backlog_is_applied_in_pieces() -> None:
    table = Table()
    table.elect("n1", ("n1", "n2"))
    table.propose("n1", *[b""] * 3000)
    table.settle()
    sizes = [len(effect.entries) for effect in table.seen("n1", Apply)]
    assert sum(sizes) == 3002
    assert max(sizes) == 1024


def test_what_became_durable_is_told_once_and_after_the_write() -> None:
    table = Table()
    table.elect("n1")
    table.propose("n1", b"x", b"y")
    assert [(e.first, e.last) for e in table.seen("n1", Appended)] == [(2, 2)]
    table.settle()
    told = table.seen("n1", Appended)[-1]
    assert (told.first, told.last) == (3, 4)
    assert told.hashes == ((3, table["n1"].log.hash_at(3)), (4, table["n1"].log.hash_at(4)))


# -- progress ----------------------------------------------------------------------------------


def test_a_stale_refusal_moves_nothing() -> None:
    progress = Progress(10, 0, store_of("n2"))
    progress.acknowledged(9)
    assert progress.pace is Pace.REPLICATE
    assert progress.is_stale_refusal(9)
    assert not progress.is_stale_refusal(10)
    progress.back_up(4, 10)
    assert (progress.pace, progress.next, progress.match) == (Pace.PROBE, 10, 9)
    assert progress.is_stale_refusal(12)


def test_match_never_falls_and_stays_below_next() -> None:
    progress = Progress(5, 0, store_of("n2"))
    assert progress.acknowledged(4)
    assert not progress.acknowledged(2)
    assert progress.acknowledged(8)
    assert (progress.match, progress.next) == (8, 9)
