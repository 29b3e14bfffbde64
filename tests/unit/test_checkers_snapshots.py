"""Traces of replicas that begin with a snapshot, or take one: no false alarm, and no hiding behind it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from chaos.trace.check import check_trace
from tests.support.trace_maker import ALL, TraceMaker

REST = ["n1", "n2"]


def installed(made: TraceMaker, node: str, index: int) -> None:
    """A replica takes a snapshot up to `index` for its whole log."""
    ph, term = made.hashes[index], made.terms[index]
    made.emit(node, "disk", op="snapshot-install", index=index, ph=ph, bytes=100, us=10)
    made.emit(
        node,
        "append",
        term=made.term,
        first=index,
        index=index,
        last_term=term,
        ph=ph,
        marks=[[index, ph]],
        recovered=True,
        snapshot=index,
    )


def run() -> TraceMaker:
    """n3 is away while work is done, is brought back by a snapshot, restarts through one, and goes on."""
    made = TraceMaker()
    for number, node in enumerate((*ALL, "a1", "client")):
        made.start(node, f"{number:08x}")
    made.elect("n1", ALL)
    made.register(REST, "a1", cpu=1000)
    made.submit(REST, "default/web", "r1")
    epoch = made.bind(REST, "default/web.0", "a1", 400)
    made.emit("a1", "run", do="start", allocation="default/web.0", attempt=1, epoch=epoch, pid=77, cgroup="/x")
    made.emit("n1", "disk", op="snapshot-write", index=epoch, ph=made.hashes[epoch], bytes=100, us=10)
    installed(made, "n3", epoch)
    made.submit(ALL, "default/b", "r2")
    last = made.bind(ALL, "default/b.0", "a1", 300)
    made.ms += 500
    made.start("n3", "000000ff")
    installed(made, "n3", last)
    made.emit("a1", "run", do="exit", allocation="default/web.0", attempt=1, epoch=epoch, pid=77, exit={})
    made.release(ALL, "default/web.0", "a1", 400, epoch)
    made.submit(ALL, "default/c", "r3")
    for node in ALL:
        made.emit(node, "note", text="end")
    return made


def broken(made: TraceMaker, directory: Path) -> list[str]:
    return sorted(finding.name for finding in check_trace(made.trace(directory)).violated)


def test_an_honest_run_with_snapshots_raises_no_alarm(tmp_path: Path) -> None:
    assert broken(run(), tmp_path) == []


def other_log(made: TraceMaker) -> None:
    """The snapshot stands for another log."""
    made.lines("disk", "n3")[0]["ph"] = "f" * 16


def gap_behind_it(made: TraceMaker) -> None:
    """An entry right behind the snapshot is never applied."""
    index = made.lines("disk", "n3")[0]["index"] + 1
    life = next(life for life in made.all if life.node == "n3")
    life.lines = [line for line in life.lines if not (line["k"] in ("apply", "commit") and line["first"] == index)]
    for number, line in enumerate(life.lines):
        line["i"] = number


def going_back(made: TraceMaker) -> None:
    """A snapshot is installed that is older than what was applied."""
    made.lines("disk", "n3")[0]["index"] = 1
    made.lines("disk", "n3")[0]["ph"] = made.hashes[1]


def no_snapshot_after_all(made: TraceMaker) -> None:
    """The index was jumped over, and no snapshot says why."""
    made.remove(lambda line: line["k"] == "disk" and line["n"] == "n3")


def lost_behind_it(made: TraceMaker) -> None:
    """What was acknowledged behind the snapshot is missing on the replica that took it."""
    for line in made.lines("job", "n3"):
        if line["request_id"] == "r3":
            line["request_id"] = "another"


@pytest.mark.parametrize(
    ("forge", "names"),
    [
        (other_log, ["log-matching"]),
        (gap_behind_it, ["commit-contiguous"]),
        (going_back, ["commit-contiguous"]),
        (no_snapshot_after_all, ["commit-contiguous"]),
        (lost_behind_it, ["applied-alike", "no-acknowledged-placement-lost"]),
    ],
)
def test_a_forgery_is_named(forge: Callable[[TraceMaker], None], names: list[str], tmp_path: Path) -> None:
    made = run()
    forge(made)
    found = broken(made, tmp_path)
    assert set(names) <= set(found), found


def refetched(made: TraceMaker, node: str, index: int) -> None:
    """The node's state is replaced by a snapshot of `index`, and what came after is applied again."""
    last = len(made.hashes) - 1
    common = ("i", "t", "n", "inc", "lc", "hlc", "k")
    again = [line for line in made.lines(node=node) if line["k"] in ("node", "job", "place") and line["index"] > index]
    made.emit(node, "disk", op="state-refetch", index=index, ph=made.hashes[index], bytes=100, us=10)
    for line in again:
        made.emit(node, line["k"], **{key: value for key, value in line.items() if key not in common})
    made.emit(node, "apply", first=index + 1, index=last, ph=made.hashes[last])


def test_a_state_that_is_fetched_anew_is_applied_again_from_its_snapshot(tmp_path: Path) -> None:
    made = run()
    refetched(made, "n1", 4)
    assert broken(made, tmp_path) == []


def test_what_is_applied_again_must_be_what_the_others_applied(tmp_path: Path) -> None:
    made = run()
    refetched(made, "n1", 4)
    made.lines("place", "n1")[-1]["node"] = "a9"
    assert broken(made, tmp_path) == ["applied-alike"]


def test_applying_again_without_a_new_state_is_a_violation(tmp_path: Path) -> None:
    made = run()
    refetched(made, "n1", 4)
    made.remove(lambda line: line["k"] == "disk" and line["op"] == "state-refetch")
    assert "commit-contiguous" in broken(made, tmp_path)
