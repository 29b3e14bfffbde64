"""Every checker against traces that were tampered with in the way of its violation, and against lost evidence."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from chaos.trace.check import check_trace
from chaos.trace.checkers import CHECKERS, Finding
from chaos.trace.records import trace_of
from tests.support.full_run import LEASE_MS, MS_NS, begin, catch_up_by_guesses, full_run, lease, lose, read, status
from tests.support.long_run import records
from tests.support.trace_maker import ALL, Line, TraceMaker
from tests.unit.test_checkers_trace import FORGERIES as OLDER

Forge = Callable[[TraceMaker], None]


def finding(made: TraceMaker, name: str) -> Finding:
    """Of one checker, over the trace as a simulator hands it over: whole."""
    return CHECKERS[name](trace_of(records(made)))


def first(made: TraceMaker, kind: str, node: str, /, **wanted: object) -> Line:
    return next(line for line in made.lines(kind, node) if all(line.get(key) == want for key, want in wanted.items()))


def last(made: TraceMaker, kind: str, node: str, /, **wanted: object) -> Line:
    found = [line for line in made.lines(kind, node) if all(line.get(key) == want for key, want in wanted.items())]
    return found[-1]


# -- consensus ---------------------------------------------------------------------------------


def vote_forgotten(made: TraceMaker) -> None:
    first(made, "store", "n3", term=2)["candidate"] = "n1"


def term_forgotten(made: TraceMaker) -> None:
    first(made, "store", "n3", term=2)["term"] = 1


def learner_votes(made: TraceMaker) -> None:
    for note in made.lines("note", "n3"):
        if "voters" in note:
            note["voters"] = {"n1": f"{'n1':0>32}", "n2": f"{'n2':0>32}"}
            note["learners"] = {"n3": f"{'n3':0>32}"}


def empty_store_votes(made: TraceMaker) -> None:
    made.remove(lambda line: line["n"] == "n3" and line["k"] == "note" and "voters" in line)


def minority_elects(made: TraceMaker) -> None:
    made.remove(lambda line: line["k"] == "vote" and line["n"] == "n3" and line["term"] == 2)


def vote_after_election(made: TraceMaker) -> None:
    """Counted before it was durable."""
    leads = first(made, "role", "n2", role="leader", term=2)
    for node in ("n1", "n3"):
        made.remove(lambda line, node=node: line["k"] == "vote" and line["n"] == node and line["term"] == 2)  # type: ignore[misc]
    fields = {"term": 2, "candidate": "n2", "why": "late"}
    made.insert("n1", "vote", leads, **fields)


def leader_overwrites(made: TraceMaker) -> None:
    appends = [line for line in made.lines("append", "n2") if line["term"] == 2]
    appends[3]["first"] -= 1


def incomplete_leader(made: TraceMaker) -> None:
    """n2 was elected without the last entry that the term before had committed."""
    leads = first(made, "role", "n2", role="leader", term=2)
    before = [line for line in made.lines("append", "n2") if line["hlc"] < leads["hlc"]][-1]
    made.remove(lambda line: line is before)
    following = next(line for line in made.lines("append", "n2") if line["hlc"] > leads["hlc"])
    following["first"] = following["index"] = before["index"]
    following["ph"], following["marks"] = "e" * 16, [[before["index"], "e" * 16]]


def no_pre_vote(made: TraceMaker) -> None:
    made.remove(lambda line: line.get("type") == "vote-reply" and line["term"] == 2)


def helps_to_depose(made: TraceMaker) -> None:
    """n3 hears its leader and would vote for n1 a moment later."""
    follows = last(made, "role", "n1", leader="n2")
    heard = {"type": "append", "term": 2, "index": 9, "fr": "n2", "m": "n2/z/1", "bytes": 9}
    for number in range(4):
        follows = made.insert("n1", "recv", follows, **heard)
        follows["hlc"] += (30 * number) << 16
        follows["t"] = (follows["hlc"] >> 16) / 1000
    answer = {"type": "vote-reply", "term": 3, "pre": True, "granted": True, "to": "n3", "m": "n1/z/2", "bytes": 9}
    made.insert("n1", "send", follows, **answer)


def applied_another_log(made: TraceMaker) -> None:
    made.lines("apply", "n1")[-1]["ph"] = "d" * 16


def earlier_term_by_count(made: TraceMaker) -> None:
    commit = [line for line in made.lines("commit", "n2") if line["term"] == 2][2]
    commit["last_term"] = 1


def another_configuration(made: TraceMaker) -> None:
    for note in made.lines("note", "n3"):
        if "voters" in note:
            note["voters"] = {"n3": f"{'n3':0>32}"}


def snapshot_without_configuration(made: TraceMaker) -> None:
    """n3's second life begins with a snapshot that does not bring its members."""
    life = made.lives["n3"]
    made.remove(lambda line: line["inc"] == life.inc and line["k"] == "note" and "voters" in line)
    index = len(made.hashes) - 1
    made.insert("n3", "disk", life.lines[1], op="snapshot-install", index=index, ph=made.hashes[index], bytes=1, us=1)
    assert any(line["k"] == "commit" for line in life.lines)


def other_digest(made: TraceMaker) -> None:
    made.lines("digest", "n2")[-1]["digest"] = "other"


def one_guess_an_entry(made: TraceMaker) -> None:
    catch_up_by_guesses(made, ["n3"], count=20)


def leads_on_alone(made: TraceMaker) -> None:
    made.remove(lambda line: line["k"] == "role" and line["n"] == "n1" and line["why"].startswith("heard no majority"))
    for line in made.lines("role", "n1"):
        if line["why"] == "higher term":
            line["hlc"] += 1


def old_read(made: TraceMaker) -> None:
    last(made, "op", "n1", op="read", ph="ok")["value"]["index"] -= 1


def version_never_given(made: TraceMaker) -> None:
    last(made, "op", "n1", op="read", ph="ok")["value"]["version"] = 7


def version_gone_back(made: TraceMaker) -> None:
    read(made, "q2")
    last(made, "op", "n1", op="read", ph="ok")["value"]["version"] = 0


def answered_too_early(made: TraceMaker) -> None:
    answer = last(made, "op", "client", ph="ok", id="r9")
    answer["hlc"] -= 30 << 16


# -- owners ------------------------------------------------------------------------------------


def two_owners(made: TraceMaker) -> None:
    made.lines("shard", "n3")[-1]["probes"] = ["n3"] * 4


def two_owner_sets(made: TraceMaker) -> None:
    made.lines("shard", "n3")[-1]["owners"] = ["n1", "n3"]


def moved_between_old_owners(made: TraceMaker) -> None:
    for node in ALL:
        made.lines("shard", node)[-1]["probes"] = ["n2", "n3", "n1", "n2"]


def stale_owner(made: TraceMaker) -> None:
    for line in made.lines("place"):
        if line.get("ring_now") == 2:
            line["owner"] = "n3"


# -- leases ------------------------------------------------------------------------------------


def confirmed_when_deposed(made: TraceMaker) -> None:
    """n1 confirms in term 1, received long after the others had gone on to term 2."""
    after = [line for line in made.lines("append", "n3") if line["term"] == 2][3]
    made.insert(
        "n1", "lease", after, do="confirm", node="n1", number=0, deadline_ns=0, term=1, nodes=[["a1", 0]], waited_us=0,
        lease_ms=LEASE_MS,
    )  # fmt: skip


def confirmed_when_cut_off(made: TraceMaker) -> None:
    """n1 confirms 800 ms after the partition began, before anybody else was elected."""
    cut = first(made, "fault", "client", kind="partition")
    confirm = made.insert(
        "n1", "lease", cut, do="confirm", node="n1", number=0, deadline_ns=0, term=1, nodes=[["a1", 0]], waited_us=0,
        lease_ms=LEASE_MS,
    )  # fmt: skip
    confirm["hlc"] += 800 << 16
    confirm["t"] += 0.8


def counted_from_receipt(made: TraceMaker) -> None:
    made.lines("lease", "a1")[-1]["deadline_ns"] += 3 * MS_NS


def counted_by_another_clock(made: TraceMaker) -> None:
    lease(made, 9, late_ms=100)


def lost_early(made: TraceMaker) -> None:
    made.ms += 5 * LEASE_MS
    lease(made, 11)
    made.ms += LEASE_MS
    lose(made, number=11, silent_ms=LEASE_MS)


def lost_after_election(made: TraceMaker) -> None:
    """Another leader does not give nodes the time to find it."""
    made.elect("n3", ALL)
    made.ms += 200
    lose(made, number=0, silent_ms=200)


def counted_on_a_clock_that_jumped(made: TraceMaker) -> None:
    lease(made, 9, ahead_ms=600)


def begun_without_a_lease(made: TraceMaker) -> None:
    begin(made, "default/late.0", made.bind(ALL, "default/late.0", "a1", 0))


def renewed_though_lost(made: TraceMaker) -> None:
    lease(made, 12)


# -- nodes -------------------------------------------------------------------------------------


def too_much_runs(made: TraceMaker) -> None:
    for line in made.lines("node"):
        if line["do"] == "register":
            line["capacity"]["cpu_millicores"] = 300


def freed_at_the_stop(made: TraceMaker) -> None:
    made.remove(lambda line: line["k"] == "run" and line["do"] in ("emptied", "exit") and line["attempt"] == 1)


def began_after_it_was_freed(made: TraceMaker) -> None:
    freed = last(made, "place", "n2", do="release", allocation="default/web.0")
    fields = {"do": "began", "allocation": "default/web.0", "attempt": 1, "epoch": freed["epoch"], "pid": 7}
    made.emit("a1", "run", **fields)


def applied_twice(made: TraceMaker) -> None:
    bind = last(made, "place", "n2", do="bind")
    fields = {key: value for key, value in bind.items() if key not in ("i", "t", "n", "inc", "lc", "hlc", "k")}
    made.insert("n2", "place", bind, **fields | {"do": "refuse"})


def older_report(made: TraceMaker) -> None:
    status(made, "default/web.0", 9)
    status(made, "default/web.0", 8)


def invented_exit(made: TraceMaker) -> None:
    first(made, "run", "a1", do="exit")["exit"]["code"] = 0


def exit_told_while_it_runs(made: TraceMaker) -> None:
    told = first(made, "run", "a1", do="exit")
    made.remove(lambda line: line["k"] == "run" and line["do"] == "emptied" and line["epoch"] == told["epoch"])


def stranger_signalled(made: TraceMaker) -> None:
    made.emit("a1", "run", do="harmed", pid=77, name="stranger", signal=9)


def old_token_accepted(made: TraceMaker) -> None:
    made.lines("effect", "a1")[-1]["accepted"] = True


def runs_on(made: TraceMaker) -> None:
    stop = last(made, "run", "a1", do="stop")
    made.remove(
        lambda line: line["k"] == "run" and line["do"] in ("emptied", "exit") and line["epoch"] == stop["epoch"]
    )


def rows_kept(made: TraceMaker) -> None:
    for line in made.lines("job"):
        if line["do"] == "collect":
            line["rows"] = 50


FORGERIES: list[tuple[Forge, str]] = [
    (vote_forgotten, "votes-kept"),
    (term_forgotten, "votes-kept"),
    (learner_votes, "voters-vote"),
    (empty_store_votes, "voters-vote"),
    (minority_elects, "elected-by-quorum"),
    (vote_after_election, "elected-by-quorum"),
    (leader_overwrites, "leader-append-only"),
    (incomplete_leader, "leader-completeness"),
    (no_pre_vote, "no-healthy-leader-deposed"),
    (helps_to_depose, "sticky-voters"),
    (applied_another_log, "state-machine-safety"),
    (earlier_term_by_count, "commits-own-term"),
    (another_configuration, "configuration-kept"),
    (snapshot_without_configuration, "configuration-kept"),
    (other_digest, "equal-digests"),
    (one_guess_an_entry, "bounded-catch-up"),
    (leads_on_alone, "cut-off-leader-steps-down"),
    (old_read, "no-stale-read"),
    (version_never_given, "linearizable"),
    (version_gone_back, "linearizable"),
    (answered_too_early, "no-acknowledged-placement-lost"),
    (two_owners, "one-owner-per-arc"),
    (two_owner_sets, "one-owner-per-arc"),
    (moved_between_old_owners, "ring-moves-little"),
    (stale_owner, "no-stale-owner"),
    (confirmed_when_deposed, "lease-by-quorum"),
    (confirmed_when_cut_off, "lease-by-quorum"),
    (counted_from_receipt, "lease-from-send"),
    (counted_on_a_clock_that_jumped, "lease-from-send"),
    (counted_by_another_clock, "lease-from-send"),
    (lost_early, "no-early-loss"),
    (lost_after_election, "no-early-loss"),
    (begun_without_a_lease, "no-late-start"),
    (renewed_though_lost, "no-lease-for-the-lost"),
    (too_much_runs, "capacity-on-nodes"),
    (freed_at_the_stop, "freed-only-by-exit"),
    (began_after_it_was_freed, "freed-only-by-exit"),
    (applied_twice, "applied-once"),
    (older_report, "status-in-order"),
    (invented_exit, "exits-happened"),
    (exit_told_while_it_runs, "exits-come-last"),
    (stranger_signalled, "harms-nobody"),
    (old_token_accepted, "at-most-one-effect"),
    (runs_on, "no-orphan"),
    (rows_kept, "no-slot-leaked"),
]


def test_an_honest_run_passes_and_every_checker_has_something_to_check(tmp_path: Path) -> None:
    for trace in (full_run().trace(tmp_path), trace_of(records(full_run()))):
        result = check_trace(trace)
        assert [each for each in result.invariants if each.ok is not True] == []
        assert all(each.checked > 0 for each in result.invariants)
        assert result.ok


@pytest.mark.parametrize(("forge", "invariant"), FORGERIES, ids=[f.__name__ for f, _ in FORGERIES])
def test_a_forgery_is_found_and_its_events_are_named(forge: Forge, invariant: str) -> None:
    made = full_run()
    forge(made)
    found = finding(made, invariant)
    assert found.ok is False, found
    refs = {f"{line['n']}/{line['inc']}/{line['i']}" for line in made.lines()}
    assert found.refs, "a violation names its events"
    assert set(found.refs) <= refs
    assert found.detail


def test_an_exit_told_at_the_moment_of_the_last_process_end_is_in_time() -> None:
    made = full_run()
    exit_, emptied = first(made, "run", "a1", do="exit"), first(made, "run", "a1", do="emptied")
    exit_["hlc"], emptied["hlc"] = emptied["hlc"], exit_["hlc"]
    assert finding(made, "exits-come-last").ok is True
    made.remove(lambda line: line is emptied)
    assert finding(made, "exits-come-last").ok is False


def test_an_answer_that_waited_for_the_disk_is_no_disloyalty() -> None:
    made = full_run()
    helps_to_depose(made)
    assert finding(made, "sticky-voters").ok is False
    sent = next(line for line in made.lines("send", "n1") if line["m"] == "n1/z/2")
    slow = made.insert("n1", "disk", sent, op="append", bytes=9, us=900_000)
    found = finding(made, "sticky-voters")
    assert (found.ok, "slow write" in found.detail) == (True, True)
    made.remove(lambda line: line is slow)
    sent["term"] = 2
    assert finding(made, "sticky-voters").ok is True


def test_the_numbers_of_another_life_of_an_agent_prove_nothing() -> None:
    made = full_run()
    made.ms += 60_000
    made.start("a1", "000000ee")
    made.emit(
        "a1", "lease", do="grant", node="a1", registration=9, number=1, lease_ms=LEASE_MS, left_ms=LEASE_MS - 4,
        sent_ns=7 * MS_NS, deadline_ns=7 * MS_NS + LEASE_MS * MS_NS,
    )  # fmt: skip
    assert finding(made, "lease-from-send").ok is True


def test_every_checker_has_a_forgery_that_it_finds() -> None:
    assert {name for _, name in (*FORGERIES, *OLDER)} == set(CHECKERS)


# -- blind: without its evidence a checker claims nothing -------------------------------------------

EVIDENCE: dict[str, Callable[[Line], bool]] = {
    "election-safety": lambda line: line["k"] == "role",
    "vote-once": lambda line: line["k"] == "vote",
    "votes-kept": lambda line: line["k"] == "store",
    "voters-vote": lambda line: line["k"] == "note",
    "terms-rise": lambda line: line["k"] in ("role", "vote"),
    "elected-by-quorum": lambda line: line["k"] == "note",
    "leader-append-only": lambda line: line["k"] == "role",
    "leader-completeness": lambda line: line["k"] == "commit",
    "no-healthy-leader-deposed": lambda line: line["k"] == "role" and line["role"] == "candidate",
    "sticky-voters": lambda line: line["k"] == "store",
    "log-matching": lambda line: line["k"] in ("append", "commit", "apply"),
    "commit-by-quorum": lambda line: line["k"] == "commit",
    "commit-contiguous": lambda line: line["k"] in ("commit", "apply"),
    "committed-kept": lambda line: line["k"] == "commit",
    "state-machine-safety": lambda line: line["k"] == "apply",
    "equal-digests": lambda line: line["k"] == "digest" and line["n"] != "n1",
    "bounded-catch-up": lambda line: line.get("accepted") is False and line["k"] == "recv",
    "one-owner-per-arc": lambda line: line["k"] in ("shard", "place"),
    "ring-moves-little": lambda line: line["k"] == "shard" and line["epoch"] == 1,
    "no-stale-owner": lambda line: line["k"] == "place" and "ring" in line,
    "lease-from-send": lambda line: line["k"] == "lease" and line["n"] == "a1",
    "no-lease-for-the-lost": lambda line: line["k"] == "lease",
    "commits-own-term": lambda line: line["k"] == "commit",
    "configuration-kept": lambda line: line["k"] == "note",
    "applied-once": lambda line: line["k"] == "place",
    "status-in-order": lambda line: line["k"] == "status",
    "exits-happened": lambda line: line["k"] == "run" and line["do"] == "ended",
    "exits-come-last": lambda line: line["k"] == "run" and line["do"] == "began",
    "harms-nobody": lambda line: line["k"] == "run" and line["do"] == "ended",
    "at-most-one-effect": lambda line: line["k"] == "effect",
    "no-slot-leaked": lambda line: line["k"] == "job",
    "cut-off-leader-steps-down": lambda line: line["k"] == "store",
    "no-stale-read": lambda line: line["k"] == "op",
    "linearizable": lambda line: line["k"] == "op",
    "no-acknowledged-placement-lost": lambda line: line["k"] == "op",
    "one-effect-per-request": lambda line: line["k"] == "job",
    "capacity": lambda line: line["k"] == "place",
    "capacity-on-nodes": lambda line: line["k"] == "run",
    "freed-only-by-exit": lambda line: line["k"] == "run",
    "one-bind-per-attempt": lambda line: line["k"] == "place",
    "applied-alike": lambda line: line["k"] in ("place", "node", "job"),
    "run-was-placed": lambda line: line["k"] == "run",
    "at-most-one-process": lambda line: line["k"] == "run",
    "absence-never-stops": lambda line: line["k"] == "run",
    "no-orphan": lambda line: line["k"] in ("run", "place"),
    "fencing": lambda line: line["k"] == "run",
    "lease-by-quorum": lambda line: line["k"] == "note",
    "no-late-start": lambda line: line["k"] == "lease",
    "no-early-loss": lambda line: line["k"] == "lease" and line["do"] == "lost",
    "link-cut-silent": lambda line: line["k"] == "fault",
}


def test_every_checker_of_the_cluster_is_tried_blind() -> None:
    assert set(EVIDENCE) == set(CHECKERS) - {"trace-complete", "own-invariants"}


@pytest.mark.parametrize("name", EVIDENCE)
def test_without_its_evidence_a_checker_says_that_it_does_not_know(name: str) -> None:
    made = full_run()
    made.remove(EVIDENCE[name])
    found = finding(made, name)
    assert (found.ok, found.checked) == (None, 0)
    assert found.detail
