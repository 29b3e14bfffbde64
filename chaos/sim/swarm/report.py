"""What a campaign says: totals, failures with the line that repeats each, and what was never reached.

Owns: the keys of `skerry sim` (DESIGN.md §13) and its words for people.
Must not know: how seeds are run.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import msgspec
from msgspec import Struct

from chaos.sim.swarm.result import Failure, SeedResult

FAILURES_SHOWN = 10
WEAK_FROM_SEEDS = 100
"""A campaign of fewer seeds is not blamed for what it never reached."""


class FailedSeed(Struct, frozen=True):
    """A seed that fails, the first checker that says so, and how to see it again."""

    seed: int
    checker: str
    detail: str
    repro: str
    all: tuple[Failure, ...]
    shrunk: str = ""
    """A shorter run that fails alike; "" if none was looked for or found."""


class Compared(Struct, frozen=True):
    """Seeds that were run again in a process with another hash seed, and those whose traces differ."""

    seeds: int
    differing: tuple[int, ...]


class Report(Struct, frozen=True):
    """A campaign."""

    seeds: int
    failures: tuple[FailedSeed, ...]
    unknown: dict[str, int]
    """Checker → seeds in which it could not decide."""
    sometimes: dict[str, int]
    """Situation → seeds that reached it."""
    weak: tuple[str, ...]
    """Situations that no seed reached."""
    events: int
    steps: int
    virtual_s: float
    wall_s: float
    medians: dict[str, float]
    ranges: dict[str, tuple[float, float]]
    transports: dict[str, int]
    compared: Compared | None = None
    interrupted: bool = False

    @property
    def ok(self) -> bool:
        """Nothing is violated, and what was run twice was the same."""
        return not self.failures and not (self.compared and self.compared.differing)

    @property
    def undecided(self) -> bool:
        """Nothing is violated, and something could not be decided."""
        return self.ok and bool(self.unknown)


class Tally:
    """Counts results up while a campaign runs; holds numbers alone, so that 20,000 seeds fit."""

    def __init__(self, repro: Callable[[SeedResult], str]) -> None:
        self._repro = repro
        self._failures: list[FailedSeed] = []
        self._unknown: dict[str, int] = {}
        self._sometimes: dict[str, int] = {}
        self._transports: dict[str, int] = {}
        self._sizes: dict[str, list[float]] = {
            name: [] for name in ("virtual_s", "replicas", "agents", "jobs", "faults", "events")
        }
        self._steps = 0
        self.digests: dict[int, str] = {}

    @property
    def failures(self) -> list[FailedSeed]:
        """So far."""
        return self._failures

    @property
    def seeds(self) -> int:
        """So far."""
        return len(self._sizes["events"])

    def add(self, result: SeedResult, shrunk: str = "") -> None:
        """Count one seed."""
        if result.failed:
            first = result.failures[0]
            repro = self._repro(result)
            failed = FailedSeed(result.seed, first.checker, first.detail, repro, result.failures, shrunk)
            self._failures.append(failed)
        _count(self._unknown, result.unknown)
        _count(self._sometimes, [name for name, reached in result.sometimes.items() if reached])
        for name in result.sometimes:
            self._sometimes.setdefault(name, 0)
        _count(self._transports, [result.transport])
        for name, values in self._sizes.items():
            values.append(result.virtual_ms / 1000 if name == "virtual_s" else getattr(result, name))
        self._steps += result.steps
        if result.digest:
            self.digests[result.seed] = result.digest

    def report(self, wall_s: float, *, compared: Compared | None = None, interrupted: bool = False) -> Report:
        """The sum of it."""
        sizes = {name: values for name, values in self._sizes.items() if values}
        never = [name for name, count in sorted(self._sometimes.items()) if not count]
        return Report(
            seeds=self.seeds,
            failures=tuple(self._failures),
            unknown=dict(sorted(self._unknown.items())),
            sometimes=dict(sorted(self._sometimes.items())),
            weak=tuple(never) if self.seeds >= WEAK_FROM_SEEDS else (),
            events=int(sum(self._sizes["events"])),
            steps=self._steps,
            virtual_s=round(sum(self._sizes["virtual_s"]), 3),
            wall_s=round(wall_s, 3),
            medians={name: round(statistics.median(values), 3) for name, values in sizes.items()},
            ranges={name: (min(values), max(values)) for name, values in sizes.items()},
            transports=dict(sorted(self._transports.items())),
            compared=compared,
            interrupted=interrupted,
        )


def _count(into: dict[str, int], names: Iterable[str]) -> None:
    for name in names:
        into[name] = into.get(name, 0) + 1


def as_json(report: Report) -> dict[str, Any]:
    """The object of ``-o json``."""
    built: dict[str, Any] = msgspec.to_builtins(report)
    return built


def in_words(report: Report) -> list[str]:
    """For people, a line each."""
    lines = [
        f"{report.seeds} seeds, {report.events} events, {report.virtual_s:.0f} virtual seconds "
        f"in {report.wall_s:.1f} s ({_speed(report)} times real time)"
    ]
    lines += [
        f"  {name}: median {report.medians[name]:g}, {least:g} to {most:g}"
        for name, (least, most) in report.ranges.items()
    ]
    lines.append("  transports: " + ", ".join(f"{name} {count}" for name, count in report.transports.items()))
    if report.compared is not None:
        same = report.compared.seeds - len(report.compared.differing)
        lines.append(f"  run twice, with another hash seed: {same} of {report.compared.seeds} the same, byte for byte")
    lines += ["sometimes (seeds that reached it):"] + [
        f"  {count:>6}  {name}" for name, count in report.sometimes.items()
    ]
    lines += [f"weak: no seed reached {name}" for name in report.weak]
    lines += [f"undecided: {name} in {count} seeds" for name, count in report.unknown.items()]
    lines += _failures(report.failures)
    if report.compared and report.compared.differing:
        lines.append(f"NOT DETERMINISTIC: seeds {', '.join(map(str, report.compared.differing))}")
    if report.interrupted:
        lines.append("interrupted: this is what was found so far")
    lines.append("no violation" if report.ok else "NOT ok")
    return lines


def _speed(report: Report) -> str:
    return f"{report.virtual_s / report.wall_s:.0f}" if report.wall_s > 0 else "?"


def _failures(failures: Sequence[FailedSeed]) -> list[str]:
    lines = []
    for failed in failures[:FAILURES_SHOWN]:
        lines += [f"FAIL seed {failed.seed}: {failed.checker}: {failed.detail}", f"     again: {failed.repro}"]
        if failed.shrunk:
            lines.append(f"     shrunk: {failed.shrunk}")
    if len(failures) > FAILURES_SHOWN:
        lines.append(f"… and {len(failures) - FAILURES_SHOWN} more failing seeds")
    return lines
