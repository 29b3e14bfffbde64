"""Status: how the cluster is, even when it cannot decide anything.

Owns: the status document (keys of DESIGN.md §13).  Must not know: how rows come about.
"""

from __future__ import annotations

from typing import Any

from cluster.http import Call
from scheduler.api.nodes import join_all
from scheduler.api.services import Services, holders
from scheduler.roster import Row, verdict


class Status:
    """Handler."""

    def __init__(self, services: Services) -> None:
        self._services = services

    async def show(self, call: Call) -> dict[str, Any]:
        """Health, replicas and nodes, within a second and without a quorum too.

        Nodes are as this replica has applied them; `replicas` says how far that is.
        """
        rows = await self._services.rows(digest=True)
        found = verdict(rows)
        nodes = join_all(self._services.state.nodes(), holders(rows))
        return {
            "v": 1,
            "summary": found.summary,
            "healthy": found.healthy,
            "survives": found.survives,
            "why": "" if found.healthy else found.summary,
            "leader": found.leader,
            "term": found.term,
            "answered_by": self._services.node,
            "alerts": list(dict.fromkeys(line for row in rows for line in row.alert.splitlines())),
            "replicas": [_row(row) for row in rows],
            "nodes": nodes,
        }


def _row(row: Row) -> dict[str, Any]:
    return {
        "id": row.id,
        "role": row.role,
        "term": row.term,
        "leader": row.leader,
        "commit_index": row.commit_index,
        "applied_index": row.applied_index,
        "digest": row.digest,
        "state": row.standing,
    }
