"""One seed's run: a world, a cluster in it, clients and faults, and what the checkers say of its trace.

Owns: putting the parts together, and the result of a run.
Must not know: campaigns, the command line.
"""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from chaos.breaks import in_force
from chaos.sim.api import SimApi
from chaos.sim.cluster import Ended, SimCluster
from chaos.sim.host import ProcessHost
from chaos.sim.links import US
from chaos.sim.quiet import quiet_log
from chaos.sim.recording import Recording
from chaos.sim.report import Deadlock, Livelock
from chaos.sim.swarm.campaign import Run
from chaos.sim.swarm.clients import Clients
from chaos.sim.swarm.configs import API_TOKEN, TRACE, api_address
from chaos.sim.swarm.injector import Injector
from chaos.sim.swarm.knobs import turned
from chaos.sim.swarm.load import job_names
from chaos.sim.swarm.phases import Phases
from chaos.sim.swarm.plan import Plan
from chaos.sim.swarm.result import Failure, SeedResult
from chaos.sim.swarm.situations import situations
from chaos.sim.world import World
from chaos.trace.check import check_trace
from chaos.trace.records import trace_of

CLIENT: Final = "client"
GIVEN_UP: Final = "was given up"
"""What a checker says whose search ran out of steps."""
OWN_CHECKERS: Final = frozenset({"own-invariants"})
"""It repeats what the phases found themselves."""


@contextmanager
def runner(breaks: Iterable[str] = (), *, out: Path | None = None) -> Iterator[Run]:
    """A function that runs plans, with these breaks in force until the end of the context.

    Args:
        breaks: deliberate bugs, by name.
        out: write each run's trace here.
    """
    names = tuple(breaks)
    gc.collect()
    gc.freeze()  # what is there now stays: collecting after each seed need not look at it
    try:
        with quiet_log(), in_force(names):
            yield lambda plan, digest: run_plan(plan, digest=digest, out=out, breaks=names)
    finally:
        gc.unfreeze()


def run_plan(plan: Plan, *, digest: bool = False, out: Path | None = None, breaks: tuple[str, ...] = ()) -> SeedResult:
    """Run one plan and judge it."""
    profile = plan.profile
    meta: dict[str, Any] = {"seed": plan.seed, "backend": "sim", "transport": profile.transport}
    recording = Recording(meta | ({"breaks": list(breaks)} if breaks else {}))
    world = World(
        profile.seed,
        policy=profile.policy,
        transport=profile.transport,
        latency_ns=(profile.latency_us.least * US, profile.latency_us.most * US),
        loss=profile.loss_permille / 1000,
        recording=recording,
    )
    with turned(plan.seed), world:
        failures, steps, virtual_ms = _carry_out(world, plan)
    if out is not None:
        recording.write(out)
    trace = trace_of(recording.lives)
    found = check_trace(trace).invariants
    failures += [
        Failure(each.name, each.detail, each.refs)
        for each in found
        if each.ok is False and each.name not in OWN_CHECKERS
    ]
    return SeedResult(
        seed=plan.seed,
        transport=profile.transport,
        failures=tuple(failures),
        unknown=tuple(each.name for each in found if each.ok is not False and GIVEN_UP in each.detail),
        sometimes=situations(trace),
        events=recording.events,
        steps=steps,
        virtual_ms=virtual_ms,
        replicas=len(profile.replicas),
        agents=len(profile.agents),
        jobs=len(job_names(plan.load)),
        faults=len(plan.faults),
        digest=recording.digest() if digest else "",
    )


def _carry_out(world: World, plan: Plan) -> tuple[list[Failure], int, int]:
    """(failures seen on the way, steps of the loop, virtual milliseconds)."""
    desk = world.host(CLIENT)
    failures: list[Failure] = []
    ended: list[Ended] = []

    async def main(machine: ProcessHost) -> None:
        trace = machine.tracer(CLIENT, TRACE, roll_bytes=1 << 30, heartbeat_sample=0, meta={"role": "client"})
        cluster = SimCluster(world, plan.profile, trace)
        cluster.ended = ended
        async with machine.network.client() as client:
            api = SimApi(client, {name: api_address(name) for name in cluster.replicas}, API_TOKEN)
            clients, injector = Clients(plan.load, api, trace), Injector(cluster, trace)
            phases = Phases(plan, cluster, clients, injector, trace)
            cluster.start()
            try:
                await phases.run()
            finally:
                failures.extend(phases.failures)

    process = desk.spawn("clients", main)
    try:
        world.run(_ended(process.exited))
    except (Deadlock, Livelock) as error:
        failures.append(Failure("no-deadlock", str(error)))
    except Exception as error:
        failures.append(Failure("harness", f"{type(error).__name__}: {error}"))  # one seed must not end a campaign
    failures += [Failure("process-survives", str(each)) for each in ended]
    failures += [
        Failure("no-loose-exception", f"{life}: {message}: {error!r}")
        for _, life, message, error in world.loop.failures
    ]
    return failures, world.loop.steps, world.now_ns // 1_000_000


async def _ended(exited: asyncio.Future[Any]) -> None:
    await exited
