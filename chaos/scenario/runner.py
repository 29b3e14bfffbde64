"""Running a scenario: the order of a run, and its verdict.

Owns: the order (steady, load, faults on their leases, heal, settle, judge) and that it always heals,
whatever happens.  Must not know: what kind of cluster it is (`chaos.scenario.backend`), or how faults,
load and checkers work.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from random import Random
from typing import Any

from msgspec import Struct

from chaos.scenario.backend import Backend
from chaos.scenario.faults import Injector
from chaos.scenario.load import LoadGenerator
from chaos.scenario.measures import metrics, sometimes
from chaos.scenario.model import Lease, Scenario, leases, seconds
from chaos.scenario.view import View, until
from chaos.trace.check import CheckResult, check_trace
from chaos.trace.checkers import Finding
from chaos.trace.events import Trace
from raft.errors import SkerryError

STEADY_TIMEOUT_S = 15.0
HEAL_TIMEOUT_S = 30.0

Say = Callable[[str], None]


class RunResult(Struct, frozen=True):
    """What `skerry chaos run` answers (DESIGN.md §13).

    `verdict`: pass, fail, or unknown (no steady state, or evidence lost).  `reasons` say why it is
    not a pass.  `sometimes` tells which situations were reached.
    """

    scenario: str
    verdict: str
    reasons: tuple[str, ...]
    invariants: tuple[Finding, ...]
    sometimes: dict[str, bool]
    metrics: dict[str, int | None]
    trace: str


def silent(_: str) -> None:
    """Say nothing."""


class Run:
    """One run.

    Args:
        scenario: checked.
        backend: the cluster, running.
        id: names the run in its trace.
        dice: of every choice.
        say: told about progress, a line at a time.

    Attributes:
        failures: what was seen not to hold.
        unknowns: what could not be found out.
    """

    def __init__(self, scenario: Scenario, backend: Backend, id: str, dice: Random, say: Say = silent) -> None:
        self._scenario = scenario
        self._say = say
        self._view = View(backend.api)
        self._injector = Injector(backend, self._view, dice, id)
        self._load = LoadGenerator(scenario.load, backend.api, backend.tracer, id)
        self.id = id
        self._waiting_before: set[str] = set()
        self.failures: list[str] = []
        self.unknowns: list[str] = []

    async def carry_out(self) -> None:
        """Everything but the judgement."""
        status = await until(self._view.steady, STEADY_TIMEOUT_S)
        if status is None:
            self.unknowns.append(f"the cluster was not healthy within {STEADY_TIMEOUT_S:g} s before the first fault")
            return
        self._say(f"{self._scenario.name}: steady; {status['leader']} leads term {status['term']}")
        self._waiting_before = await self._view.waiting_jobs() or set()
        stop = asyncio.Event()
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._load.run(stop))
                tasks.create_task(self._faults(stop))
        finally:
            await self._heal_for_sure()
        await self._settle()

    async def _faults(self, stop: asyncio.Event) -> None:
        """Fire and heal on time; the load ends with the scenario, also when a fault is refused."""
        loop = asyncio.get_running_loop()
        start = loop.time()
        moments: list[tuple[float, int, Lease]] = []
        for lease in leases(self._scenario):
            moments += [(lease.start_s, 1, lease), (lease.end_s, 0, lease)]
        try:
            for at, fires, lease in sorted(moments, key=lambda moment: moment[:2]):
                await asyncio.sleep(max(0.0, start + at - loop.time()))
                if fires:
                    self._say(f"{at:g} s: {await self._injector.fire(lease)}")
                else:
                    await self._injector.heal(lease.id)
                    self._say(f"{at:g} s: {lease.id} healed; {len(self._load.acknowledged)} writes acknowledged")
            await asyncio.sleep(max(0.0, start + seconds(self._scenario.duration, "duration") - loop.time()))
        except SkerryError as error:
            self.unknowns.append(f"a fault could not be injected: {error}")
        finally:
            stop.set()

    async def _heal_for_sure(self) -> None:
        healing = asyncio.ensure_future(self._injector.heal_all())
        try:
            async with asyncio.timeout(HEAL_TIMEOUT_S):
                failed = await asyncio.shield(healing)
        except asyncio.CancelledError:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(healing, HEAL_TIMEOUT_S)
            raise
        except TimeoutError:
            failed = [f"healing took more than {HEAL_TIMEOUT_S:g} s"]
        self.failures += [f"not healed: {each}" for each in failed]

    async def _settle(self) -> None:
        """What must hold eventually, counted from the last heal."""
        loop = asyncio.get_running_loop()
        healed = loop.time()
        limits = self._scenario.expect.eventually
        questions: dict[str, Callable[[], Any]] = {
            "leader": self._view.steady,
            "all-placed": self._all_placed,
            "state-hash-equal": self._view.alike,
        }
        unknown = await self._load.resolve_unknown() if self._load.unknown else 0
        if unknown:
            self.unknowns.append(f"{unknown} requests of unknown outcome could not be resolved")
        for name, limit in limits.items():
            limit_s = seconds(limit, name)
            left = max(0.5, healed + limit_s - loop.time())
            if await until(questions[name], left) is None:
                self.failures.append(f"{name} did not hold within {limit} after the last heal")
            else:
                self._say(f"{name} after {loop.time() - healed:.1f} s")
        await self._load.stop_jobs()

    async def _all_placed(self) -> bool:
        waiting = await self._view.waiting_jobs()
        return waiting is not None and not (waiting - self._waiting_before)


def judge(scenario: Scenario, trace: Trace, run: Run, where: str) -> RunResult:
    """The verdict over a run that was carried out; `where` its trace is kept."""
    checked = check_trace(trace)
    numbers = metrics(trace, run.id)
    reached = sometimes(trace, run.id)
    failed = [*run.failures, *_broken(checked), *_over_budget(scenario, numbers)]
    unclear = [*run.unknowns, *_undecided(scenario, checked), *_missed(scenario, reached)]
    verdict = "fail" if failed else "unknown" if unclear else "pass"
    return RunResult(
        scenario=scenario.name,
        verdict=verdict,
        reasons=(*failed, *unclear),
        invariants=checked.invariants,
        sometimes=reached,
        metrics=numbers,
        trace=where,
    )


def _broken(checked: CheckResult) -> list[str]:
    return [f"{finding.name}: {finding.detail}" for finding in checked.violated]


def _undecided(scenario: Scenario, checked: CheckResult) -> list[str]:
    return [
        f"{finding.name} could not be decided: {finding.detail}"
        for finding in checked.invariants
        if finding.name in scenario.expect.always and finding.ok is None
    ]


def _over_budget(scenario: Scenario, numbers: dict[str, int | None]) -> list[str]:
    return [
        f"{name} is {value}, over its budget of {limit}"
        for name, limit in scenario.expect.budget.items()
        if (value := numbers.get(name)) is not None and value > limit
    ]


def _missed(scenario: Scenario, reached: dict[str, bool]) -> list[str]:
    return [f"the run never reached: {name}" for name in scenario.expect.sometimes if not reached.get(name)]
