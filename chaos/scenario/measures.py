"""What a run cost, counted from its trace.

Owns: the metrics of DESIGN.md §13 and what was reached (`sometimes`).  Must not know: files, clusters.

Units are milliseconds where the name says so.  None = the trace does not tell.
"""

from __future__ import annotations

from itertools import pairwise

from chaos.trace.checkers.acknowledged import acknowledged_writes, lost_answers
from chaos.trace.checkers.links import full_cuts
from chaos.trace.events import Event, Trace
from chaos.trace.runs import Attempt, gap_ms, overlap_ms, successions

OWN_FAULTS = ("partition", "cut", "isolate", "delay", "kill", "pause")


def since_run(trace: Trace, run: str) -> tuple[list[Event], list[Event]]:
    """(the faults that scenario run `run` fired, its answered writes), in order."""
    faults = [e for e in trace.kind("fault") if e.f.get("kind") in OWN_FAULTS and e.text("id").startswith(f"{run}-")]
    answers = [e for e in acknowledged_writes(trace) if e.text("id").startswith(f"{run}.")]
    return faults, answers


def metrics(trace: Trace, run: str) -> dict[str, int | None]:
    """The numbers of one scenario run."""
    faults, answers = since_run(trace, run)
    start = faults[0].ms if faults else None
    elected = [e for e in _elections(trace) if start is not None and e.ms >= start]
    return {
        "unavailable_ms": longest_gap_ms(answers),
        "elect_ms": elected[0].ms - start if elected and start is not None else None,
        "acked": len(answers),
        "acked_lost": len([e for e in lost_answers(trace) if e.text("id").startswith(f"{run}.")]),
        "double_run_ms": double_run_ms(trace),
        **_of_replacements(trace, run, start),
        "elections": len(elected),
    }


def _of_replacements(trace: Trace, run: str, start: int | None) -> dict[str, int | None]:
    """How soon others took over, and how long (at least) nobody ran in between; None if nobody had to."""
    found = replacements(trace, run)
    gaps = [gap for older, newer in found if (gap := gap_ms(older, newer)) is not None]
    return {
        "replaced": len(found),
        "replaced_ms": max((newer.start_ms - start for _, newer in found), default=None) if start is not None else None,
        "overlap_ms": sum(overlap_ms(older, newer) for older, newer in found if not older.keeps) if found else None,
        "gap_ms": min(gaps, default=None),
    }


def _elections(trace: Trace) -> list[Event]:
    """The first `leader` event of every term."""
    terms: dict[int, Event] = {}
    for event in trace.kind("role"):
        if event.f.get("role") == "leader":
            terms.setdefault(event.number("term"), event)
    return sorted(terms.values(), key=lambda e: e.hlc)


def longest_gap_ms(answers: list[Event]) -> int | None:
    """Longest time between two acknowledged writes; None with fewer than two."""
    gap = longest_gap(answers)
    return None if gap is None else gap[1].ms - gap[0].ms


def longest_gap(answers: list[Event]) -> tuple[Event, Event] | None:
    """The two consecutive answers that lie furthest apart."""
    if len(answers) < 2:
        return None
    return max(pairwise(answers), key=lambda pair: pair[1].ms - pair[0].ms)


def double_run_ms(trace: Trace) -> int:
    """Time in which two attempts of one allocation ran at once, as the nodes saw it."""
    return sum(overlap_ms(older, newer) for older, newer in successions(trace) if not older.keeps)


def replacements(trace: Trace, run: str) -> list[tuple[Attempt, Attempt]]:
    """Attempts that began on another node after the run's first fault, each with the one it replaced."""
    faults, _ = since_run(trace, run)
    if not faults:
        return []
    start = faults[0].ms
    return [
        (older, newer) for older, newer in successions(trace) if newer.start_ms >= start and older.node != newer.node
    ]


def sometimes(trace: Trace, run: str) -> dict[str, bool]:
    """Which situations the run reached; a scenario that misses its own proves little."""
    faults, answers = since_run(trace, run)
    heals = [e for e in trace.kind("heal") if e.text("id").startswith(f"{run}-")]
    start = faults[0].ms if faults else None
    end = heals[-1].ms if heals else None
    unknown = any(e.f.get("ph") == "info" and e.text("id").startswith(f"{run}.") for e in trace.kind("op"))
    return {
        "leader-changed": start is not None and any(e.ms >= start for e in _elections(trace)),
        "write-during-fault": start is not None and end is not None and any(start < e.ms < end for e in answers),
        "unknown-outcome": unknown,
        "replaced": bool(replacements(trace, run)),
        "link-cut": any(
            heal is not None for fault, heal in full_cuts(trace) if start is not None and fault.ms >= start - 1
        ),
        "process-restarted": any(facts.next_hlc is not None for facts in trace.lives.values() if facts.killed_hlc),
    }
