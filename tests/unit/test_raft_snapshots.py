"""Compaction and snapshots in the core: what is cut, what a follower is sent, what an install keeps."""

from __future__ import annotations

import pytest

from raft.effects import Apply, Committed, Installed, Persist, Restore, Send, SendChunk, TakeChunk
from raft.errors import ProtocolViolation
from raft.events import ApplyDone, ChunkTaken, Persisted, SnapshotLost, SnapshotReceived, SnapshotTaken
from raft.messages import Append, AppendReply, Snapshot, SnapshotChunk, SnapshotHeader, SnapshotReply
from raft.progress import Pace
from tests.support.raft_table import T, Table

SIZE = 1000


def snapshot_of(table: Table, name: str, index: int) -> Snapshot:
    """A durable snapshot of the state at `index`, as that replica would write it."""
    return Snapshot(table[name].describe_snapshot(index), SIZE, 7)


def compacted(*, tail: int = 0, log: int = 6) -> Table:
    """n1 leads and has compacted all it committed; n3 was away from the start."""
    table = Table(logs={"n3": None}, keep_tail_entries=tail)
    table.elect("n1", among=("n1", "n2"))
    table.propose("n1", *[b"x"] * log)
    table.settle(among=("n1", "n2"))
    core = table["n1"]
    for name in ("n1", "n2"):
        table.now += 1
        apply_all(table, name)
    table.step("n1", SnapshotTaken(table.now, snapshot_of(table, "n1", core.commit_index)))
    table.mail.clear()
    return table


def apply_all(table: Table, name: str) -> None:
    table.step(name, ApplyDone(table.now, table[name].commit_index))


def behind(*, own: list[int]) -> tuple[Table, Snapshot]:
    """n1 leads term 1's successor with its log compacted; n2's log has the terms `own`."""
    table = Table(logs={"n1": [1] * 8, "n2": own, "n3": [1] * 8}, keep_tail_entries=0)
    table.elect("n1", among=("n1", "n3"))
    apply_all(table, "n1")
    snapshot = snapshot_of(table, "n1", 8)
    table.step("n1", SnapshotTaken(table.now, snapshot))
    table.effects["n1"].clear()
    return table, snapshot


def sends(effects: list[object], kind: type) -> list[Send]:
    return [each for each in effects if isinstance(each, Send) and isinstance(each.message, kind)]


def test_a_snapshot_cuts_the_log_but_for_its_tail() -> None:
    table = compacted(tail=3)
    core = table["n1"]
    assert core.log.first_index == core.commit_index - 3 + 1
    assert core.log.hash_at(core.last_index) == table["n2"].log.hash_at(core.last_index), "the hash chain goes on"
    assert core.snapshot is not None
    assert core.snapshot.header.tail.index == core.log.base_index


def test_a_follower_that_is_at_work_on_entries_keeps_them_from_compaction() -> None:
    table = Table(keep_tail_entries=0)
    table.elect("n1")
    table.propose("n1", *[b"x"] * 6)
    table.settle(among=("n1", "n2"))
    apply_all(table, "n1")
    reached = table["n1"].progress["n3"].match
    table.step("n1", SnapshotTaken(table.now, snapshot_of(table, "n1", table["n1"].commit_index)))
    assert table["n1"].log.base_index == reached, "n3 was heard a moment ago"
    table.now += 20 * T
    table.propose("n1", b"y")
    table.settle(among=("n1", "n2"))
    apply_all(table, "n1")
    table.step("n1", SnapshotTaken(table.now, snapshot_of(table, "n1", table["n1"].commit_index)))
    assert table["n1"].log.base_index > reached, "a silent follower holds nothing back"


def test_a_follower_behind_the_log_is_asked_what_it_has_and_then_sent_piece_after_piece() -> None:
    table, snapshot = behind(own=[1, 1])
    table.receive("n2", "n1", AppendReply(2, False, 8, 0, 3, 0))
    progress = table["n1"].progress["n2"]
    assert progress.pace is Pace.SNAPSHOT
    questions = sends(table.effects["n1"], SnapshotChunk)
    assert [each.message for each in questions] == [SnapshotChunk(2, snapshot.id, 0, b"")]
    effects = table.receive("n2", "n1", SnapshotReply(2, snapshot.id, 400))
    assert [each for each in effects if isinstance(each, SendChunk)] == [
        SendChunk("n2", 2, snapshot.id, 400, progress.chunk_bytes)
    ], "it goes on where the receiver is"
    again = table.receive("n2", "n1", SnapshotReply(2, snapshot.id, 400))
    assert not [each for each in again if isinstance(each, SendChunk)], "one piece at a time"
    effects = table.receive("n2", "n1", SnapshotReply(2, snapshot.id, 900))
    assert [each.offset for each in effects if isinstance(each, SendChunk)] == [900]
    table.propose("n1", b"later")
    assert not [each for each in sends(table.effects["n1"], Append) if each.to == "n2" and each.message.entries]
    table.receive("n2", "n1", AppendReply(2, True, 8, 0, 0, 0))
    assert progress.pace is Pace.REPLICATE
    assert progress.next == table["n1"].last_index + 1, "and the entries behind it follow at once"


def test_silence_is_answered_with_another_question_less_and_less_often() -> None:
    table, _ = behind(own=[1, 1])
    table.receive("n2", "n1", AppendReply(2, False, 8, 0, 3, 0))
    table.effects["n1"].clear()
    for _ in range(40):
        table.beat("n1")
        table.receive("n3", "n1", AppendReply(2, True, 9, 0, 0, 0))
        table.receive("n2", "n1", AppendReply(2, False, 8, 0, 3, 0))
    questions = len(sends(table.effects["n1"], SnapshotChunk))
    assert 2 <= questions <= 5
    assert len([each for each in sends(table.effects["n1"], Append) if each.to == "n2"]) >= 40, "heartbeats go on"


def test_a_follower_that_comes_back_is_asked_at_once() -> None:
    table, _ = behind(own=[1, 1])
    table.receive("n2", "n1", AppendReply(2, False, 8, 0, 3, 0))
    for _ in range(60):
        table.beat("n1")
        table.receive("n3", "n1", AppendReply(2, True, 9, 0, 0, 0))
    assert table["n1"].progress["n2"].patience_ns > 4 * T
    effects = table.receive("n2", "n1", AppendReply(2, False, 8, 0, 3, 0))
    assert len(sends(effects, SnapshotChunk)) == 1


def test_pieces_shrink_while_they_take_long_and_grow_again() -> None:
    table, snapshot = behind(own=[1, 1])
    table.receive("n2", "n1", AppendReply(2, False, 8, 0, 3, 0))
    progress = table["n1"].progress["n2"]
    table.receive("n2", "n1", SnapshotReply(2, snapshot.id, 0))
    usual = progress.chunk_bytes
    table.now += T // 2
    table.receive("n2", "n1", SnapshotReply(2, snapshot.id, 10))
    assert progress.chunk_bytes == usual // 2
    table.now += 1000
    table.receive("n2", "n1", SnapshotReply(2, snapshot.id, 20))
    assert progress.chunk_bytes == usual


def test_a_lost_file_is_replaced_by_the_newest_snapshot() -> None:
    table, snapshot = behind(own=[1, 1])
    table.receive("n2", "n1", AppendReply(2, False, 8, 0, 3, 0))
    apply_all(table, "n1")
    newer = snapshot_of(table, "n1", table["n1"].commit_index)
    table.step("n1", SnapshotTaken(table.now, newer))
    assert table["n1"].progress["n2"].snapshot == snapshot.id, "what is under way is not begun anew"
    table.step("n1", SnapshotLost(table.now, snapshot.id))
    assert table["n1"].progress["n2"].snapshot == newer.id


def received(table: Table, snapshot: Snapshot) -> list[object]:
    table.receive("n1", "n2", SnapshotChunk(2, snapshot.id, 0, b""))
    table.sync("n2")
    return [*table.step("n2", SnapshotReceived(table.now, snapshot))]


def test_an_installed_snapshot_replaces_log_state_and_configuration_and_is_acknowledged_once_durable() -> None:
    table, snapshot = behind(own=[1, 1])
    effects = received(table, snapshot)
    core = table["n2"]
    persist, restore = effects[0], next(each for each in effects if isinstance(each, Restore))
    assert isinstance(persist, Persist)
    assert (persist.base, persist.entries) == (snapshot.header.base, ())
    assert restore.snapshot == snapshot
    assert (core.commit_index, core.applied_index, core.last_index, core.log.base_index) == (8, 8, 8, 8)
    reply = sends(effects, AppendReply)[-1]
    assert (reply.after_persist, reply.message.accepted, reply.message.match_index) == (True, True, 8)
    assert core.durable_index == 0, "not before the log on disk begins behind it"
    done = table.step("n2", Persisted(table.now, persist.write, 1, 8))
    assert core.durable_index == 8
    assert [each for each in done if isinstance(each, Installed)] == [Installed(2, snapshot.header.base)]


def test_a_log_that_holds_the_snapshots_last_entry_keeps_what_follows() -> None:
    table, snapshot = behind(own=[1] * 12)
    effects = received(table, snapshot)
    assert not [each for each in effects if isinstance(each, Restore | Persist)]
    assert table["n2"].last_index == 12, "entries behind it may be promised"
    assert table["n2"].commit_index == 8, "what it stands for is committed"


def test_a_piece_for_a_log_that_has_it_all_is_answered_without_taking_it() -> None:
    table, snapshot = behind(own=[1] * 9)
    effects = table.receive("n1", "n2", SnapshotChunk(2, snapshot.id, 0, b""))
    assert not [each for each in effects if isinstance(each, TakeChunk)]
    assert [each.last for each in effects if isinstance(each, Committed)] == [8]
    assert [each for each in effects if isinstance(each, Apply)]
    assert sends(effects, AppendReply)[-1].message.match_index == 8


def test_a_conflicting_log_is_given_up_whole() -> None:
    table, snapshot = behind(own=[1, 1, 1, 1, 1])
    effects = received(table, snapshot)
    assert any(isinstance(each, Restore) for each in effects)


def test_an_old_snapshot_takes_nothing_back() -> None:
    table, snapshot = behind(own=[1, 1])
    effects = received(table, snapshot)
    assert any(isinstance(each, Restore) for each in effects)
    header = snapshot.header
    old = Snapshot(SnapshotHeader(header.base.__class__(5, 1, 1), header.tail, 1, header.configuration), SIZE, 9)
    assert not [each for each in table.step("n2", SnapshotReceived(table.now, old)) if isinstance(each, Restore)]
    assert table["n2"].commit_index == 8


def test_a_piece_of_an_earlier_term_is_refused() -> None:
    table, snapshot = behind(own=[1, 1])
    table.receive("n3", "n2", Append(5, 0, 0, 0, 1, ()))
    effects = table.receive("n1", "n2", SnapshotChunk(2, snapshot.id, 0, b"data"))
    assert not [each for each in effects if isinstance(each, TakeChunk)]
    assert [each.message for each in sends(effects, SnapshotReply)] == [SnapshotReply(5, snapshot.id, 0)]
    assert table["n2"].leader == "n3"


def test_a_piece_that_cannot_be_is_refused_before_anything_changes() -> None:
    table, snapshot = behind(own=[1, 1])
    for chunk in (
        SnapshotChunk(2, snapshot.id, SIZE - 1, b"ab"),
        SnapshotChunk(2, snapshot.id.__class__(0, 1, 10, 1), 0, b""),
        SnapshotChunk(2, snapshot.id.__class__(5, 3, 10, 1), 0, b""),
    ):
        with pytest.raises(ProtocolViolation):
            table.receive("n1", "n2", chunk)


def test_progress_of_a_part_is_told_to_whoever_leads_now() -> None:
    table, snapshot = behind(own=[1, 1])
    table.receive("n1", "n2", SnapshotChunk(2, snapshot.id, 0, b"data"))
    table.sync("n2")
    effects = table.step("n2", ChunkTaken(table.now, snapshot.id, 4))
    assert [each.message for each in sends(effects, SnapshotReply)] == [SnapshotReply(2, snapshot.id, 4)]


def test_an_append_from_before_the_compacted_log_is_trimmed_to_what_is_new() -> None:
    table, snapshot = behind(own=[1, 1])
    persist = received(table, snapshot)[0]
    assert isinstance(persist, Persist)
    table.step("n2", Persisted(table.now, persist.write, 1, 8))
    sent = tuple(table["n3"].log.slice(5, 9))
    effects = table.receive("n1", "n2", Append(2, 4, 1, 9, 3, sent))
    assert table["n2"].last_index == 9
    assert sends(effects, AppendReply)[-1].message.match_index == 9
    late = table.receive("n1", "n2", Append(2, 2, 1, 9, 3, tuple(table["n3"].log.slice(3, 5))))
    assert sends(late, AppendReply)[-1].message.match_index == 8, "what it stands for is here"
    wrong = tuple(type(entry)(2, entry.index, entry.kind, entry.data) for entry in table["n3"].log.slice(7, 8))
    with pytest.raises(ProtocolViolation):
        table.receive("n1", "n2", Append(2, 6, 2, 9, 3, wrong))


def test_a_replica_away_since_the_beginning_is_brought_in_by_a_snapshot_alone() -> None:
    table = compacted()
    snapshot = table["n1"].snapshot
    assert snapshot is not None
    table.tick("n3")
    for _ in range(3):
        table.deliver(lambda sender, to, message: "n3" in (sender, to) and not isinstance(message, Append))
    table.receive("n1", "n3", SnapshotChunk(table["n1"].term, snapshot.id, 0, b""))
    table.sync("n3")
    table.step("n3", SnapshotReceived(table.now, snapshot))
    assert table["n3"].configuration == table["n1"].configuration
    assert table["n3"].votes
