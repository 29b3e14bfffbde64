"""Clients that submit jobs to every replica, also to those cut off, and write down what they were told.

Owns: the rate, the request ids, the `op` events of the clients.  Must not know: faults.

Phases: ``invoke`` sent; ``ok`` acknowledged, with index and version; ``fail`` certainly not
done; ``info`` nobody knows.  A request whose outcome is unknown is asked again under its id, at any
replica, which either resolves it or makes it happen.
"""

from __future__ import annotations

import asyncio
from typing import Any

from chaos.scenario.backend import Api, Emitter, NotSent, Unanswered
from chaos.scenario.model import Load, seconds

ASK_AGAIN_S = 10.0
"""How long unknown outcomes may take to resolve after the heal."""
ASK_AGAIN_AFTER_S = 0.5
INFLIGHT_MAX = 64
"""Requests of one client under way; past this it skips a turn."""


class LoadGenerator:
    """One client a replica, together at the scenario's rate.

    Attributes:
        asked: requests sent so far.
        acknowledged: (loop time, index) of every acknowledged write, in order.
        unknown: request id → job, of those that nobody answered.
    """

    def __init__(self, load: Load, api: Api, trace: Emitter, run: str) -> None:
        self._load = load
        self._api = api
        self._trace = trace
        self._run = run
        self._timeout_s = seconds(load.timeout, "load.timeout")
        self.asked = 0
        self.failed = 0
        self.acknowledged: list[tuple[float, int]] = []
        self.unknown: dict[str, str] = {}

    async def run(self, stop: asyncio.Event) -> None:
        """Submit until `stop`, then wait for what is under way."""
        async with asyncio.TaskGroup() as tasks:
            for number, replica in enumerate(self._api.replicas):
                tasks.create_task(self._client(number, replica, stop))
            tasks.create_task(self._ask_again(stop))

    async def _client(self, number: int, replica: str, stop: asyncio.Event) -> None:
        loop = asyncio.get_running_loop()
        clients = len(self._api.replicas)
        period = clients / self._load.per_second
        due = loop.time() + period * number / clients
        turn = 0
        async with asyncio.TaskGroup() as requests:
            under_way: set[asyncio.Task[None]] = set()
            while not await _is_set_within(stop, due - loop.time()):
                due = max(due + period, loop.time())
                turn += 1
                if len(under_way) < INFLIGHT_MAX:
                    job = f"{self._run}-{(turn * clients + number) % self._load.jobs}"
                    task = requests.create_task(self._submit(f"{self._run}.{replica}.{turn}", job, replica))
                    under_way.add(task)
                    task.add_done_callback(under_way.discard)

    async def _ask_again(self, stop: asyncio.Event) -> None:
        """Ask for unknown outcomes soon: a job remembers its latest request ids only."""
        turn = 0
        while not await _is_set_within(stop, ASK_AGAIN_AFTER_S):
            for request, job in list(self.unknown.items())[:INFLIGHT_MAX]:
                replicas = self._api.replicas
                turn += 1
                await self._submit(request, job, replicas[turn % len(replicas)])

    async def _submit(self, request: str, job: str, replica: str) -> None:
        self.asked += 1
        key = f"default/{job}"
        common = {"id": request, "client": f"client-{replica}", "op": "submit", "key": key}
        self._trace.emit("op", ph="invoke", value={}, **common)
        body = {"job": self._job(job), "request_id": request}
        phase, value, code = await self._call(replica, "/v1/jobs", body)
        self._trace.emit("op", ph=phase, value=value, code=code, **common)
        if phase == "ok":
            self.acknowledged.append((asyncio.get_running_loop().time(), value["index"]))
            self.unknown.pop(request, None)
        elif phase == "info":
            self.unknown[request] = job
        else:
            self.failed += 1

    def _job(self, name: str) -> dict[str, Any]:
        load = self._load
        return {
            "name": name,
            "kind": load.kind,
            "replicas": load.replicas,
            "command": list(load.command),
            "on_disconnect": load.on_disconnect,
            "terminationGracePeriodSeconds": load.grace,
        }

    async def _call(self, replica: str, path: str, body: dict[str, Any]) -> tuple[str, dict[str, Any], str]:
        """(phase, value, code) of one request."""
        try:
            answer = await self._api.ask(replica, path, body=body, timeout_s=self._timeout_s)
        except NotSent:
            return "fail", {}, "unreachable"
        except Unanswered as error:
            return "info", {}, error.code
        found = answer.document
        if not isinstance(found, dict):
            return "info", {}, "not-understood"
        if answer.status in (200, 201) and isinstance(found.get("index"), int):
            return "ok", {"index": found["index"], "version": found.get("version", 0)}, ""
        phase = "fail" if found.get("outcome") == "not-done" else "info"
        return phase, {}, str(found.get("code", answer.status))

    async def resolve_unknown(self) -> int:
        """Ask every unknown request again under its id; returns how many stay unknown."""
        try:
            async with asyncio.timeout(ASK_AGAIN_S):
                while self.unknown:
                    for request, job in list(self.unknown.items()):
                        for replica in self._api.replicas:
                            await self._submit(request, job, replica)
                            if request not in self.unknown:
                                break
        except TimeoutError:
            pass
        return len(self.unknown)

    async def stop_jobs(self) -> None:
        """Stop the jobs that this load made, so that nothing of it runs on."""
        for number in range(self._load.jobs if self._load.replicas else 0):
            path = f"/v1/jobs/default/{self._run}-{number}/stop"
            for replica in self._api.replicas:
                phase, _, _ = await self._call(replica, path, {"request_id": f"{self._run}.stop.{number}"})
                if phase == "ok":
                    break


async def _is_set_within(event: asyncio.Event, wait_s: float) -> bool:
    """Wait for the event, at most `wait_s`; whether it is set."""
    if wait_s > 0 and not event.is_set():
        try:
            async with asyncio.timeout(wait_s):
                await event.wait()
        except TimeoutError:
            return False
    return event.is_set()
