"""A seed's plan with twice its load: enough events for a difference between two runs to show."""

from __future__ import annotations

from msgspec.structs import replace

from chaos.sim.swarm.load import Call
from chaos.sim.swarm.plan import Plan, draw_plan
from chaos.sim.swarm.profile import Transport

COPIES = ("", "x")


def busy_plan(seed: int, transport: Transport) -> Plan:
    """The plan; the further jobs are those of the seed under another name, a little later."""
    plan = draw_plan(seed, transport)
    calls = [_copy(call, prefix, later) for later, prefix in enumerate(COPIES) for call in plan.load]
    return replace(plan, load=tuple(sorted(calls, key=lambda call: (call.at_ms, call.request))))


def _copy(call: Call, prefix: str, later: int) -> Call:
    of_job = call.kind in ("submit", "stop", "read")
    job = {**call.job, "name": prefix + call.target} if call.job else call.job
    target = prefix + call.target if of_job else call.target
    return replace(call, at_ms=call.at_ms + 150 * later, target=target, request=prefix + call.request, job=job)
