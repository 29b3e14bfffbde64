"""The life of one attempt and of a job, as tables.

Owns: which state an attempt may enter next, which states hold capacity, when an exited
attempt is followed by another one, and the word for the state of a whole job.
Must not know: where attempts are stored, or anything of time but the numbers handed in.

An *allocation* is one slot of a job (``namespace/name.index``); an *attempt* is one try to
run it on one node.  An attempt books its node's capacity from its placement until the node
itself says that it is over (or that the node was rebooted): see DESIGN.md §4.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final

from scheduler.model import AllocationState, Exit, ExitReason, RestartPolicy

BACKOFF_FIRST_MS: Final = 1_000
BACKOFF_MAX_MS: Final = 30_000
STABLE_AFTER_MS: Final = 60_000
"""An attempt that ran at least this long starts the back-off anew."""


class Happening(StrEnum):
    """What can happen to an attempt."""

    STARTED = "started"
    STOP_ORDERED = "stop-ordered"
    SUCCEEDED = "succeeded"
    BROKE = "broke"
    WAS_STOPPED = "was-stopped"
    VANISHED = "vanished"
    NODE_LOST = "node-lost"


_S = AllocationState
_H = Happening

TRANSITIONS: Final[dict[tuple[AllocationState, Happening], AllocationState]] = {
    (_S.PLACED, _H.STARTED): _S.RUNNING,
    (_S.PLACED, _H.STOP_ORDERED): _S.STOPPING,
    (_S.PLACED, _H.SUCCEEDED): _S.COMPLETE,
    (_S.PLACED, _H.BROKE): _S.FAILED,
    (_S.PLACED, _H.WAS_STOPPED): _S.STOPPED,
    (_S.PLACED, _H.VANISHED): _S.LOST,
    (_S.RUNNING, _H.STARTED): _S.RUNNING,
    (_S.RUNNING, _H.STOP_ORDERED): _S.STOPPING,
    (_S.RUNNING, _H.SUCCEEDED): _S.COMPLETE,
    (_S.RUNNING, _H.BROKE): _S.FAILED,
    (_S.RUNNING, _H.WAS_STOPPED): _S.STOPPED,
    (_S.RUNNING, _H.VANISHED): _S.LOST,
    (_S.STOPPING, _H.STARTED): _S.STOPPING,
    (_S.STOPPING, _H.STOP_ORDERED): _S.STOPPING,
    (_S.STOPPING, _H.SUCCEEDED): _S.STOPPED,
    (_S.STOPPING, _H.BROKE): _S.STOPPED,
    (_S.STOPPING, _H.WAS_STOPPED): _S.STOPPED,
    (_S.STOPPING, _H.VANISHED): _S.LOST,
    (_S.PLACED, _H.NODE_LOST): _S.UNKNOWN,
    (_S.RUNNING, _H.NODE_LOST): _S.UNKNOWN,
    (_S.STOPPING, _H.NODE_LOST): _S.UNKNOWN,
    (_S.UNKNOWN, _H.STARTED): _S.RUNNING,
    (_S.UNKNOWN, _H.STOP_ORDERED): _S.UNKNOWN,
    (_S.UNKNOWN, _H.SUCCEEDED): _S.COMPLETE,
    (_S.UNKNOWN, _H.BROKE): _S.FAILED,
    (_S.UNKNOWN, _H.WAS_STOPPED): _S.STOPPED,
    (_S.UNKNOWN, _H.VANISHED): _S.LOST,
    (_S.UNKNOWN, _H.NODE_LOST): _S.UNKNOWN,
}
"""Every legal step.  The four ended states have no row: nothing happens to them any more."""

HOLDING: Final = (_S.PLACED, _S.RUNNING, _S.STOPPING)
"""States that hold their allocation: another attempt waits for their end."""

LIVE: Final = (*HOLDING, _S.UNKNOWN)
"""States that book capacity, ports included.  What is unknown stays booked on its lost node."""

ENDED: Final = (_S.COMPLETE, _S.FAILED, _S.STOPPED, _S.LOST)


def next_state(state: AllocationState, happening: Happening) -> AllocationState | None:
    """The state after `happening`, or None when the table has no such step."""
    return TRANSITIONS.get((state, happening))


def happening_of(end: Exit) -> Happening:
    """Classify how a workload ended.

    Only a known exit code 0 is success: an unknown status is never taken for 0.
    """
    if end.reason == ExitReason.LOST:
        return Happening.VANISHED
    if end.reason in (ExitReason.STOPPED, ExitReason.LEASE):
        return Happening.WAS_STOPPED
    if end.reason == ExitReason.EXITED and end.status_known and end.code == 0:
        return Happening.SUCCEEDED
    return Happening.BROKE


def starts_again(policy: RestartPolicy, ended: AllocationState, failures: int, backoff_limit: int) -> bool:
    """Whether the allocation gets another attempt after one that ended as `ended`.

    Args:
        policy: the job's restart policy.
        ended: how the last attempt ended.
        failures: failed attempts of this allocation so far, this one included.
        backoff_limit: failures after which it stays failed; -1 = no bound.

    A lost attempt, or one that something on its node stopped unasked, is not the workload's
    fault: it is repeated unless the policy is Never, and counts as no failure.
    """
    if policy is RestartPolicy.NEVER:
        return False
    if ended is AllocationState.COMPLETE:
        return policy is RestartPolicy.ALWAYS
    if ended is AllocationState.FAILED:
        return backoff_limit < 0 or failures <= backoff_limit
    return True


def backoff_ms(streak: int) -> int:
    """Wait before the next attempt: 1 s · 2^(streak-1), at most 30 s; 0 for no streak.

    `streak` counts attempts in a row that ended by themselves within `STABLE_AFTER_MS`.
    """
    if streak <= 0:
        return 0
    return min(BACKOFF_FIRST_MS << min(streak - 1, 16), BACKOFF_MAX_MS)


class JobState(StrEnum):
    """One word for a job, from the states of its allocations."""

    PENDING = "pending"
    STARTING = "starting"
    RUNNING = "running"
    DEGRADED = "degraded"
    COMPLETE = "complete"
    FAILED = "failed"
    STOPPING = "stopping"
    STOPPED = "stopped"


def job_state(
    *,
    stopped: bool,
    replicas: int,
    live: int,
    running: int,
    waiting: int,
    complete: int,
    broken: int,
    unknown: int = 0,
    batch: bool = False,
) -> JobState:
    """The word for a job.  Counts are allocations, by their newest attempt.

    Args:
        stopped: the job was stopped by its user.
        replicas: allocations wanted.
        live: attempts that still book capacity, surplus ones included.
        running: allocations running and wanted.
        waiting: allocations that wait to be placed, now or after a back-off.
        complete: allocations that finished well and stay finished.
        broken: allocations that failed, or were lost under policy Never, and stay so.
        unknown: allocations on lost nodes that may run there or not.
        batch: the job is to finish; with 0 replicas it has, while a service of 0 runs as wanted.
    """
    if stopped:
        return JobState.STOPPING if live else JobState.STOPPED
    if replicas == 0:
        return JobState.STOPPING if live else JobState.COMPLETE if batch else JobState.RUNNING
    if complete + broken == replicas:
        return JobState.FAILED if broken else JobState.COMPLETE
    if broken or unknown:
        return JobState.DEGRADED
    if waiting:
        return JobState.PENDING
    if running + complete == replicas:
        return JobState.RUNNING
    return JobState.STARTING
