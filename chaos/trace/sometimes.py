"""What a run reached: the situations in which bugs live, counted.

Owns: their names and how each is seen in a trace.  Must not know: what must hold in them (`checkers`), or how many
runs make a campaign.

A campaign that never reaches one of them proves nothing about it, and says so: a check that nothing was ever able to
violate is no check.  Each is a count, so that a table can tell how often.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Final

from chaos.trace.checkers.snapshots import INSTALL, WRITE
from chaos.trace.events import Event, Life, Trace
from chaos.trace.faults import Affliction, afflictions

Count = Callable[[Trace], int]
LINK_KINDS: Final = (
    "partition",
    "one-way-partition",
    "bridge",
    "ring",
    "flap",
    "isolate",
    "deaf",
    "mute",
    "cut",
    "refuse",
)
"""Faults that keep somebody from hearing somebody."""


def sometimes(trace: Trace) -> dict[str, int]:
    """How often the run reached each situation; 0 where it did not."""
    return {name: count(trace) for name, count in SITUATIONS.items()}


def never_reached(runs: Iterable[Mapping[str, int]]) -> list[str]:
    """The situations that none of these runs reached: why their clean result proves little."""
    reached = dict.fromkeys(SITUATIONS, 0)
    for run in runs:
        for name, count in run.items():
            reached[name] = reached.get(name, 0) + count
    return [name for name, count in reached.items() if not count]


def _which(kind: str, **wanted: object) -> Count:
    """Counts events of a kind with these fields; a tuple gives alternatives."""

    def matches(event: Event) -> bool:
        for name, want in wanted.items():
            value = event.f.get(name)
            if (value not in want) if isinstance(want, tuple) else (value != want):
                return False
        return True

    return lambda trace: sum(map(matches, trace.kind(kind)))


def _leaders(trace: Trace) -> list[Event]:
    return [event for event in trace.kind("role") if event.f.get("role") == "leader"]


def _cuts(trace: Trace) -> list[Affliction]:
    return [each for each in trace.derive(afflictions) if each.kind in LINK_KINDS]


def _elected_again(trace: Trace) -> int:
    return max(0, len({event.number("term") for event in _leaders(trace)}) - 1)


def _elected_under_partition(trace: Trace) -> int:
    later = _leaders(trace)[1:]
    return sum(any(cut.since_s <= event.t <= cut.until_s for cut in _cuts(trace)) for event in later)


def _two_at_a_time(trace: Trace) -> int:
    """Times at which a deposed leader had not heard of it when the next one was elected."""
    leading: dict[Life, Event] = {}
    found = 0
    for event in trace.kind("role"):
        life = (event.n, event.inc)
        if event.f.get("role") == "leader":
            found += any(other != life and not _ended(trace, other, event) for other in leading)
            leading[life] = event
        else:
            leading.pop(life, None)
    return found


def _ended(trace: Trace, life: Life, event: Event) -> bool:
    facts = trace.lives[life]
    return facts.last_hlc < event.hlc


def _overwrote(trace: Trace) -> int:
    """Durable entries that gave way to others."""
    last: dict[Life, int] = {}
    found = 0
    for event in trace.kind("append"):
        life, first = (event.n, event.inc), event.number("first")
        snapshot = event.number("snapshot") >= 0
        found += not snapshot and first <= last.get(life, 0)
        last[life] = event.number("index")
    return found


def _from_a_leader(trace: Trace) -> int:
    """Installs of a leader's snapshot, not of a replica's own at its start."""
    return sum(event.number("snapshot") == event.number("first") for event in trace.kind("append"))


def _answered_meanwhile(op: str) -> Count:
    def count(trace: Trace) -> int:
        asked = [e for e in trace.kind("op") if e.f.get("op") == op and e.f.get("ph") == "ok"]
        cuts = _cuts(trace)
        return sum(any(cut.since_s <= event.t <= cut.until_s for cut in cuts) for event in asked)

    return count


def _asked_again(trace: Trace) -> int:
    answers: dict[str, int] = {}
    for event in trace.kind("op"):
        if event.f.get("ph") == "ok" and event.f.get("op") != "read" and event.text("client").startswith("client"):
            answers[event.text("id")] = answers.get(event.text("id"), 0) + 1
    return sum(count > 1 for count in answers.values())


def _replaced_elsewhere(trace: Trace) -> int:
    where: dict[str, str] = {}
    moved: set[tuple[str, int]] = set()
    for event in trace.kind("place"):
        if event.f.get("do") == "bind":
            before = where.get(event.text("allocation"))
            if before not in (None, event.text("node")):
                moved.add((event.text("allocation"), event.number("epoch")))
            where[event.text("allocation")] = event.text("node")
    return len(moved)


def _stopped_by_its_lease(trace: Trace) -> int:
    return sum(event.f.get("do") == "fenced" for event in trace.kind("run"))


def _learned(trace: Trace) -> int:
    return sum(bool(event.part("learners")) for event in trace.kind("note") if "voters" in event.f)


def _restarts(trace: Trace) -> int:
    return sum(event.number("index") > 0 for event in trace.kind("store"))


def _owners_changed(trace: Trace) -> int:
    return max(0, len({event.number("epoch") for event in trace.kind("shard")}) - 1)


def _noted(start: str) -> Count:
    return lambda trace: sum(event.text("text").startswith(start) for event in trace.kind("note"))


def _why(kind: str, start: str) -> Count:
    return lambda trace: sum(event.text("why").startswith(start) for event in trace.kind(kind))


SITUATIONS: Final[dict[str, Count]] = {
    "leader-changed": _elected_again,
    "elected-under-partition": _elected_under_partition,
    "two-leaders-at-a-time": _two_at_a_time,
    "leader-gave-up": _why("role", "no majority answered within"),
    "leader-hung-on-its-disk": _why("role", "its own write hangs"),
    "leader-handed-over": _which("recv", type="timeout-now"),
    "vote-refused": _why("role", "a majority refused its vote"),
    "entry-overwritten": _overwrote,
    "snapshot-written": _which("disk", op=WRITE),
    "snapshot-installed": _from_a_leader,
    "state-restored-at-start": lambda trace: _which("disk", op=INSTALL)(trace) - _from_a_leader(trace),
    "replica-restarted": _restarts,
    "store-retired": _noted("store "),
    "learner-caught-up": _learned,
    "append-refused": _which("recv", type="append-reply", accepted=False),
    "message-dropped": lambda trace: len(trace.kind("drop")),
    "write-during-partition": _answered_meanwhile("submit"),
    "read-during-partition": _answered_meanwhile("read"),
    "unknown-outcome": _which("op", ph="info"),
    "request-asked-again": _asked_again,
    "plan-refused": _which("place", do="refuse"),
    "owners-changed": _owners_changed,
    "node-lost": _which("lease", do="lost"),
    "loss-paused": _which("lease", do="storm"),
    "lease-expired": _which("lease", do="expire"),
    "stopped-by-its-lease": _stopped_by_its_lease,
    "renewal-refused": _which("lease", do="refused"),
    "placed-elsewhere": _replaced_elsewhere,
    "workload-adopted": _which("run", do="adopt"),
    "exit-unknown": lambda trace: sum(
        event.part("exit").get("status_known") is False for event in trace.kind("run") if event.f.get("do") == "exit"
    ),
    "stale-token-refused": _which("effect", accepted=False),
    "digests-compared": lambda trace: len(trace.kind("digest")),
}
