"""Errors as HTTP answers: RFC 9457 problem documents.

Owns: the document's fields and the status of each error code.  Must not know: routes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec import Struct

from cluster.errors import PeerError
from cluster.network import Answer
from raft.errors import SkerryError

PROBLEM_TYPE = "application/problem+json"

STATUSES: dict[str, int] = {
    "bad-request": 400,
    "bad-config": 500,
    "unauthorized": 401,
    "forbidden": 403,
    "not-found": 404,
    "method-not-allowed": 405,
    "request-timeout": 408,
    "conflict": 409,
    "body-too-large": 413,
    "unsupported-media-type": 415,
    "too-many-requests": 429,
    "internal": 500,
    "protocol-violation": 502,
    "peer-error": 502,
    "peer-unreachable": 504,
    "not-leader": 503,
    "no-quorum": 503,
    "proposal-dropped": 503,
    "no-successor": 503,
    "state-diverged": 503,
    "overloaded": 503,
    "log-full": 507,
    "disk-full": 507,
    "outcome-unknown": 504,
}
"""HTTP status of every code of `raft` and `cluster`; packages above add their own."""


class Problem(Struct, frozen=True, kw_only=True):
    """What went wrong (RFC 9457), with what Skerry adds."""

    type: str
    """``urn:skerry:problem:CODE``"""
    title: str
    status: int
    detail: str
    """What happened."""
    code: str
    """Stable name of the failure."""
    hint: str
    """What to do now."""
    retryable: bool
    """Whether the same call may succeed later."""
    outcome: str
    """``not-done``: certainly no effect; ``unknown``: it may still take effect, ask again with the same request id."""
    leader: str | None
    """Replica that leads, as far as this one knows."""
    details: dict[str, Any]
    """Typed extras of this code, such as ``path`` of a bad field."""


def problem_of(error: SkerryError, leader: str | None, statuses: Mapping[str, int] = STATUSES) -> Problem:
    """The document of an error; a peer's own error keeps the peer's code and outcome."""
    code, retryable, outcome = error.code, error.retryable, error.outcome
    if isinstance(error, PeerError):
        code, retryable, outcome = error.peer_code, error.peer_retryable, error.peer_outcome
    details = {name: value for name, value in error.details.items() if name != "leader"}
    known = error.details.get("leader")
    return Problem(
        type=f"urn:skerry:problem:{code}",
        title=code.replace("-", " "),
        status=statuses.get(code, 503 if retryable else 400),
        detail=error.message,
        code=code,
        hint=error.hint,
        retryable=retryable,
        outcome=outcome,
        leader=known if isinstance(known, str) else leader,
        details=details,
    )


def problem_answer(problem: Problem, headers: Mapping[str, str] | None = None) -> Answer:
    """The document as an answer."""
    return Answer(problem.status, msgspec.json.encode(problem, enc_hook=str), PROBLEM_TYPE, headers or {})
