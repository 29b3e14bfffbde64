"""`skerry trace check`: all checkers over one run, from files or from memory.

Owns: the result's keys (DESIGN.md §13), and that rules which walk forward share one pass.
Must not know: any invariant, or how results are printed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from msgspec import Struct

from chaos.errors import ScenarioInvalid
from chaos.trace.checkers import CHECKERS, Finding, weaknesses
from chaos.trace.checkers.base import RuleChecker, walk
from chaos.trace.events import Life, Trace
from chaos.trace.reader import read_trace
from chaos.trace.records import Record, trace_of

ABOUT_THE_TRACE = ("own-invariants", "trace-complete")
"""These hold of any file; alone they prove nothing about the cluster."""


class CheckResult(Struct, frozen=True):
    """What `trace check` answers.

    `ok`: no invariant is violated and at least one of the cluster's was checked.  `weak`: reasons why a clean
    result proves little (no faults, no operations …); empty if it proves something.
    """

    ok: bool
    events: int
    invariants: tuple[Finding, ...]
    weak: tuple[str, ...]

    @property
    def violated(self) -> tuple[Finding, ...]:
        """The invariants that do not hold."""
        return tuple(finding for finding in self.invariants if finding.ok is False)


def check_trace(trace: Trace, names: Iterable[str] | None = None) -> CheckResult:
    """Run all checkers, or the named ones.

    Raises:
        ScenarioInvalid: no checker has that name.
    """
    wanted = list(names) if names is not None else list(CHECKERS)
    for name in wanted:
        if name not in CHECKERS:
            raise ScenarioInvalid(f"there is no invariant {name!r}", hint=f"there are: {', '.join(CHECKERS)}")
    rules = {name: found.rule for name in wanted if isinstance(found := CHECKERS[name], RuleChecker)}
    walked = dict(zip(rules, walk(trace, list(rules.values())), strict=True))
    findings = tuple(walked.get(name) or CHECKERS[name](trace) for name in wanted)
    proven = any(finding.ok for finding in findings if finding.name not in ABOUT_THE_TRACE)
    ok = proven and all(finding.ok is not False for finding in findings)
    return CheckResult(ok=ok, events=len(trace.events), invariants=findings, weak=tuple(weaknesses(trace)))


def check_records(lives: Mapping[Life, Iterable[Record]], names: Iterable[str] | None = None) -> CheckResult:
    """The same from the memory of tracers, by (node, incarnation)."""
    return check_trace(trace_of(lives), names)


def check_directory(directory: Path) -> CheckResult:
    """Read and check a run's folder; raises TraceUnreadable."""
    return check_trace(read_trace(directory))
