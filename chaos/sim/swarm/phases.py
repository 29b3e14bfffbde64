"""The two phases of a run, and its end.

Owns: their order, what is healed and frozen when, how long recovery may take, and the failures seen on the way.
Must not know: how machines, faults or calls work, or what the checkers find in the trace afterwards.

Phase one: load under faults; nothing is demanded but safety, which the checkers judge.
Phase two: all faults end for the core, a random majority of replicas and at least half of the nodes; the rest is
frozen: off, cut off, paused, or left as it is.  The core must recover in bounded time: a leader, equal states,
sessions, and everything acknowledged placed or explained.
The end: everything is healed, and must come to the same; then no process runs that nobody knows of, and nothing leaks.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final, Protocol

from chaos.scenario.backend import Emitter
from chaos.sim.links import CUT
from chaos.sim.swarm import oracle
from chaos.sim.swarm.clients import Clients
from chaos.sim.swarm.injector import Injector
from chaos.sim.swarm.injector import Stage as Machines
from chaos.sim.swarm.oracle import Key, ReplicaView
from chaos.sim.swarm.plan import Plan
from chaos.sim.swarm.result import Failure
from chaos.sim.swarm.targets import both_ways

CALM_S: Final = 1.5
"""How long the healed cluster is watched at the very end."""
RECOVERY_S: Final = 80.0
"""Beyond a few leases: a storm's pause of a minute (DESIGN.md §6), late retransmissions, back-offs that run out."""
POLL_S: Final = 0.25
FOUNDED_S: Final = 20.0
FROZEN: Final = "frozen"


class Stage(Machines, Protocol):
    """The simulated cluster, as the phases see it."""

    def views(self, names: Iterable[str]) -> list[ReplicaView]:
        """Those of these replicas that run."""
        ...

    def processes(self) -> Mapping[str, set[Key]]:
        """What runs on each node, by the simulated kernel itself."""
        ...

    def wall_ms(self) -> int:
        """True wall time."""
        ...


class Phases:
    """One run.

    Attributes:
        failures: what did not recover.
    """

    def __init__(self, plan: Plan, stage: Stage, clients: Clients, injector: Injector, trace: Emitter) -> None:
        self._plan = plan
        self._stage = stage
        self._clients = clients
        self._injector = injector
        self._trace = trace
        self.failures: list[Failure] = []

    async def run(self) -> None:
        """Everything; the cluster's processes run already."""
        profile = self._plan.profile
        if not await self._holds("founded", profile.replica_names, profile.agent_names, FOUNDED_S):
            return
        await self._safety()
        await self._recovery()
        await self._end()

    async def _safety(self) -> None:
        self._mark("safety")
        async with asyncio.TaskGroup() as group:
            group.create_task(self._injector.run(self._plan.faults))
            group.create_task(self._clients.run())

    async def _recovery(self) -> None:
        """Heal the core, freeze the rest, demand recovery."""
        plan = self._plan
        left = [name for name, how in plan.rest if how == "left"]
        self._injector.end_all(keep=left)
        for name, how in plan.rest:
            self._freeze(name, how)
        self._mark("recovery", core=list(plan.core), rest=[list(each) for each in plan.rest])
        replicas = [name for name in plan.core if name in plan.profile.replica_names]
        agents = [name for name in plan.core if name in plan.profile.agent_names]
        await self._holds("recovers", replicas, agents, self._patience_s())
        if not await self._clients.probe("probe-core"):
            self._fail("recovers", "the core does not acknowledge a write")

    async def _end(self) -> None:
        """Heal everything; nothing may be left over."""
        profile = self._plan.profile
        self._injector.end_all()
        for name, how in self._plan.rest:
            self._thaw(name, how)
        self._mark("end")
        healed = await self._holds("heals", profile.replica_names, profile.agent_names, self._patience_s())
        await self._clients.resolve_unknown()
        if healed and await self._holds(
            "settles", profile.replica_names, profile.agent_names, self._patience_s(), at_end=True
        ):
            await self._calm()
        self._mark("over")

    async def _calm(self) -> None:
        """Watch the healed cluster: nobody stands for election any more."""
        before = self._terms()
        await asyncio.sleep(CALM_S)
        after = self._terms()
        if after != before:
            self._fail("stays-calm", f"terms were {before}, and {after} after {CALM_S:g} s without a fault")

    def _terms(self) -> dict[str, int]:
        return {view.name: view.term for view in self._stage.views(self._plan.profile.replica_names)}

    def _patience_s(self) -> float:
        lease_s = self._plan.profile.lease.duration_ms / 1000
        return RECOVERY_S + 4 * lease_s

    # -- what is frozen -----------------------------------------------------------------------

    def _freeze(self, name: str, how: str) -> None:
        stage = self._stage
        match how:
            case "off":
                stage.power_off(name)
            case "paused":
                stage.pause(name)
            case "cut":
                others = [each for each in (*stage.replicas, *stage.agents) if each != name]
                stage.impair(f"{FROZEN}-{name}", both_ways([name], others), CUT)
        self._trace.emit(
            "fault", id=f"{FROZEN}:{name}", kind={"off": "kill", "paused": "pause", "cut": "isolate"}.get(how, "left"),
            target=name, args={"fault": "power-agent"} if how == "off" else {}, by={"rule": "simulator"},
        )  # fmt: skip

    def _thaw(self, name: str, how: str) -> None:
        stage = self._stage
        match how:
            case "paused":
                stage.resume(name)
            case "cut":
                stage.heal(f"{FROZEN}-{name}")
        stage.boot(name)
        self._trace.emit("heal", id=f"{FROZEN}:{name}", kind=how, target=name, args={}, by={"rule": "simulator"})

    # -- what must hold -----------------------------------------------------------------------

    async def _holds(
        self, checker: str, replicas: Sequence[str], agents: Sequence[str], within_s: float, *, at_end: bool = False
    ) -> bool:
        """Wait until the oracle has nothing to say; a failure of `checker` when that takes too long."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + within_s
        wrong = self._wrong(replicas, agents, at_end=at_end)
        while wrong and loop.time() < deadline:
            await asyncio.sleep(POLL_S)
            wrong = self._wrong(replicas, agents, at_end=at_end)
        self._trace.emit("note", text=f"{checker}: {wrong or 'holds'}")
        if wrong:
            self._fail(checker, f"after {within_s:.0f} s: {wrong}")
        return not wrong

    def _wrong(self, replicas: Sequence[str], agents: Sequence[str], *, at_end: bool) -> str:
        """The first thing that is not as it must be; "" if all is."""
        stage = self._stage
        views = stage.views(replicas)
        left = [name for name, how in self._plan.rest if how == "left"]
        wrong = oracle.leaderless(views, len(replicas), left)
        if wrong:
            return wrong
        state = views[0].state
        questions: list[Callable[[], str]] = [
            lambda: oracle.sessionless([*views, *stage.views(left)], agents),
            lambda: oracle.forgotten(state, self._clients.acknowledged),
            lambda: oracle.unfinished(state, agents),
            lambda: oracle.unplaced(state, agents, stage.wall_ms()),
            lambda: oracle.unlike(views),
        ]
        if at_end:
            questions += [lambda: oracle.strays(state, stage.processes()), lambda: oracle.leaked(state)]
        return next((wrong for ask in questions if (wrong := ask())), "")

    def _fail(self, checker: str, detail: str) -> None:
        ref = self._trace.emit("inv", name=checker, ok=False, why=detail)
        self.failures.append(Failure(checker, detail, (str(ref),)))

    def _mark(self, phase: str, **more: Any) -> None:
        self._trace.emit("note", text=f"phase {phase} begins", phase=phase, **more)
