"""Replicated state of the scheduler: jobs, attempts and nodes in columns, changed by commands."""

from scheduler.state.nodes import Registration
from scheduler.state.results import (
    Change,
    JobResult,
    NodeResult,
    OwnersResult,
    PlanResult,
    Refusal,
    Result,
    StatusResult,
    StopsResult,
)
from scheduler.state.state import State

__all__ = [
    "Change",
    "JobResult",
    "NodeResult",
    "OwnersResult",
    "PlanResult",
    "Refusal",
    "Registration",
    "Result",
    "State",
    "StatusResult",
    "StopsResult",
]
