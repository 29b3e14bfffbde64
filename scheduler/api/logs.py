"""Logs: the output of an allocation, or of all allocations of a job.

Owns: the shape of the call and its cursor.  Must not know: which replica holds a session.

The cursor is opaque: URL-safe base64 of the allocations' own cursors.
"""

from __future__ import annotations

import base64
import binascii
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from cluster.errors import BadRequest
from cluster.http import Call
from scheduler.api.services import ReadQuery, Services
from scheduler.errors import AllocationNotFound, JobNotFound
from scheduler.model import job_id
from scheduler.output import ALLOCATIONS_MAX, LINES_MAX, WAIT_MS_MAX

CURSOR_BYTES_MAX = 16 << 10


class LogsQuery(ReadQuery, frozen=True):
    """Where to go on, and how much is wanted."""

    cursor: Annotated[str, Meta(max_length=CURSOR_BYTES_MAX)] = ""
    lines_max: Annotated[int, Meta(ge=1, le=LINES_MAX)] = 1000
    wait_ms: Annotated[int, Meta(ge=0, le=WAIT_MS_MAX)] = 0
    """With nothing new, hold the answer up to this long."""


_cursor_decoder = msgspec.json.Decoder(dict[str, str])


class Logs:
    """Handler."""

    def __init__(self, services: Services) -> None:
        self._services = services

    async def show(self, call: Call) -> dict[str, Any]:
        """Lines after the cursor: of ``namespace/name.0``, or of the job ``namespace/name``."""
        query: LogsQuery = call.query
        cursors = decode_cursor(query.cursor)
        await self._services.fresh(query)
        nodes = self._placed(call.path["namespace"], call.path["name"])
        output = await self._services.output.read(nodes, cursors, lines_max=query.lines_max, wait_ms=query.wait_ms)
        return {
            "v": 1,
            "lines": output.lines,
            "cursor": encode_cursor(output.cursors),
            "ended": output.ended,
            "errors": output.errors,
        }

    def _placed(self, namespace: str, name: str) -> dict[str, str]:
        """Allocation to node, for what was ever placed; at most `ALLOCATIONS_MAX` of a job."""
        key = job_id(namespace, name)
        state = self._services.state
        if "." in name:
            allocation = state.allocation(key)
            if allocation is None:
                raise AllocationNotFound(
                    f"there is no allocation {key}", hint=f"see `skerry job show {key.rpartition('.')[0] or key}`"
                )
            if allocation["node"] is None:
                raise AllocationNotFound(f"{key} was not placed yet", hint="see `skerry explain`")
            return {key: allocation["node"]}
        job = state.job(key)
        if job is None:
            raise JobNotFound(f"there is no job {key}", hint="see `skerry job ls`", job=key)
        placed = [(one["id"], one["node"]) for one in job["allocations"] if one["node"] is not None]
        if not placed:
            raise AllocationNotFound(f"no allocation of {key} was placed yet", hint=f"see `skerry explain {key}`")
        return dict(placed[:ALLOCATIONS_MAX])


def encode_cursor(cursors: dict[str, str]) -> str:
    """One text for the cursors of several allocations."""
    return base64.urlsafe_b64encode(msgspec.json.encode(cursors)).decode().rstrip("=") if cursors else ""


def decode_cursor(text: str) -> dict[str, str]:
    """Inverse of `encode_cursor`; raises BadRequest."""
    if not text:
        return {}
    try:
        return _cursor_decoder.decode(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
    except (binascii.Error, ValueError, msgspec.DecodeError, msgspec.ValidationError):
        raise BadRequest(
            "?cursor= is not a cursor", hint="leave it out, or pass on what the last answer said"
        ) from None
