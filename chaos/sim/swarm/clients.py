"""The clients of a simulated run: they make the planned calls, and write down what they were told.

Owns: making calls on time, asking again under the same request id, and the `op` events of the clients.
Must not know: faults, or how a call travels (`chaos.scenario.backend.Api`).

Clients are outside every fault: nothing cuts them off from a replica that runs, so they also ask one that is cut off
from all others, which must not acknowledge anything alone.
"""

from __future__ import annotations

import asyncio
from typing import Any, Final

from chaos.scenario.backend import Api, Emitter, NotSent, Unanswered
from chaos.sim.swarm.load import CLIENT_TIMEOUT_MS, Call
from chaos.sim.swarm.profile import SPECIAL_TAINT

RETRY_S: Final = 0.5
ATTEMPTS_MAX: Final = 4
"""Of one call, over different replicas, while its outcome is unknown or it was certainly not done for now."""

Told = tuple[str, dict[str, Any], str]
"""(phase, value, code) of one attempt."""


class Clients:
    """Carries a load plan out.

    Attributes:
        acknowledged: request id → (job, kind, index), of every write that was acknowledged.
        unknown: request id → call, of those of which nobody knows.
        asked: attempts made so far.
    """

    def __init__(self, calls: tuple[Call, ...], api: Api, trace: Emitter) -> None:
        self._calls = calls
        self._api = api
        self._trace = trace
        self.acknowledged: dict[str, tuple[str, str, int]] = {}
        self.unknown: dict[str, Call] = {}
        self.asked = 0

    async def run(self) -> None:
        """Make all calls, each at its time; returns when the last has ended."""
        loop = asyncio.get_running_loop()
        start = loop.time()
        async with asyncio.TaskGroup() as group:
            for call in self._calls:
                await asyncio.sleep(start + call.at_ms / 1000 - loop.time())
                group.create_task(self._carry_out(call))

    async def resolve_unknown(self) -> int:
        """Ask for every unknown outcome again under its id; returns how many stay unknown."""
        for call in list(self.unknown.values()):
            await self._carry_out(call)
        return len(self.unknown)

    async def probe(self, name: str) -> bool:
        """Submit a job that needs no place; whether that was acknowledged."""
        job = {"name": name, "kind": "batch", "replicas": 0, "command": ["/bin/sim-run", "0", "0"]}
        call = Call(0, "submit", name, f"{name}.1", self._api.replicas[0], job)
        return await self._carry_out(call)

    async def _carry_out(self, call: Call) -> bool:
        """One call: its first replica, then others until the outcome is known; whether it was acknowledged."""
        replicas = self._api.replicas
        first = replicas.index(call.replica)
        done = False
        for attempt in range(ATTEMPTS_MAX):
            phase, again = await self._attempt(call, replicas[(first + attempt) % len(replicas)])
            done = done or phase == "ok"
            if not again and not (call.twice and attempt == 0):
                break
            await asyncio.sleep(RETRY_S)
        return done

    async def _attempt(self, call: Call, replica: str) -> tuple[str, bool]:
        """(phase, whether asking again makes sense)."""
        self.asked += 1
        write = call.kind in ("submit", "stop")
        key = f"default/{call.target}" if write or call.kind == "read" else f"node/{call.target}"
        common = {"id": call.request, "client": f"client-{call.request}", "op": call.kind, "key": key}
        self._trace.emit("op", ph="invoke", value={}, replica=replica, **common)
        phase, value, code = await self._told(call, replica)
        self._trace.emit("op", ph=phase, value=value, code=code, replica=replica, **common)
        if write:
            self._remember(call, phase, value)
        return phase, phase == "info" or (phase == "fail" and code in AGAIN)

    def _remember(self, call: Call, phase: str, value: dict[str, Any]) -> None:
        if phase == "ok":
            self.acknowledged[call.request] = (call.target, call.kind, value["index"])
        if phase == "info":
            if call.request not in self.acknowledged:
                self.unknown[call.request] = call
        else:
            self.unknown.pop(call.request, None)

    async def _told(self, call: Call, replica: str) -> Told:
        path, body = request_of(call)
        try:
            answer = await self._api.ask(replica, path, body=body, timeout_s=CLIENT_TIMEOUT_MS / 1000)
        except NotSent:
            return "fail", {}, "unreachable"
        except Unanswered as error:
            return "info", {}, error.code
        return told(call, answer.status, answer.document)


AGAIN: Final = ("unreachable", "no-quorum", "no-leader", "overloaded", "not-leader", "disk-full", "not-ready")
"""Codes of calls that were certainly not done, and may be on another replica or later."""


def request_of(call: Call) -> tuple[str, dict[str, Any] | None]:
    """(path, body) of a call; no body = GET."""
    match call.kind:
        case "submit":
            return "/v1/jobs", {"job": call.job, "request_id": call.request}
        case "stop":
            return f"/v1/jobs/default/{call.target}/stop", {"request_id": call.request}
        case "read":
            return f"/v1/jobs/default/{call.target}", None
        case "label":
            return f"/v1/nodes/{call.target}/labels", {"put": {"touched": "yes"}}
        case "taint" | "untaint":
            key, _, rest = SPECIAL_TAINT.partition("=")
            value, _, effect = rest.partition(":")
            if call.kind == "taint":
                return f"/v1/nodes/{call.target}/taints", {"put": [{"key": key, "value": value, "effect": effect}]}
            return f"/v1/nodes/{call.target}/taints", {"remove": [{"key": key, "effect": effect}]}
    return f"/v1/nodes/{call.target}/{call.kind}", {}


def told(call: Call, status: int, document: Any) -> Told:
    """What an answer says about a call."""
    if not isinstance(document, dict):
        return "info", {}, "not-understood"
    if status in (200, 201):
        version = {"version": document.get("version", 0)}
        return "ok", version if call.kind == "read" else {"index": document.get("index", 0), **version}, ""
    code = str(document.get("code", status))
    if call.kind == "read":
        return ("ok", {"version": 0}, code) if code == "no-such-job" else ("fail", {}, code)
    return ("fail" if document.get("outcome") == "not-done" else "info"), {}, code
