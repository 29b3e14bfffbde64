"""Deliberate bugs of nodes: what is stopped, who is believed to run, how it is told to have ended (agents)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from agents.sandboxer.adoption import Verdict
from agents.sandboxer.attempt import Attempt, exit_fields
from agents.sandboxer.linux import ProcessStat
from scheduler.session import Desired, StopOrder

_exit_fields = exit_fields


def stops_of(wanted: Desired, live: tuple[tuple[str, int], ...]) -> dict[tuple[str, int], StopOrder]:
    """`absence-stops`: what lives on the node and is in no set is stopped."""
    stops = {(order.allocation, order.epoch): order for order in wanted.stops}
    named = {(item.allocation, item.epoch) for item in wanted.assignments}
    for key in live:
        if key not in named:
            stops.setdefault(key, StopOrder(key[0], key[1], wanted.index))
    return stops


def judged_by_number(stat: ProcessStat | None, ticks: int, in_group: Callable[[], bool]) -> Verdict:
    """`pid-reuse`: whoever has the number now is taken for the process that had it."""
    return Verdict.GONE if stat is None else Verdict.OURS


def exit_as_success(attempt: Attempt) -> dict[str, Any]:
    """`invented-exit-status`: what nobody saw is told as an exit with 0."""
    fields = _exit_fields(attempt)
    if not fields["status_known"] and fields["reason"] != "start-failed":
        fields |= {"code": 0, "status_known": True}
    return fields
