"""Readiness: whether this replica can do its work now.

Owns: what "ready" means to those who start, restart or balance processes.  Must not know: who asks.

``/healthz`` says that the process serves; ``/readyz`` that it knows a leader and has applied all that it knows
to be committed.  A replica cut off from the majority serves, and is not ready.
"""

from __future__ import annotations

from typing import Any

from cluster.http import Call
from raft.status import Standing
from scheduler.api.services import Services
from scheduler.errors import NotReady
from scheduler.roster import Row


class Ready:
    """Handler."""

    def __init__(self, services: Services) -> None:
        self._services = services

    async def show(self, call: Call) -> dict[str, Any]:
        """Who leads, and how far this replica is; raises NotReady."""
        row = self._services.roster.own()
        if why := unready(row):
            raise NotReady(why, hint="wait; `skerry status` says how the cluster is")
        return {"v": 1, "ready": True, "id": row.id, "leader": row.leader, "applied_index": row.applied_index}


def unready(row: Row) -> str:
    """Why a replica is not ready; "" when it is."""
    if row.leader is None:
        return f"{row.id} knows no leader"
    if row.standing == Standing.DIVERGED:
        return f"the state of {row.id} is being fetched anew"
    if row.commit_index == 0:
        return f"{row.id} has applied nothing yet"
    if row.applied_index < row.commit_index:
        return f"{row.id} has applied {row.applied_index} of {row.commit_index} committed entries"
    return ""
