"""Whether one copy, asked one call after the other, could have given all answers about jobs.

Owns: the search's verdict as a finding.  Must not know: the search (`chaos.history`).
"""

from __future__ import annotations

from chaos.history.jobs import job_history
from chaos.history.linear import check
from chaos.history.models import Job
from chaos.trace.checkers.base import Finding, Verdict
from chaos.trace.events import Trace

STEPS_MAX = 200_000


def linearizable(trace: Trace) -> Finding:
    """The calls about each job have an order that agrees with time and with every answer (Herlihy and Wing)."""
    verdict = Verdict("linearizable")
    events = {event.ref: event for event in trace.kind("op")}
    for outcome in check(job_history(trace), Job(), STEPS_MAX):
        if outcome.ok is None:
            verdict.unknown(f"the search over the calls on {outcome.key} was given up after {outcome.steps} steps")
            continue
        verdict.checked += outcome.operations
        if outcome.ok is False:
            stuck = " or ".join(f"{o.input} → version {o.output[0]} at {o.output[1]}" for o in outcome.stuck[:3])
            shown = [events[o.ref] for o in (*outcome.stuck, *outcome.after) if o.ref in events]
            verdict.violated(f"no order of the calls on {outcome.key} gives {stuck}", *shown)
    return verdict.finding("no call about a job was answered")
