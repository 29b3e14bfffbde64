"""Each checker passes an honest trace and names the events of a forged one; lost tails raise no alarm."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from chaos.errors import ScenarioInvalid, TraceUnreadable
from chaos.trace.check import CheckResult, check_directory, check_trace
from chaos.trace.reader import read_trace
from tests.support.trace_maker import ALL, REST, TraceMaker, good_run


def check(made: TraceMaker, directory: Path) -> CheckResult:
    return check_trace(made.trace(directory))


def broken(made: TraceMaker, directory: Path) -> dict[str, tuple[str, ...]]:
    return {finding.name: finding.refs for finding in check(made, directory).violated}


def finding(made: TraceMaker, directory: Path, name: str) -> tuple[bool | None, str]:
    found = next(each for each in check(made, directory).invariants if each.name == name)
    return found.ok, found.detail


def test_an_honest_run_passes_every_checker_and_is_not_weak(tmp_path: Path) -> None:
    result = check(good_run(), tmp_path)
    assert result.violated == ()
    assert result.ok
    assert result.weak == ()
    assert all(each.checked > 0 for each in result.invariants if each.ok)
    assert {each.name for each in result.invariants if each.ok} >= {name for _, name in FORGERIES}
    assert result.events == len(good_run().lines())


# -- forgeries: each changes the trace as a careful forger would, numbering anew -------------------


def second_leader(made: TraceMaker) -> None:
    first = next(line for line in made.lines("role", "n2") if line["role"] == "leader")
    made.insert("n3", "role", first, role="leader", term=first["term"], leader="n3", why="won")


def double_vote(made: TraceMaker) -> None:
    vote = made.lines("vote", "n2")[-1]
    made.insert("n2", "vote", vote, term=vote["term"], candidate="n1", why="again")


def vote_after_restart(made: TraceMaker) -> None:
    vote = next(line for line in made.lines("vote", "n3") if line["term"] == 1)
    made.insert("n3", "vote", made.lines("append", "n3")[-1], term=vote["term"], candidate="n3", why="forgot")


def term_falls(made: TraceMaker) -> None:
    last = made.lines("apply", "n1")[-1]
    made.insert("n1", "role", last, role="follower", term=1, leader=None, why="?")


def other_log(made: TraceMaker) -> None:
    line = made.lines("append", "n2")[3]
    line["ph"] = "f" * 16
    line["marks"] = [[line["index"], line["ph"]]]


def other_commit(made: TraceMaker) -> None:
    line = made.lines("commit", "n2")[2]
    line["ph"] = "e" * 16
    line["marks"] = [[line["index"], line["ph"]]]


def commit_without_quorum(made: TraceMaker) -> None:
    index = made.lines("commit", "n2")[4]["index"]
    made.remove(lambda line: line["k"] == "append" and line["index"] == index and line["n"] != "n2")
    made.remove(lambda line: line["k"] == "append" and line["first"] < index < line["index"] and line["n"] == "n1")


def commit_removed(made: TraceMaker) -> None:
    """The acknowledged r3 of index 6 loses its commit, everywhere."""
    for line in made.lines("commit"):
        if line["first"] < 6 <= line["index"]:
            line["first"] = 7
            line["marks"] = [mark for mark in line["marks"] if mark[0] > 6]
    made.remove(lambda line: line["k"] == "commit" and line["first"] <= 6 == line["index"])


def last_commit_removed(made: TraceMaker) -> None:
    """The last acknowledged write leaves no trace but its answer."""
    last = len(made.hashes) - 1
    made.remove(lambda line: line["k"] in ("commit", "apply", "job") and line["index"] == last)


def acknowledged_replaced(made: TraceMaker) -> None:
    for line in made.lines("job"):
        if line["request_id"] == "r3":
            line["request_id"] = "r-other"


def acknowledged_skipped(made: TraceMaker) -> None:
    made.remove(lambda line: line["k"] == "job" and line["request_id"] == "r3" and line["n"] == "n3")


def request_twice(made: TraceMaker) -> None:
    for line in made.lines("job"):
        if line["request_id"] == "r4":
            line["job"], line["request_id"] = "default/batch", "r3"


def node_over_capacity(made: TraceMaker) -> None:
    for line in made.lines("node"):
        line["capacity"] = {"cpu_millicores": 600, "memory_bytes": 1 << 30, "pids": 100}


def one_replica_over_capacity(made: TraceMaker) -> None:
    line = made.lines("place", "n2")[-1]
    line["requests"] = {"cpu_millicores": 1001, "memory_bytes": 1, "pids": 1}


def port_twice(made: TraceMaker) -> None:
    for line in made.lines("place"):
        if line["allocation"] == "default/batch.0":
            line["ports"] = [8080]


def bound_twice(made: TraceMaker) -> None:
    for line in made.lines("place"):
        if line["attempt"] == 2:
            line["attempt"] = 1


def bound_over_a_live_attempt(made: TraceMaker) -> None:
    made.remove(lambda line: line["k"] == "place" and line["do"] == "release")


def another_node_on_one_replica(made: TraceMaker) -> None:
    made.lines("place", "n3")[0]["node"] = "a9"


def ran_unplaced(made: TraceMaker) -> None:
    run = made.lines("run")[0]
    made.insert("a1", "run", run, do="start", allocation="default/ghost.0", attempt=1, epoch=3, pid=1, cgroup="/y")


def ran_elsewhere(made: TraceMaker) -> None:
    for line in made.lines("place"):
        if line["allocation"] == "default/web.0":
            line["node"] = "a2"
    for line in made.lines("node"):
        line["node"] = "a2"


def bytes_crossed(made: TraceMaker) -> None:
    heal = made.lines("heal", "proxy")[0]
    heal["counters"] = {**heal["counters"], "bytes_since_fault": 5, "bytes_forwarded": 1005}


def message_crossed(made: TraceMaker) -> None:
    fault, heal = made.lines("fault", "proxy")[0], made.lines("heal", "proxy")[0]
    send = made.insert("n1", "send", fault, m="n1/00000000/2", to="n2", type="Append", bytes=10)
    send["hlc"] = fault["hlc"] + (600 << 16)
    recv = made.insert("n2", "recv", send, m="n1/00000000/2", fr="n1", type="Append", bytes=10)
    assert recv["hlc"] < heal["hlc"] - (600 << 16)
    for life in made.all:
        life.lines.sort(key=lambda line: line["hlc"])
        for number, line in enumerate(life.lines):
            line["i"] = number


def events_removed(made: TraceMaker) -> None:
    life = made.lives["n2"]
    del life.lines[10:12]


def overwritten(made: TraceMaker) -> None:
    line = made.lines("append", "n3")[1]
    last = made.lines("apply", "n1")[-1]
    fields = {"term": 9, "first": line["index"], "index": line["index"], "last_term": 9}
    made.insert("n1", "append", last, ph="d" * 16, marks=[[line["index"], "d" * 16]], **fields)


def forgotten_after_restart(made: TraceMaker) -> None:
    line = next(line for line in made.lines("append", "n3") if line.get("recovered"))
    line["index"], line["ph"] = 3, made.hashes[3]
    line["marks"] = [[3, made.hashes[3]]]
    line["last_term"] = made.terms[3]


def own_report(made: TraceMaker) -> None:
    made.emit("n1", "inv", name="apply", ok=False, why="it broke")


def two_at_once(made: TraceMaker) -> None:
    made.remove(lambda line: line["k"] == "run" and line["do"] == "exit")


def stopped_by_nobody(made: TraceMaker) -> None:
    made.remove(lambda line: line["k"] == "job" and line["do"] == "stop")


def old_token(made: TraceMaker) -> None:
    stop = next(line for line in made.lines("run", "a1") if line["do"] == "stop")
    made.insert("a1", "run", stop, do="start", allocation="default/web.0", attempt=1, epoch=stop["epoch"] - 1, pid=79)


FORGERIES: list[tuple[Callable[[TraceMaker], None], str]] = [
    (second_leader, "election-safety"),
    (double_vote, "vote-once"),
    (vote_after_restart, "vote-once"),
    (term_falls, "terms-rise"),
    (other_log, "log-matching"),
    (other_commit, "log-matching"),
    (commit_without_quorum, "commit-by-quorum"),
    (commit_removed, "commit-contiguous"),
    (last_commit_removed, "no-acknowledged-placement-lost"),
    (acknowledged_replaced, "no-acknowledged-placement-lost"),
    (acknowledged_skipped, "no-acknowledged-placement-lost"),
    (request_twice, "one-effect-per-request"),
    (node_over_capacity, "capacity"),
    (one_replica_over_capacity, "capacity"),
    (one_replica_over_capacity, "applied-alike"),
    (port_twice, "capacity"),
    (bound_twice, "one-bind-per-attempt"),
    (bound_over_a_live_attempt, "one-bind-per-attempt"),
    (another_node_on_one_replica, "applied-alike"),
    (ran_unplaced, "run-was-placed"),
    (ran_elsewhere, "run-was-placed"),
    (bytes_crossed, "link-cut-silent"),
    (message_crossed, "link-cut-silent"),
    (events_removed, "trace-complete"),
    (overwritten, "committed-kept"),
    (forgotten_after_restart, "committed-kept"),
    (own_report, "own-invariants"),
    (two_at_once, "at-most-one-process"),
    (stopped_by_nobody, "absence-never-stops"),
    (old_token, "fencing"),
]


@pytest.mark.parametrize(("forge", "invariant"), FORGERIES, ids=[f"{f.__name__}-{n}" for f, n in FORGERIES])
def test_a_forged_trace_fails_and_the_finding_names_its_events(
    forge: Callable[[TraceMaker], None], invariant: str, tmp_path: Path
) -> None:
    made = good_run()
    forge(made)
    found = broken(made, tmp_path)
    assert invariant in found
    refs = {f"{line['n']}/{line['inc']}/{line['i']}" for line in made.lines()}
    assert found[invariant], "a violation names its events"
    assert set(found[invariant]) <= refs
    assert not check_directory(tmp_path).ok


def test_a_second_leader_is_named_with_both_leaders_events(tmp_path: Path) -> None:
    made = good_run()
    second_leader(made)
    refs = broken(made, tmp_path)["election-safety"]
    assert {ref.split("/")[0] for ref in refs} == {"n2", "n3"}


# -- no false alarms ------------------------------------------------------------------------------


@pytest.mark.parametrize("node", ALL)
@pytest.mark.parametrize("lost", [1, 2, 3, 5, 8])
def test_the_lost_tail_of_a_killed_replica_raises_no_alarm(node: str, lost: int, tmp_path: Path) -> None:
    """SIGKILL takes the last events with it; the first life of n3, or the end of another's trace."""
    made = good_run()
    life = next(life for life in made.all if life.node == node)
    if life is made.lives[node]:  # killed at the very end of the run
        made.emit("client", "fault", id="k2", kind="kill", target=node, args={}, by={"rule": "sigkill"})
    del life.lines[-lost:]
    result = check(made, tmp_path)
    assert result.violated == ()


@pytest.mark.parametrize("cut", [1, 10, 50])
def test_a_last_line_cut_in_the_middle_means_an_unknown_tail(cut: int, tmp_path: Path) -> None:
    made = good_run()
    made.write(tmp_path)
    file = tmp_path / "n3-00000002.jsonl"
    file.write_bytes(file.read_bytes()[:-cut])
    trace = read_trace(tmp_path)
    assert check_trace(trace).violated == ()
    assert trace.lives["n3", "00000002"].truncated is (cut > 1)


def test_dropped_events_with_a_note_raise_no_alarm(tmp_path: Path) -> None:
    made = good_run()
    life = made.lives["n2"]
    del life.lines[12:20]
    following = life.lines[12]
    note = {**{key: following[key] for key in ("t", "n", "inc", "lc", "hlc")}, "i": 0, "k": "note"}
    life.lines.insert(12, {**note, "text": "8 events are missing here", "dropped": 8})
    result = check(made, tmp_path)
    assert result.violated == ()
    assert any("n2" in why for why in result.weak)


def test_a_quorum_whose_appends_were_dropped_is_undecided(tmp_path: Path) -> None:
    made = good_run()
    index = made.lines("commit", "n2")[4]["index"]
    life = next(life for life in made.all if life.node == "n3")
    at = next(p for p, line in enumerate(life.lines) if line["k"] == "append" and line["index"] == index)
    following = life.lines[at + 1]
    note = {**{key: following[key] for key in ("t", "n", "inc", "lc", "hlc")}, "i": 0, "k": "note"}
    life.lines[at] = {**note, "text": "1 event is missing here", "dropped": 1}
    assert broken(made, tmp_path) == {}
    ok, detail = finding(made, tmp_path, "commit-by-quorum")
    assert ok is True
    assert "undecided: 1" in detail


def test_a_cut_off_leaders_own_entry_at_a_committed_index_is_no_loss(tmp_path: Path) -> None:
    """n1 appended alone at an index that the majority then committed otherwise; later it takes theirs."""
    made = good_run()
    index = made.lines("commit", "n2")[4]["index"]
    stepped = next(line for line in made.lines("role", "n1") if line["role"] == "follower")
    own = {"term": 1, "first": index, "index": index, "last_term": 1, "ph": "c" * 16, "marks": [[index, "c" * 16]]}
    made.insert("n1", "append", stepped, **own)
    committed = next(line for line in made.lines("commit", "n3") if line["index"] == index + 1)
    made.insert("n1", "append", committed, recovered=True, **{**own, "first": 1})
    assert broken(made, tmp_path) == {}


def test_an_unanswered_request_that_happened_is_no_loss(tmp_path: Path) -> None:
    made = good_run()
    made.submit(ALL, "default/quiet", "r9", answered=False)
    assert broken(made, tmp_path) == {}


def test_a_write_acknowledged_at_the_very_end_is_undecided_not_lost(tmp_path: Path) -> None:
    made = good_run()
    value = {"index": 99, "version": 1, "term": 2}
    made.emit("client", "op", id="r99", ph="ok", client="client-1", op="submit", key="default/x", value=value)
    ok, detail = finding(made, tmp_path, "no-acknowledged-placement-lost")
    assert ok is True
    assert "undecided" in detail


def test_a_cut_without_a_heal_is_undecided(tmp_path: Path) -> None:
    made = good_run()
    made.remove(lambda line: line["k"] == "heal" and line["n"] == "proxy")
    ok, detail = finding(made, tmp_path, "link-cut-silent")
    assert ok is None
    assert "heal" in detail


def test_sampled_marks_of_large_batches_are_enough(tmp_path: Path) -> None:
    made = TraceMaker()
    for number, node in enumerate(ALL):
        made.start(node, f"{number:08x}")
    made.elect("n1", ALL)
    first = len(made.hashes)
    for _ in range(200):
        made.hashes.append(f"{len(made.hashes):016x}")
        made.terms.append(1)
    last = len(made.hashes) - 1

    def span(low: int, high: int) -> dict[str, object]:
        marks = [[i, made.hashes[i]] for i in range(low, high + 1) if i % 64 == 0 or i == high]
        return {"term": 1, "first": low, "index": high, "last_term": 1, "ph": made.hashes[high], "marks": marks}

    made.emit("n1", "append", **span(first, last))
    made.emit("n2", "append", **span(first, 100))
    made.emit("n1", "commit", **span(first, 90))
    made.emit("n2", "append", **span(101, last))
    made.emit("n1", "commit", **span(91, last))
    assert broken(made, tmp_path) == {}


# -- weakness and nothing to check -------------------------------------------------------------


def test_a_run_without_faults_or_operations_is_weak(tmp_path: Path) -> None:
    made = TraceMaker()
    for number, node in enumerate(ALL):
        made.start(node, f"{number:08x}")
    made.elect("n1", ALL)
    result = check(made, tmp_path)
    assert result.ok
    assert set(result.weak) == {"no fault was injected", "no operation was answered"}
    unchecked = next(each for each in result.invariants if each.name == "capacity")
    assert (unchecked.ok, unchecked.checked) == (None, 0)


def test_a_trace_of_nothing_but_its_meta_line_is_not_ok_in_consensus(tmp_path: Path) -> None:
    made = TraceMaker()
    made.start("n1", "00000000")
    result = check_trace(made.trace(tmp_path), ["election-safety", "capacity", "commit-by-quorum"])
    assert not result.ok
    assert "nothing was committed" in result.weak


def test_an_unknown_invariant_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ScenarioInvalid, match="no invariant 'nonsense'"):
        check_trace(good_run().trace(tmp_path), ["nonsense"])


# -- the reader ----------------------------------------------------------------------------------


def test_events_of_all_files_are_merged_by_hybrid_clock_node_life_and_number(tmp_path: Path) -> None:
    trace = good_run().trace(tmp_path)
    keys = [(event.hlc, event.n, event.inc, event.i) for event in trace]
    assert keys == sorted(keys)
    assert len({event.n for event in trace}) == 6


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("not json", "not an event"),
        ("[1]", "not an event"),
        ('{"i": 1}', "without"),
        (json.dumps({"i": "1", "t": 1, "n": "n", "lc": 1, "hlc": 1, "inc": "x", "k": "note"}), "wrong type"),
        (json.dumps({"i": 1, "t": 1, "n": "n", "lc": 1, "hlc": -1, "inc": "x", "k": "note"}), "wrong type"),
        ("[" * 100_000, "not an event"),
    ],
)
def test_a_damaged_line_is_an_error_that_names_file_and_line(line: str, words: str, tmp_path: Path) -> None:
    good_run().write(tmp_path)
    file = tmp_path / "n1-00000000.jsonl"
    lines = file.read_text().splitlines()
    lines[4] = line
    file.write_text("\n".join(lines) + "\n")
    with pytest.raises(TraceUnreadable, match=r"n1-00000000\.jsonl:5") as refused:
        read_trace(tmp_path)
    assert words in str(refused.value)


def test_a_folder_without_traces_and_an_endless_line_are_refused(tmp_path: Path) -> None:
    with pytest.raises(TraceUnreadable, match="not a folder"):
        read_trace(tmp_path / "none")
    with pytest.raises(TraceUnreadable, match="no trace"):
        read_trace(tmp_path)
    (tmp_path / "x-1.jsonl").write_bytes(b"x" * (3 << 20))
    with pytest.raises(TraceUnreadable, match="longer than"):
        read_trace(tmp_path)


def test_rolled_files_of_one_life_are_one_life(tmp_path: Path) -> None:
    made = good_run()
    made.write(tmp_path)
    file = tmp_path / "n1-00000000.jsonl"
    lines = file.read_text().splitlines(keepends=True)
    file.write_text("".join(lines[:20]))
    (tmp_path / "n1-00000000.1.jsonl").write_text(lines[0] + "".join(lines[20:]))
    result = check_directory(tmp_path)
    assert result.violated == ()
    assert result.ok


def test_a_majority_side_alone_proves_its_commits(tmp_path: Path) -> None:
    made = good_run()
    made.submit(REST, "default/only-two", "r8")
    assert broken(made, tmp_path) == {}
