"""What a fault touches, parts, and takes away of what is promised."""

from __future__ import annotations

from typing import Any

import pytest

from chaos.trace.checkers.runs import at_most_one_process
from chaos.trace.events import Event, Trace
from chaos.trace.faults import FOREVER, Affliction, afflictions, beyond_promise


def fault(at_ms: int, id: str, kind: str, target: str, **more: Any) -> Event:
    args = {key: value for key, value in more.items() if key != "by"}
    fields = {"id": id, "kind": kind, "target": target, "args": args, "by": more.get("by", {"rule": "simulator"})}
    return Event(at_ms << 16, "client", "c", at_ms, at_ms / 1000, "fault", fields)


def heal(at_ms: int, id: str) -> Event:
    return Event(at_ms << 16, "client", "c", at_ms, at_ms / 1000, "heal", {"id": id})


def one(kind: str, target: str, **more: Any) -> Affliction:
    (found,) = afflictions(Trace([fault(1, "f", kind, target, **more)]))
    return found


def test_a_heal_ends_its_own_fault_and_one_that_was_never_told_ends_none() -> None:
    first, second = afflictions(Trace([fault(10, "f", "isolate", "n1"), fault(20, "g", "kill", "n2"), heal(30, "f")]))
    assert (first.since_s, first.until_s, second.until_s) == (0.01, 0.03, FOREVER)
    assert (first.overlaps(0.03, 9), first.overlaps(0.031, 9)) == (True, False)
    assert (first.lasts_through(0.01, 0.03), first.lasts_through(0.01, 0.04)) == (True, False)


@pytest.mark.parametrize(
    ("affliction", "apart", "together"),
    [
        (one("isolate", "n1"), ("n1", "n2"), ("n2", "n3")),
        (one("deaf", "n1"), ("n2", "n1"), ("n2", "n3")),
        (one("kill", "n1,n2"), ("n2", "n3"), ("n1", "n2")),
        (one("partition", "n1,n2", groups=[["n1", "n2"], ["n3"]]), ("n1", "n3"), ("n1", "n2")),
        (one("cut", "n1", fault="one-way-partition", groups=[["n1"], ["n2"]]), ("n2", "n1"), ("n1", "n3")),
        (one("flap", "n1", groups=[["n1"], ["n2"]]), None, ("n1", "n2")),
        (one("timeout", "n1~n2"), None, ("n1", "n2")),
        (one("delay", "n1"), None, ("n1", "n2")),
    ],
)
def test_who_certainly_gets_no_answer(
    affliction: Affliction, apart: tuple[str, str] | None, together: tuple[str, str]
) -> None:
    assert apart is None or affliction.parts(*apart)
    assert not affliction.parts(*together)


def test_a_finer_word_counts_and_a_stopped_process_is_no_stopped_machine() -> None:
    assert one("kill", "a1", fault="power-agent").kind == "power-agent"
    assert one("pause", "a1", by={"rule": "SIGSTOP"}).kind == "stopped-process"
    for kind, by, wanted in (("pause", "simulator", True), ("pause", "SIGSTOP", False), ("kill", "simulator", False)):
        trace = Trace([fault(10, "f", kind, "a1", by={"rule": by}), heal(20, "f")])
        assert (beyond_promise(trace, ["a1"], 0.0, 1.0) is not None) is wanted
        assert beyond_promise(trace, ["a2"], 0.0, 1.0) is None
        assert beyond_promise(trace, ["a1"], 0.5, 1.0) is None


def run(at_ms: int, node: str, do: str, epoch: int) -> Event:
    fields = {"do": do, "allocation": "default/j.0", "epoch": epoch, "on_disconnect": "stop"}
    return Event(at_ms << 16, node, "box", at_ms, at_ms / 1000, "run", fields)


def test_two_at_once_are_undecided_beyond_the_promise_and_a_violation_within_it() -> None:
    twice = [
        run(100, "a1", "start", 4),
        run(200, "a2", "start", 9),
        run(300, "a1", "exit", 4),
        run(400, "a2", "exit", 9),
    ]
    assert at_most_one_process(Trace(twice)).ok is False
    paused = [*twice, fault(120, "f", "pause", "a1"), heal(250, "f")]
    found = at_most_one_process(Trace(paused))
    assert (found.ok, "beyond what is promised" in found.detail) == (None, True)
    for harmless in (fault(120, "f", "pause", "a1", by={"rule": "SIGSTOP"}), fault(120, "f", "kill", "a1")):
        assert at_most_one_process(Trace([*twice, harmless])).ok is False
