"""Scenarios against real processes, with the chaos proxy in their links.

Owns: the live backend (HTTP by aiohttp, links by toxics), its trace, and healing everything by hand.
Must not know: the order of a run (`chaos.scenario.runner`), or how a cluster is found and started.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from random import Random
from typing import Any, Protocol

import aiohttp

from chaos.links import ProxyLinks
from chaos.scenario.backend import Answer, Backend, NotSent, Processes, Unanswered
from chaos.scenario.model import Scenario
from chaos.scenario.runner import Run, RunResult, Say, judge, silent
from chaos.scenario.view import View
from chaos.toxiproxy_client import ToxiproxyClient
from chaos.trace.events import FLUSH_MS
from chaos.trace.reader import read_trace
from cluster.clock import SystemClock
from cluster.dice import SystemDice
from cluster.trace import new_incarnation
from cluster.trace_writer import file_tracer


class Cluster(Processes, Protocol):
    """Addresses and process control of a live cluster."""

    apis: dict[str, str]
    """Replica id → base URL of its API."""
    token: str
    chaos_api: str
    """Base URL of the proxy's API."""
    chaos_token: str | None
    """Asked for by the proxy's API; None = it asks for none."""
    trace: Path
    """Local folder of the run's trace."""

    async def collect_trace(self) -> None:
        """Bring what the processes have written so far into `trace`."""
        ...


class HttpApi:
    """The APIs of a live cluster's replicas."""

    def __init__(self, apis: dict[str, str], session: aiohttp.ClientSession) -> None:
        self._apis = apis
        self._session = session

    @property
    def replicas(self) -> tuple[str, ...]:
        """Their ids, sorted."""
        return tuple(sorted(self._apis))

    async def ask(self, replica: str, path: str, *, body: Any = None, timeout_s: float) -> Answer:
        """GET, or POST where there is a body."""
        method = "GET" if body is None else "POST"
        try:
            async with asyncio.timeout(timeout_s):
                async with self._session.request(method, self._apis[replica] + path, json=body) as answer:
                    return Answer(answer.status, await answer.json(content_type=None))
        except aiohttp.ClientConnectorError:
            raise NotSent("unreachable") from None  # no connection, so the request never left
        except TimeoutError:
            raise Unanswered("timeout") from None
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise Unanswered(type(error).__name__) from None


async def run_scenario(
    scenario: Scenario, cluster: Cluster, *, seed: int | None = None, say: Say = silent
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
    try:
        async with _session(cluster) as session:
            links = ProxyLinks(ToxiproxyClient(cluster.chaos_api, token=cluster.chaos_token))
            backend = Backend("proxy", HttpApi(cluster.apis, session), links, cluster, tracer)
            run = Run(scenario, backend, f"c{incarnation}", Random(f"scenario:{chosen}"), say)  # noqa: S311
            await run.carry_out()
        tracer.close()
        await asyncio.sleep(FLUSH_MS / 1000)  # the cluster goes on; its last events reach the files by then
        await cluster.collect_trace()
        trace = await asyncio.to_thread(read_trace, cluster.trace)
        return await asyncio.to_thread(judge, scenario, trace, run, str(cluster.trace))
    finally:
        tracer.close()


def _session(cluster: Cluster) -> aiohttp.ClientSession:
    headers = {"Authorization": f"Bearer {cluster.token}"}
    return aiohttp.ClientSession(headers=headers, connector=aiohttp.TCPConnector(limit=0))


async def heal_links(chaos_api: str, chaos_token: str | None) -> list[str]:
    """Remove every toxic and enable every proxy; returns what was in force."""
    return await ProxyLinks(ToxiproxyClient(chaos_api, token=chaos_token)).heal_all()


async def heal_everything(cluster: Cluster) -> list[str]:
    """Remove every toxic, resume every replica and agent, start those that are down; returns what was done."""
    healed = await heal_links(cluster.chaos_api, cluster.chaos_token)
    running = await cluster.pids()
    async with _session(cluster) as session:
        agents = (await View(HttpApi(cluster.apis, session)).roles()).agents
    for name in running:
        if name != "proxy":
            await cluster.resume(name)
    for name in (*cluster.apis, *agents):
        if name not in running:
            await cluster.start(name)
            healed.append(f"{name} started")
    return healed
