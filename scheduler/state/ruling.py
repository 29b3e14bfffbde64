"""The rules of a job about nodes' labels and about other workloads, checked again at apply.

Owns: which groups such a check looks at.  Must not know: what a rule means (`scheduler.engine.between`).
"""

from __future__ import annotations

from scheduler.engine import between
from scheduler.engine.between import Ground
from scheduler.engine.drafts import request_for
from scheduler.engine.groups import Crowd
from scheduler.state.books import Books
from scheduler.state.jobs import JobRecord


def rule_fault(books: Books, job: JobRecord, slot: int) -> tuple[str, str] | None:
    """(code, reason) why one more allocation of the job may not be on this node, None when it may."""
    rules, jobs = job.spec.rules, books.jobs
    if rules.node_terms is None and not jobs.ruled:
        return None
    request = request_for(job, 0)
    ground = Ground(books.nodes.names, books.nodes.topology(), books.nodes.marks.taints)
    if rules.node_terms is not None and not between.wanted(ground, request)[slot]:
        return "node-affinity", "the node is in no term of the job's required node affinity"
    if not jobs.ruled:
        return None
    # What a job without rules has to fear is those of others.
    looked_at = jobs if between.crosses(rules) else [jobs.by_number[number] for number in jobs.ruled]
    there = Crowd({other.id: other.group for other in looked_at if other.per_node}, len(ground))
    if not between.evenly(ground, request, there)[slot]:
        return "not-spread", "there would be more of its kind in the node's domain than its spread constraints allow"
    if not between.near(ground, request, there)[slot]:
        return "not-near", "what the job has to be near is not in the node's domain"
    if not between.apart(ground, request, there)[slot]:
        return "not-apart", "the node's domain has work that has to be apart from it"
    return None
