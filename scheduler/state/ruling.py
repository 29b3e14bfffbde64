"""The rules of a job about nodes' labels and about other workloads, checked again at apply.

Owns: what such a check looks at.  Must not know: what a rule means (`scheduler.engine.between`).
"""

from __future__ import annotations

from scheduler.engine import between
from scheduler.engine.between import Ground
from scheduler.engine.drafts import request_for
from scheduler.engine.groups import Crowd
from scheduler.state.books import Books
from scheduler.state.jobs import JobRecord


class Ruling:
    """The rules as one plan meets them; workloads are counted once a plan, and then as it places more.

    Args:
        books: what the plan is applied to; nothing else may change while it is.
    """

    def __init__(self, books: Books) -> None:
        self._books = books
        self._crowd: Crowd | None = None

    def fault(self, job: JobRecord, node: str) -> tuple[str, str] | None:
        """(code, reason) why one more allocation of the job may not be on this node, None when it may."""
        rules, nodes = job.spec.rules, self._books.nodes
        if rules.node_terms is None and not self._books.jobs.ruled:
            return None
        request, slot = request_for(job, 0), nodes.slot_of[node]
        ground = Ground(nodes.names, nodes.topology(), nodes.marks.taints)
        if rules.node_terms is not None and not between.wanted(ground, request)[slot]:
            return "node-affinity", "the node is in no term of the job's required node affinity"
        if not self._books.jobs.ruled:
            return None
        there = self._there()
        if not between.evenly(ground, request, there)[slot]:
            return "not-spread", "the node's domain would have more of its kind than the job's spread constraints allow"
        if not between.near(ground, request, there)[slot]:
            return "not-near", "what the job has to be near is not in the node's domain"
        if not between.apart(ground, request, there)[slot]:
            return "not-apart", "the node's domain has work that has to be apart from it"
        return None

    def placed(self, job: JobRecord, slot: int) -> None:
        """The plan put one of the job's allocations on this node."""
        if self._crowd is not None:
            self._crowd.grew(job.id, job.group, slot)

    def _there(self) -> Crowd:
        if self._crowd is None:
            groups = {job.id: job.group for job in self._books.jobs if job.per_node}
            self._crowd = Crowd(groups, len(self._books.nodes))
        return self._crowd
