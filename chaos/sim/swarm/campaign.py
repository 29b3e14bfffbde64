"""Many seeds in one process: run, count, shrink what fails, run a sample twice.

Owns: the order of a campaign, what ends it early, and progress.
Must not know: how one seed is run (it is given a function), or how a report is printed.

A campaign is deterministic but for the wall clock: which seeds run, and what each says, depend on its
arguments alone.  An interruption (Ctrl-C) ends it with what was found so far.
"""

from __future__ import annotations

import gc
import itertools
import time
from collections.abc import Callable, Iterable

from chaos.sim.swarm.interruption import Interruption, interruption
from chaos.sim.swarm.kinds import Fault
from chaos.sim.swarm.plan import Plan, draw_plan
from chaos.sim.swarm.report import Compared, Report, Tally
from chaos.sim.swarm.repro import Wanted
from chaos.sim.swarm.result import SeedResult
from chaos.sim.swarm.shrink import shrink

PROGRESS_S = 2.0
COLLECT_EVERY = 8
"""Runs between two collections, which cost a tenth of a run each."""
_runs = itertools.count(1)
Run = Callable[[Plan, bool], SeedResult]
"""Runs one plan; the flag asks for the trace's digest."""
Again = Callable[[list[int]], dict[int, str]]
"""Runs seeds once more, elsewhere; their digests."""
Say = Callable[[str], None]


class Campaign:
    """One campaign.

    Args:
        run: carries one plan out.
        wanted: what was asked for beyond the seeds.
        say: told about progress, a line at a time.
        shrink_trials: at most so many further runs to shrink the first failure; 0 = none.
        fail_fast: end at the first failing seed.
    """

    def __init__(self, run: Run, wanted: Wanted, *, say: Say, shrink_trials: int = 0, fail_fast: bool = False) -> None:
        self._run = run
        self._wanted = wanted
        self._say = say
        self._trials = shrink_trials
        self._fail_fast = fail_fast
        self._tally = Tally(lambda result: wanted.line(result.seed))
        self._told = 0.0
        self._interrupted = Interruption()

    def carry_out(self, seeds: Iterable[int], *, twice: Iterable[int] = (), again: Again | None = None) -> Report:
        """Run all seeds; those of `twice` are run once more by `again`, and compared."""
        start, sample = time.perf_counter(), frozenset(twice)
        compared = None
        self._told = start
        with interruption() as self._interrupted:
            for seed in seeds:
                result = self.run_seed(seed, digest=seed in sample)
                self._tally.add(result, self._shrunk(result) if result.failed else "")
                self._progress(start, result)
                if self._interrupted.asked or (result.failed and self._fail_fast):
                    break
            if again is not None and self._tally.digests and not self._interrupted.asked:
                compared = self._compare(again)
            interrupted = self._interrupted.asked
        return self._tally.report(
            time.perf_counter() - start, compared=None if interrupted else compared, interrupted=interrupted
        )

    def run_seed(self, seed: int, *, digest: bool = False) -> SeedResult:
        """One seed, the garbage collector off meanwhile."""
        plan = self._wanted.applied(draw_plan(seed, self._wanted.transport))
        return quietly(lambda: self._run(plan, digest))

    def _compare(self, again: Again) -> Compared:
        mine = self._tally.digests
        theirs = again(sorted(mine))
        return Compared(len(mine), tuple(seed for seed in sorted(mine) if theirs.get(seed) != mine[seed]))

    def _shrunk(self, result: SeedResult) -> str:
        """The line of a shorter run that violates the same checker; "" if that was not asked for, or not found."""
        if self._trials <= 0 or self._tally.failures:
            return ""
        plan = self._wanted.applied(draw_plan(result.seed, self._wanted.transport))
        self._say(f"seed {result.seed} fails {result.failures[0].checker}; shrinking its {len(plan.faults)} faults")
        checker = result.failures[0].checker
        found = shrink_plan(plan, lambda each: self._fails_alike(each, checker), self._trials)
        smaller = Wanted(
            breaks=self._wanted.breaks,
            transport=self._wanted.transport,
            faults=_numbers(draw_plan(result.seed, self._wanted.transport).faults, found.faults),
            policy=found.profile.policy if found.profile.policy != plan.profile.policy else self._wanted.policy,
        )
        return smaller.line(result.seed) if found != plan else ""

    def _fails_alike(self, plan: Plan, checker: str) -> bool:
        """One trial of shrinking; after Ctrl-C nothing is tried any more."""
        if self._interrupted.asked:
            return False
        return any(failure.checker == checker for failure in quietly(lambda: self._run(plan, False)).failures)

    def _progress(self, start: float, last: SeedResult) -> None:
        now = time.perf_counter()
        if last.failed:
            failure = last.failures[0]
            self._say(f"seed {last.seed} FAILS {failure.checker}: {failure.detail}")
        if now - self._told >= PROGRESS_S:
            self._told = now
            rate = self._tally.seeds / (now - start)
            failed = len(self._tally.failures)
            self._say(f"{self._tally.seeds} seeds, {failed} failing, {rate:.1f} seeds a second")


def quietly(run: Callable[[], SeedResult]) -> SeedResult:
    """Run with the garbage collector off, so that it cannot act in the middle, and now and then collect afterwards.

    A world that ends collects too, but its trace and whoever judged it are still held then: without this a campaign
    grows by some 15 MB a seed.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        result = run()
        if next(_runs) % COLLECT_EVERY == 0:
            gc.collect()
        return result
    finally:
        if enabled:
            gc.enable()


def shrink_plan(plan: Plan, fails: Callable[[Plan], bool], trials_max: int) -> Plan:
    """A plan of fewer faults, and of the plain order of what is ready, that still fails."""
    faults = shrink(plan.faults, lambda kept: fails(plan.with_faults(kept)), trials_max)
    smaller = plan.with_faults(faults)
    plain = smaller.with_policy("fifo")
    return plain if plain != smaller and fails(plain) else smaller


def _numbers(drawn: tuple[Fault, ...], kept: tuple[Fault, ...]) -> tuple[int, ...]:
    """Where the kept faults stand in the seed's own schedule."""
    numbers: list[int] = []
    for fault in kept:
        start = numbers[-1] + 1 if numbers else 0
        numbers.append(drawn.index(fault, start))
    return tuple(numbers)
