"""Jobs: submit, stop, list, show.

Owns: the shapes of these calls, when a job is refused before it is proposed, and the trace of
each operation.  Must not know: where the leader is, or how a job is placed.

A submission is acknowledged only after its command was committed and applied.  The trace has
an ``op`` for each: ``ok`` done, ``fail`` certainly not done, ``info`` unknown.
"""

from __future__ import annotations

import asyncio
import itertools
import re
from collections.abc import Awaitable
from typing import Annotated, Any

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

from cluster.http import Call
from raft.errors import SkerryError
from scheduler.api.services import WRITE_S, Services, holders, missing
from scheduler.commands import COMMAND_BYTES_MAX, StopJob, SubmitJob, encode
from scheduler.errors import JobFileError, JobNotFound, NeverFits, RefusedByState
from scheduler.explain import could_ever_fit, why_not_placed
from scheduler.jobfile import resolve_object
from scheduler.model import NAME_PATTERN, RequestId, ResolvedJob, job_id
from scheduler.proposals import Applied

ANY_VERSION = -1
INLINE_MAX = 256
"""A job of more allocations is listed in a thread."""


class SubmitCall(Struct, forbid_unknown_fields=True):
    """A job file as JSON, and the id that makes asking again safe."""

    job: dict[str, Any]
    request_id: RequestId
    expected_version: Annotated[int, Meta(ge=-1, le=1 << 53)] | UnsetType | None = UNSET
    """Only if the job has this version: 0 = only if it is new, -1 or absent = whatever it has."""


class StopCall(Struct, forbid_unknown_fields=True):
    """The id that makes asking again safe."""

    request_id: RequestId


class Acknowledged(Struct, frozen=True):
    """The command is committed and applied."""

    v: int
    job: str
    version: int
    index: int
    state: str
    outcome: str


class Jobs:
    """Handlers."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._reads = itertools.count(1)

    async def submit(self, call: Call) -> Acknowledged:
        """Create or replace a job."""
        body: SubmitCall = call.body
        job = resolve_object(body.job)
        name = job_id(job.workload.namespace, job.workload.job)
        version = body.expected_version if isinstance(body.expected_version, int) else ANY_VERSION
        command = SubmitJob(job, body.request_id, version, self._services.wall_ms())
        if len(encode(command)) > COMMAND_BYTES_MAX:
            raise JobFileError(f"the job takes more than {COMMAND_BYTES_MAX} bytes", hint="shorten command and env")

        async def carry_out() -> Applied:
            await self._refuse_misfit(job, name, body.request_id)
            return await self._services.door.propose(command, timeout_s=WRITE_S)

        return await self._operation("submit", name, body.request_id, carry_out())

    async def stop(self, call: Call) -> Acknowledged:
        """Stop every allocation of a job."""
        body: StopCall = call.body
        namespace, name = job_path(call)
        command = StopJob(namespace, name, body.request_id, self._services.wall_ms())
        proposal = self._services.door.propose(command, timeout_s=WRITE_S)
        return await self._operation("stop", job_id(namespace, name), body.request_id, proposal)

    async def ls(self, call: Call) -> dict[str, Any]:
        """All jobs."""
        await self._services.fresh(call.query)
        return {"v": 1, "index": self._services.state.index, "jobs": self._services.state.jobs()}

    async def show(self, call: Call) -> dict[str, Any]:
        """One job with its allocations."""
        key = job_id(*job_path(call))
        trace, state = self._services.trace, self._services.state
        number = f"{trace.incarnation}-{next(self._reads)}"
        operation: dict[str, Any] = {
            "id": f"read-{self._services.node}-{number}",
            "client": f"api-{self._services.node}",
        }
        if call.query.stale:
            operation["stale"] = True
        trace.emit("op", ph="invoke", op="read", key=key, value={}, **operation)
        try:
            await self._services.fresh(call.query)
        except SkerryError as error:
            trace.emit("op", ph="fail", op="read", key=key, value={}, code=error.code, **operation)
            raise
        found = state.job_head(key)
        held = None if found is None else state.listing(key)
        value = {"version": state.job_version(key), "index": state.index, "term": state.term}
        trace.emit("op", ph="ok", op="read", key=key, value=value, **operation)
        if found is None or held is None:
            raise JobNotFound(f"there is no job {key}", hint="see `skerry job ls`", job=key)
        head = {"v": 1, "index": state.index, **found}
        if len(held) <= INLINE_MAX:
            allocations = held.json()
        else:
            held.hold()
            allocations = await asyncio.to_thread(held.json)
        return {**head, "allocations": msgspec.Raw(allocations), "reason": await self._reason(found)}

    # --- inside -------------------------------------------------------------------------------

    async def _reason(self, job: dict[str, Any]) -> str:
        """Why not all of `job` is placed, in one line; "" when nothing waits."""
        if not job["counts"]["waiting"]:
            return ""
        state = self._services.state
        held = holders(await self._services.rows())
        return why_not_placed(state, job["job"], self._services.wall_ms(), missing(state, held))

    async def _refuse_misfit(self, job: ResolvedJob, name: str, request_id: str) -> None:
        """Refuse what no registered node could ever hold, as of a confirmed read.

        What would fit, by what is known here already, needs no such read: at worst it waits for a node.
        """
        if self._misfit(job, name, request_id) is None:
            return
        await self._services.door.barrier(timeout_s=WRITE_S / 2)
        misfit = self._misfit(job, name, request_id)
        if misfit is not None:
            raise NeverFits(
                f"no node could ever run {name}: {misfit.get('reason', '')}",
                hint=_nearest_hint(misfit.get("nearest")),
                **{key: value for key, value in misfit.items() if key != "reason"},
            )

    def _misfit(self, job: ResolvedJob, name: str, request_id: str) -> dict[str, Any] | None:
        """Why it fits nowhere, by the state of this replica; None for what is asked again: the first answer stands."""
        state = self._services.state
        known = state.books.jobs.get(name)
        if known is not None and request_id in known.requests:
            return None
        return could_ever_fit(state, job)

    async def _operation(self, kind: str, key: str, request_id: str, work: Awaitable[Applied]) -> Acknowledged:
        trace = self._services.trace
        fields = {"id": request_id, "client": f"api-{self._services.node}", "op": kind, "key": key}
        trace.emit("op", ph="invoke", value={}, **fields)
        try:
            applied = await work
            if applied.result.code:
                result = applied.result
                raise RefusedByState(result.code, result.message, result.hint)
        except SkerryError as error:
            phase = "info" if error.outcome == "unknown" else "fail"
            trace.emit("op", ph=phase, value={}, code=error.code, **fields)
            raise
        except BaseException:  # the caller hung up: nobody knows
            trace.emit("op", ph="info", value={}, code="cancelled", **fields)
            raise
        result = applied.result
        value = {"version": result.version, "index": result.index, "term": applied.term}
        trace.emit("op", ph="ok", value=value, **fields)
        state = self._services.state.job_state(key) or ("stopped" if kind == "stop" else "pending")
        return Acknowledged(1, key, result.version, result.index, state, result.outcome)


_NAME = re.compile(NAME_PATTERN)


def job_path(call: Call) -> tuple[str, str]:
    """(namespace, name) of the path; raises JobNotFound for what can be no job."""
    namespace, name = call.path["namespace"], call.path["name"]
    if not (_NAME.fullmatch(namespace) and _NAME.fullmatch(name)):
        raise JobNotFound(f"{namespace[:64]}/{name[:64]} is no job name", hint="namespace and name are DNS labels")
    return namespace, name


def _nearest_hint(nearest: Any) -> str:
    if isinstance(nearest, dict) and nearest.get("node"):
        return f"nearest is node {nearest['node']}: {nearest.get('change', '')}"
    return "ask for less, or add a larger node"
