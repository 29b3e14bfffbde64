"""How many seeds a deliberate bug survives before the invariant that is meant to find it does.

Owns: the measurement and its table.  Must not know: how seeds are run, or what a break replaces.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from statistics import median
from typing import Final

from msgspec import Struct

from chaos.breaks import BREAKS
from chaos.breaks.zoo import Break
from chaos.sim.swarm.campaign import Run, quietly
from chaos.sim.swarm.plan import draw_plan
from chaos.sim.swarm.result import SeedResult

STARTS: Final = (0, 1_000, 2_000, 3_000, 4_000)
"""Where the campaigns of one measurement begin."""
SEEDS_MAX: Final = 500

Runner = Callable[[Sequence[str]], AbstractContextManager[Run]]
"""Gives a function that runs plans with these breaks in force."""


class Hunt(Struct, frozen=True):
    """One campaign against one break.

    Attributes:
        start: its first seed.
        seed: the first one in which the expected invariant was violated; None if it never was.
        seeds: how many were run.
        also: what else was violated in that seed.
        clean: whether the same seed without the break violates nothing; None if it was not run.
    """

    start: int
    seed: int | None
    seeds: int
    also: tuple[str, ...] = ()
    clean: bool | None = None


class Catch(Struct, frozen=True):
    """All campaigns against one break."""

    name: str
    checker: str
    lesson: str
    hunts: tuple[Hunt, ...]

    @property
    def caught(self) -> bool:
        """Whether every campaign found it, by its invariant, in a seed that is clean without it."""
        return all(hunt.seed is not None and hunt.clean is not False for hunt in self.hunts)

    @property
    def seeds_median(self) -> int:
        """Seeds until it was caught."""
        return int(median([hunt.seeds for hunt in self.hunts]))


def hunt(each: Break, start: int, runner: Runner, seeds_max: int) -> Hunt:
    """Run seeds from `start` on until the break's invariant is violated, and that one again without the break."""
    found: SeedResult | None = None
    with runner((each.name,)) as run:
        for seed in range(start, start + seeds_max):
            result = _run(run, seed)
            if each.checker in _violated(result):
                found = result
                break
    if found is None:
        return Hunt(start, None, seeds_max)
    with runner(()) as run:
        clean = not _run(run, found.seed).failed
    also = tuple(sorted({name for name in _violated(found) if name != each.checker}))
    return Hunt(start, found.seed, found.seed - start + 1, also, clean)


def _run(run: Run, seed: int) -> SeedResult:
    plan = draw_plan(seed, None)
    return quietly(lambda: run(plan, False))


def _violated(result: SeedResult) -> list[str]:
    return [failure.checker for failure in result.failures]


def catch(
    names: Iterable[str], runner: Runner, say: Callable[[str], None], starts: Sequence[int] = STARTS
) -> list[Catch]:
    """Measure these breaks, one after the other."""
    found = []
    for name in names:
        each = BREAKS[name]
        hunts = tuple([hunt(each, start, runner, SEEDS_MAX) for start in starts])
        found.append(Catch(name, each.checker, each.lesson, hunts))
        say(f"{name}: {', '.join([str(each.seeds) if each.seed is not None else 'never' for each in hunts])} seeds")
    return found


def markdown(catches: Sequence[Catch]) -> str:
    """The table of the documentation."""
    lines = ["| break | what it teaches | caught by | seeds until caught |", "| --- | --- | --- | --- |"]
    for each in catches:
        seeds = str(each.seeds_median) if each.caught else "not always caught"
        lines.append(f"| `{each.name}` | {each.lesson} | `{each.checker}` | {seeds} |")
    campaigns = max([len(each.hunts) for each in catches], default=0)
    caught = sum([each.caught for each in catches])
    lines += ["", f"{caught} of {len(catches)} were caught in every one of {campaigns} campaigns; the median counts."]
    return "\n".join(lines)
