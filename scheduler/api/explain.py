"""Explain: why a job is where it is, or why it waits.

Owns: nothing but the call.  Must not know: how decisions are made (`scheduler.explain`).
"""

from __future__ import annotations

from typing import Any

from cluster.http import Call
from scheduler.api.jobs import job_path
from scheduler.api.services import Services, holders, missing
from scheduler.errors import JobNotFound
from scheduler.explain import explain
from scheduler.model import job_id


class Explain:
    """Handler."""

    def __init__(self, services: Services) -> None:
        self._services = services

    async def show(self, call: Call) -> dict[str, Any]:
        """The explanation of one job, nodes without a session counted as not connected."""
        await self._services.fresh(call.query)
        held = holders(await self._services.rows())
        state = self._services.state
        key = job_id(*job_path(call))
        found = explain(state, key, self._services.wall_ms(), missing(state, held))
        if found is None:
            raise JobNotFound(f"there is no job {key}", hint="see `skerry job ls`", job=key)
        return {"v": 1, "index": state.index, **found}
