"""A live cluster, as scenarios see it.

Owns: the protocol that a cluster must offer, and asking its API for roles and status.
Must not know: faults, load, verdicts.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Protocol

import aiohttp

from chaos.scenario.selectors import Roles

ASK_TIMEOUT_S = 3.0
POLL_S = 0.1


class Cluster(Protocol):
    """Addresses and process control.  Process names are node ids (``n1``, ``a2``)."""

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

    async def kill(self, name: str) -> None:
        """SIGKILL; returns once the process is gone."""
        ...

    async def start(self, name: str) -> None:
        """Start a process that is not running."""
        ...

    async def pause(self, name: str) -> None:
        """SIGSTOP."""
        ...

    async def resume(self, name: str) -> None:
        """SIGCONT."""
        ...

    async def pids(self) -> dict[str, int]:
        """Process name → pid, of those that run."""
        ...


class View:
    """Reads a cluster's API over any replica that answers."""

    def __init__(self, cluster: Cluster, session: aiohttp.ClientSession) -> None:
        self._cluster = cluster
        self._session = session

    async def get(self, path: str, *, replica: str | None = None) -> dict[str, Any] | None:
        """One document from the first replica that gives it; None if none does."""
        for name in [replica] if replica is not None else list(self._cluster.apis):
            try:
                async with asyncio.timeout(ASK_TIMEOUT_S):
                    async with self._session.get(self._cluster.apis[name] + path) as answer:
                        if answer.status == 200:
                            found = await answer.json()
                            return found if isinstance(found, dict) else None
            except (aiohttp.ClientError, OSError, TimeoutError, ValueError):
                continue
        return None

    async def status(self) -> dict[str, Any] | None:
        """The status of a replica that sees a healthy cluster; else of any that answers."""
        fallback = None
        for replica in self._cluster.apis:
            found = await self.get("/v1/status", replica=replica)
            if found is not None and found.get("healthy"):
                return found
            fallback = fallback or found
        return fallback

    async def roles(self) -> Roles:
        """Who leads, and who is there, now."""
        status = await self.status() or {}
        agents = [node["id"] for node in status.get("nodes", ()) if isinstance(node, dict) and "id" in node]
        leader = status.get("leader") if status.get("healthy") else None
        return Roles(leader, tuple(sorted(self._cluster.apis)), tuple(sorted(agents)))

    async def steady(self) -> dict[str, Any] | None:
        """The status, if the cluster is healthy and every replica answers; else None."""
        status = await self.status()
        if status is None or not status.get("healthy") or not status.get("leader"):
            return None
        return status if all(row.get("role") in _ANSWERING for row in status.get("replicas", ())) else None

    async def alike(self) -> bool:
        """Whether all replicas applied the same index and hold the same state."""
        status = await self.status()
        rows = (status or {}).get("replicas", [])
        states = {(row.get("applied_index"), row.get("digest")) for row in rows}
        return bool(rows) and len(states) == 1 and len(rows) == len(self._cluster.apis) and "" not in next(iter(states))

    async def waiting_jobs(self) -> set[str] | None:
        """Jobs with allocations that wait for a place; None while nobody can say."""
        found = await self.get("/v1/jobs")
        if found is None:
            return None
        return {job["job"] for job in found.get("jobs", []) if _waits(job)}


_ANSWERING = ("leader", "follower", "candidate", "pre-candidate")


def _waits(job: dict[str, Any]) -> bool:
    counts = job.get("counts", {})
    return bool(job.get("replicas")) and counts.get("waiting", 0) > counts.get("backing_off", 0)


async def until(condition: Callable[[], Awaitable[Any]], timeout_s: float) -> Any:
    """The first truthy answer of `condition`, asked every 100 ms; None when the time is over."""
    try:
        async with asyncio.timeout(timeout_s):
            while True:
                if answer := await condition():
                    return answer
                await asyncio.sleep(POLL_S)
    except TimeoutError:
        return None
