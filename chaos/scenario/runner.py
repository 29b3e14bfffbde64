"""Running a scenario against a live cluster.

Owns: the order of a run (steady, load, faults on their leases, heal, settle, judge) and that it
always heals, whatever happens.  Must not know: how faults, load and checkers work.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from random import Random
from typing import Any

import aiohttp
from msgspec import Struct

from chaos.links import ProxyLinks
from chaos.scenario.cluster import Cluster, View, until
from chaos.scenario.faults import Injector
from chaos.scenario.load import LoadGenerator
from chaos.scenario.measures import metrics, sometimes
from chaos.scenario.model import Lease, Scenario, leases, seconds
from chaos.toxiproxy_client import ToxiproxyClient
from chaos.trace.check import CheckResult, check_trace
from chaos.trace.checkers import Finding
from chaos.trace.events import FLUSH_MS, Trace
from chaos.trace.reader import read_trace
from cluster.clock import SystemClock
from cluster.dice import SystemDice
from cluster.trace import Tracer, new_incarnation
from cluster.trace_writer import file_tracer
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


def _silent(_: str) -> None:
    """Say nothing."""


async def run_scenario(
    scenario: Scenario, cluster: Cluster, *, seed: int | None = None, say: Say = _silent
) -> RunResult:
    """Run one scenario and judge it; heals on every way out, also when cancelled.

    Args:
        scenario: checked.
        cluster: running, with the chaos proxy in its links.
        seed: of every choice; None = the scenario's own.
        say: told about progress, a line at a time.
    """
    chosen = scenario.seed if seed is None else seed
    incarnation = new_incarnation(SystemDice())
    meta = {"backend": "proxy", "scenario": scenario.name, "seed": chosen}
    tracer = file_tracer("client", cluster.trace, SystemClock(), incarnation=incarnation, meta=meta)
    headers = {"Authorization": f"Bearer {cluster.token}"}
    try:
        async with aiohttp.ClientSession(headers=headers, connector=aiohttp.TCPConnector(limit=0)) as session:
            run = _Run(scenario, cluster, session, tracer, f"c{incarnation}", Random(f"scenario:{chosen}"), say)  # noqa: S311
            await run.carry_out()
        tracer.close()
        await asyncio.sleep(FLUSH_MS / 1000)  # the cluster goes on; its last events reach the files by then
        await cluster.collect_trace()
        trace = await asyncio.to_thread(read_trace, cluster.trace)
        return await asyncio.to_thread(_judge, scenario, trace, f"c{incarnation}", run.failures, run.unknowns, cluster)
    finally:
        tracer.close()


class _Run:
    """One run; `failures` and `unknowns` collect what was observed live."""

    def __init__(
        self,
        scenario: Scenario,
        cluster: Cluster,
        session: aiohttp.ClientSession,
        tracer: Tracer,
        id: str,
        dice: Random,
        say: Say,
    ) -> None:
        self._scenario = scenario
        self._say = say
        self._tracer = tracer
        self._view = View(cluster, session)
        links = ProxyLinks(ToxiproxyClient(cluster.chaos_api, token=cluster.chaos_token))
        self._injector = Injector(cluster, links, self._view, tracer, dice, id)
        self._load = LoadGenerator(scenario.load, cluster, session, tracer, id)
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


def _judge(
    scenario: Scenario, trace: Trace, run: str, failures: list[str], unknowns: list[str], cluster: Cluster
) -> RunResult:
    checked = check_trace(trace)
    numbers = metrics(trace, run)
    reached = sometimes(trace, run)
    failed = [*failures, *_broken(checked), *_over_budget(scenario, numbers)]
    unclear = [*unknowns, *_undecided(scenario, checked), *_missed(scenario, reached)]
    verdict = "fail" if failed else "unknown" if unclear else "pass"
    return RunResult(
        scenario=scenario.name,
        verdict=verdict,
        reasons=(*failed, *unclear),
        invariants=checked.invariants,
        sometimes=reached,
        metrics=numbers,
        trace=str(cluster.trace),
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


async def heal_links(chaos_api: str, chaos_token: str | None) -> list[str]:
    """Remove every toxic and enable every proxy; returns what was in force."""
    return await ProxyLinks(ToxiproxyClient(chaos_api, token=chaos_token)).heal_all()


async def heal_everything(cluster: Cluster) -> list[str]:
    """Remove every toxic, resume every replica and agent, start those that are down; returns what was done."""
    healed = await heal_links(cluster.chaos_api, cluster.chaos_token)
    running = await cluster.pids()
    async with aiohttp.ClientSession(headers={"Authorization": f"Bearer {cluster.token}"}) as session:
        agents = (await View(cluster, session).roles()).agents
    for name in running:
        if name != "proxy":
            await cluster.resume(name)
    for name in (*cluster.apis, *agents):
        if name not in running:
            await cluster.start(name)
            healed.append(f"{name} started")
    return healed
