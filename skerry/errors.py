"""The errors of the command line and the client, and their exit codes.

Owns: the mapping from an error to an exit code (DESIGN.md §13).  Must not know: click or HTTP.
"""

from __future__ import annotations

from typing import Any

from raft.errors import SkerryError

OK, FAILED, USAGE, NOT_PLACED, NO_LEADER, NOT_ALLOWED, UNKNOWN, BUG = 0, 1, 2, 3, 4, 5, 6, 70

_EXIT_BY_CODE = {
    "usage": USAGE,
    "bad-config": USAGE,
    "break-unknown": USAGE,
    "no-process-control": USAGE,
    "not-placed": NOT_PLACED,
    "not-leader": NO_LEADER,
    "no-leader": NO_LEADER,
    "no-quorum": NO_LEADER,
    "unreachable": NO_LEADER,
    "unauthorized": NOT_ALLOWED,
    "bad-token": NOT_ALLOWED,
    "missing-token": NOT_ALLOWED,
    "forbidden": NOT_ALLOWED,
    "outcome-unknown": UNKNOWN,
    "timeout": UNKNOWN,
}


class Unreachable(SkerryError):
    """No replica answered at any of the addresses."""

    code = "unreachable"
    retryable = True


class NotPlaced(SkerryError):
    """The job was accepted, but did not reach the state waited for in time."""

    code = "not-placed"


class JobFailed(SkerryError):
    """The job ran and failed."""

    code = "job-failed"


class UsageError(SkerryError):
    """The command line asks for something that cannot be."""

    code = "usage"


class DevError(SkerryError):
    """The development cluster could not be started, found or stopped."""

    code = "dev"


class NoProcessControl(SkerryError):
    """A fault needs the cluster's processes, and only its addresses are known."""

    code = "no-process-control"


class ApiError(SkerryError):
    """A replica answered with a problem document (RFC 9457)."""

    def __init__(self, problem: dict[str, Any], status: int) -> None:
        super().__init__(
            str(problem.get("detail") or problem.get("title") or f"HTTP {status}"),
            hint=str(problem.get("hint") or ""),
        )
        self.status = status
        self.problem = problem
        self.code = str(problem.get("code") or "http-error")  # type: ignore[misc]  # per answer, not per class
        self.retryable = bool(problem.get("retryable", status >= 500))  # type: ignore[misc]
        self.outcome = str(problem.get("outcome") or "not-done")  # type: ignore[misc]
        self.details = {"status": status, "leader": problem.get("leader"), **(problem.get("details") or {})}


def exit_code(error: SkerryError) -> int:
    """The exit code of the contract for `error`."""
    if isinstance(error, ApiError) and error.status in (401, 403):
        return NOT_ALLOWED
    if error.code in _EXIT_BY_CODE:
        return _EXIT_BY_CODE[error.code]
    return UNKNOWN if error.outcome == "unknown" else FAILED
