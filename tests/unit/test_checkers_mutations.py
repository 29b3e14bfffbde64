"""Good runs, each spoiled at a random place in the way of one violation: whatever the place, it is found."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import cache
from random import Random

import pytest

from chaos.trace.checkers import CHECKERS
from chaos.trace.events import Trace
from chaos.trace.records import trace_of
from tests.support.full_run import full_run
from tests.support.long_run import long_run, records
from tests.support.trace_maker import ALL, Line, TraceMaker

SEEDS = 20
Mutation = Callable[[Random, TraceMaker], None]


@cache
def _good(name: str) -> TraceMaker:
    return full_run() if name == "full" else long_run(6)


def good(name: str) -> TraceMaker:
    """A copy that may be spoiled."""
    return copy.deepcopy(_good(name))


def some(dice: Random, made: TraceMaker, kind: str, **wanted: object) -> Line:
    found = [line for line in made.lines(kind) if all(line.get(key) == want for key, want in wanted.items())]
    return dice.choice(found)


def other_hash(dice: Random, line: Line) -> None:
    """The event tells of another log, from its first index on."""
    line["ph"] = f"{dice.getrandbits(64):016x}"
    line["marks"] = [[index, line["ph"]] for index, _ in line.get("marks", [])]


# -- each spoils one thing, anywhere -----------------------------------------------------------------


def another_commit(dice: Random, made: TraceMaker) -> None:
    other_hash(dice, some(dice, made, "commit"))


def another_apply(dice: Random, made: TraceMaker) -> None:
    other_hash(dice, some(dice, made, "apply"))


def support_taken_away(dice: Random, made: TraceMaker) -> None:
    """A majority's appends of some index come after the commit."""
    index = some(dice, made, "commit")["index"]
    commit = min((line for line in made.lines("commit") if line["index"] == index), key=lambda line: line["hlc"])
    for node in dice.sample(ALL, 2):
        for line in made.lines("append", node):
            if line["first"] <= index <= line["index"]:
                line["hlc"] = commit["hlc"] + 1


def commit_hole(dice: Random, made: TraceMaker) -> None:
    node = dice.choice(ALL)
    lines = made.lines(dice.choice(("commit", "apply")), node)
    gone = dice.choice(lines[:-1])
    made.remove(lambda line: line is gone)


def voted_for_another(dice: Random, made: TraceMaker) -> None:
    vote = some(dice, made, "vote")
    last = [line for line in made.lines(node=vote["n"]) if line["inc"] == vote["inc"]][-1]
    other = dice.choice([node for node in ALL if node != vote["candidate"]])
    made.lives[vote["n"]] = next(life for life in made.all if (life.node, life.inc) == (vote["n"], vote["inc"]))
    made.insert(vote["n"], "vote", last, term=vote["term"], candidate=other, why="again")


def leads_too(dice: Random, made: TraceMaker) -> None:
    leads = some(dice, made, "role", role="leader")
    other = dice.choice([node for node in ALL if node != leads["n"]])
    made.insert(other, "role", made.lines(node=other)[-1], role="leader", term=leads["term"], leader=other, why="?")


def one_replica_differs(dice: Random, made: TraceMaker) -> None:
    line = some(dice, made, "place")
    line[dice.choice(("node", "allocation", "why"))] = "different"


def two_bookings(dice: Random, made: TraceMaker) -> None:
    """One replica books more than there is."""
    some(dice, made, "place", do="bind")["requests"]["cpu_millicores"] = 10**6


def never_placed(dice: Random, made: TraceMaker) -> None:
    run = some(dice, made, "run", do="start")
    made.remove(lambda line: line["k"] == "place" and line["do"] == "bind" and line["epoch"] == run["epoch"])


def answer_forgotten(dice: Random, made: TraceMaker) -> None:
    answer = some(dice, made, "op", ph="ok", op="submit")
    node = dice.choice(ALL)
    made.remove(lambda line: line["k"] == "job" and line["n"] == node and line["index"] == answer["value"]["index"])


def freed_before_its_end(dice: Random, made: TraceMaker) -> None:
    run = some(dice, made, "run", do="exit")
    gone = [line for line in made.lines("run") if line["do"] in ("exit", "ended", "emptied")]
    gone = [line for line in gone if line["epoch"] == run["epoch"] and line["allocation"] == run["allocation"]]
    made.remove(lambda line: any(line is each for each in gone))


def runs_twice(dice: Random, made: TraceMaker) -> None:
    """An attempt's end moves behind the next one's beginning."""
    ends = [line for line in made.lines("run") if line["attempt"] == 1 and line["do"] in ("emptied", "exit")]
    last = max(line["hlc"] for line in made.lines())
    for line in ends:
        line["hlc"] = last + 1


def answered_backwards(dice: Random, made: TraceMaker) -> None:
    """A read tells of an index that is too old."""
    read = some(dice, made, "op", op="read", ph="ok")
    read["value"]["index"] = dice.randint(1, read["value"]["index"] - 1)


def another_version(dice: Random, made: TraceMaker) -> None:
    answer = some(dice, made, "op", ph="ok", key="default/web")
    answer["value"]["version"] += dice.choice((-1, 2, 5))


def status_again(dice: Random, made: TraceMaker) -> None:
    line = some(dice, made, "status", index=max(line["index"] for line in made.lines("status")))
    for report in line["reports"]:
        report[2] = dice.randint(0, 1)


def another_digest(dice: Random, made: TraceMaker) -> None:
    some(dice, made, "digest")["digest"] = "x"


def lower_token(dice: Random, made: TraceMaker) -> None:
    some(dice, made, "effect", accepted=False)["accepted"] = True


def lost_sooner(dice: Random, made: TraceMaker) -> None:
    """What a loss owes is more than what passed."""
    lost = some(dice, made, "lease", do="lost")
    lost[dice.choice(("lease_ms", "grace_ms", "delta_ms"))] += 4_000


def counted_longer(dice: Random, made: TraceMaker) -> None:
    lease = dice.choice([line for line in made.lines("lease", "a1") if line["do"] in ("grant", "renew")])
    lease[dice.choice(("deadline_ns", "left_ms"))] += dice.randint(50, 500) * 10**6


MUTATIONS: list[tuple[Mutation, str, str]] = [
    (another_commit, "long", "log-matching"),
    (another_apply, "long", "log-matching"),
    (another_apply, "long", "state-machine-safety"),
    (support_taken_away, "long", "commit-by-quorum"),
    (commit_hole, "long", "commit-contiguous"),
    (voted_for_another, "full", "vote-once"),
    (leads_too, "full", "election-safety"),
    (one_replica_differs, "long", "applied-alike"),
    (two_bookings, "long", "capacity"),
    (never_placed, "long", "run-was-placed"),
    (answer_forgotten, "long", "no-acknowledged-placement-lost"),
    (freed_before_its_end, "long", "freed-only-by-exit"),
    (runs_twice, "full", "at-most-one-process"),
    (answered_backwards, "full", "no-stale-read"),
    (another_version, "full", "linearizable"),
    (status_again, "full", "status-in-order"),
    (another_digest, "full", "equal-digests"),
    (lower_token, "full", "at-most-one-effect"),
    (lost_sooner, "full", "no-early-loss"),
    (counted_longer, "full", "lease-from-send"),
]


@pytest.mark.parametrize(("spoil", "run", "invariant"), MUTATIONS, ids=[f"{m.__name__}-{n}" for m, _, n in MUTATIONS])
def test_wherever_a_good_run_is_spoiled_it_is_found(spoil: Mutation, run: str, invariant: str) -> None:
    for seed in range(SEEDS):
        dice, made = Random(f"{spoil.__name__}:{seed}"), good(run)
        spoil(dice, made)
        found = CHECKERS[invariant](_trace(made))
        assert found.ok is False, (seed, found)
        assert found.refs


def test_the_runs_are_good() -> None:
    for name in ("full", "long"):
        for invariant, checker in CHECKERS.items():
            assert checker(_trace(good(name))).ok is not False, invariant


def _trace(made: TraceMaker) -> Trace:
    return trace_of(records(made))
