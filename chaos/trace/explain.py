"""`skerry trace explain`: the story of a run in words.

Owns: the order of the story, and the closing sentence, which repeats what the checkers counted.
Must not know: how sentences about a kind of event are made (`chaos.trace.story`).

No sentence is canned: each is built from events of this trace and names them.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from chaos.trace.check import check_trace
from chaos.trace.checkers.acknowledged import acknowledged_writes
from chaos.trace.events import Trace
from chaos.trace.reader import read_trace
from chaos.trace.story import consensus, faults, leases, work
from chaos.trace.story.sentence import Sentence, Told, tell

NARRATORS: tuple[Callable[[Trace], list[Told]], ...] = (
    consensus.opening,
    consensus.elections,
    consensus.step_downs,
    consensus.restarts,
    consensus.unknown_ends,
    faults.process_faults,
    faults.link_faults,
    work.pauses,
    work.cut_off_answers,
    work.placements,
    work.workloads,
    leases.expiries,
    leases.losses,
    leases.takeovers,
    work.answers,
)


def explain_trace(trace: Trace) -> list[Sentence]:
    """The story, in the order in which things happened; each sentence begins with its time."""
    if not trace.events:
        return []
    told = [sentence for narrator in NARRATORS for sentence in narrator(trace)]
    told.sort(key=lambda each: (each.hlc, each.rank))
    start = trace.events[0].hlc >> 16
    story = [_timed(each, start) for each in told]
    return story + [each.sentence for each in _closing(trace)]


def explain_directory(directory: Path) -> list[Sentence]:
    """Read and explain a run's folder; raises TraceUnreadable."""
    return explain_trace(read_trace(directory))


def _timed(told: Told, start_ms: int) -> Sentence:
    at = max(0, (told.hlc >> 16) - start_ms) / 1000
    return Sentence(f"{at:8.3f} s  {told.sentence.text}", told.sentence.refs)


def _closing(trace: Trace) -> list[Told]:
    """What the checkers found, in their own numbers."""
    last = trace.events[-1]
    checked = check_trace(trace)
    told = []
    for finding in checked.invariants:
        if finding.ok is False:
            sentence = Sentence(f"VIOLATED {finding.name}: {finding.detail}.", finding.refs)
            told.append(Told(last.hlc, 2, sentence))
    lost = next(f for f in checked.invariants if f.name == "no-acknowledged-placement-lost")
    writes = acknowledged_writes(trace)
    if lost.ok and writes:
        undecided = f" ({lost.detail})" if lost.detail else ""
        text = (
            f"Nothing acknowledged was lost: of {lost.checked} acknowledged writes, from {writes[0].text('id')} to "
            f"{writes[-1].text('id')}, none is missing or replaced at its index on a replica that got there{undecided}."
        )
        told.append(tell(last, text, [writes[0], writes[-1]], rank=2))
    return told
