"""A cluster as its own API shows it to scenarios: roles, health, what waits.

Owns: the questions and how their answers are read.  Must not know: faults, load, verdicts, or what carries a call.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from chaos.scenario.backend import Api
from chaos.scenario.selectors import Roles

ASK_TIMEOUT_S = 3.0
POLL_S = 0.1


class View:
    """Asks any replica that answers."""

    def __init__(self, api: Api) -> None:
        self._api = api

    async def get(self, path: str, *, replica: str | None = None) -> dict[str, Any] | None:
        """One document from the first replica that gives it; None if none does."""
        for name in [replica] if replica is not None else self._api.replicas:
            try:
                answer = await self._api.ask(name, path, timeout_s=ASK_TIMEOUT_S)
            except ConnectionError:
                continue
            if answer.status == 200:
                return answer.document if isinstance(answer.document, dict) else None
        return None

    async def status(self) -> dict[str, Any] | None:
        """The status of a replica that sees a healthy cluster; else of any that answers."""
        fallback = None
        for replica in self._api.replicas:
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
        return Roles(leader, self._api.replicas, tuple(sorted(agents)))

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
        return bool(rows) and len(states) == 1 and len(rows) == len(self._api.replicas) and "" not in next(iter(states))

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
