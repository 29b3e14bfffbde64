"""An agent as the replicas see it: speaks the session protocol, runs nothing."""

from __future__ import annotations

import asyncio
import secrets
from typing import Any

import aiohttp

from scheduler.commands import AllocationStatus
from scheduler.model import Capacity, Exit
from scheduler.session import (
    PROTOCOL_VERSION,
    AgentHello,
    Assignment,
    Desired,
    Frame,
    Goodbye,
    Heartbeat,
    HeartbeatConfirmed,
    LogLine,
    LogsReply,
    LogsRequest,
    SessionAccepted,
    SessionRefused,
    Status,
    StatusCommitted,
    StopOrder,
    decode_frame,
    encode_frame,
)


class Refused(Exception):
    def __init__(self, refusal: SessionRefused) -> None:
        super().__init__(refusal.code)
        self.refusal = refusal


class FakeAgent:
    """One node.  `desired` and `stops` are what the replica sent last, by (allocation, epoch)."""

    def __init__(self, node: str, *, cpu: int = 1000, memory: int = 1 << 30, pids: int = 10_000) -> None:
        self.node = node
        self.capacity = Capacity(cpu, memory, pids)
        self.incarnation = secrets.token_hex(4)
        self.boot_id = "boot-1"
        self.cluster_id = ""
        self.replica = ""
        self.index = 0
        self.desired: dict[tuple[str, int], Assignment] = {}
        self.stops: dict[tuple[str, int], StopOrder] = {}
        self.confirmed = 0
        self.committed = 0
        self.goodbye = ""
        self.lines: dict[str, list[str]] = {}
        self._sequence = 0
        self._number = 0
        self._news = asyncio.Condition()
        self._http: aiohttp.ClientSession | None = None
        self._ws: aiohttp.ClientWebSocketResponse | None = None
        self._reader: asyncio.Task[None] | None = None

    async def connect(self, port: int, token: str, **changes: Any) -> SessionAccepted:
        """Dial, say hello, wait to be accepted; raises Refused."""
        self._http = self._http or aiohttp.ClientSession()
        self._ws = await self._http.ws_connect(
            f"http://127.0.0.1:{port}/v1/agents", headers={"Authorization": f"Bearer {token}"}, max_msg_size=8 << 20
        )
        hello: dict[str, Any] = {
            "protocol": PROTOCOL_VERSION,
            "node": self.node,
            "incarnation": self.incarnation,
            "boot_id": self.boot_id,
            "cluster_id": self.cluster_id,
            "capacity": self.capacity,
            "isolation": "none",
            "isolation_why": "a test",
            "address": "127.0.0.1",
        }
        await self.send(AgentHello(**(hello | changes)))
        async with asyncio.timeout(15):
            answer = await self._receive()
        if isinstance(answer, SessionRefused):
            raise Refused(answer)
        assert isinstance(answer, SessionAccepted), answer
        self.cluster_id, self.replica = answer.cluster_id, answer.replica
        self._reader = asyncio.create_task(self._read())
        return answer

    async def close(self) -> None:
        if self._reader is not None:
            self._reader.cancel()
            await asyncio.gather(self._reader, return_exceptions=True)
        if self._ws is not None:
            await self._ws.close()
        if self._http is not None:
            await self._http.close()
            self._http = None

    async def send(self, body: Any) -> None:
        assert self._ws is not None
        await self._ws.send_bytes(encode_frame(Frame("", 0, 0, body)))

    async def send_raw(self, data: bytes) -> None:
        assert self._ws is not None
        await self._ws.send_bytes(data)

    async def beat(self, number: int) -> None:
        await self.send(Heartbeat(number, {}, (5_000, 6_000)))

    async def wait(self, probe: Any, timeout_s: float = 10.0) -> Any:
        """Wait until `probe(self)` says something true."""
        async with asyncio.timeout(timeout_s), self._news:
            while not (found := probe(self)):
                await self._news.wait()
            return found

    async def report(self, key: tuple[str, int], state: str, exit_code: int | None = None) -> None:
        """Report and wait until it is committed."""
        self._sequence += 1
        end = None if state == "running" else Exit(exit_code, None, "exited", exit_code is not None)
        report = AllocationStatus(key[0], key[1], self._sequence, state, 4242, "cg/" + key[0], end)
        await self.status((report,))

    async def status(self, reports: tuple[AllocationStatus, ...], unknown: tuple[tuple[str, int], ...] = ()) -> None:
        self._number += 1
        number = self._number
        await self.send(Status(number, self.index, reports, unknown))
        await self.wait(lambda agent: agent.committed >= number)

    async def _receive(self) -> Any:
        assert self._ws is not None
        message = await self._ws.receive()
        if message.type is not aiohttp.WSMsgType.BINARY:
            return None
        return decode_frame(message.data).body

    async def _read(self) -> None:
        while (body := await self._receive()) is not None:
            async with self._news:
                await self._take(body)
                self._news.notify_all()
        async with self._news:
            self.goodbye = self.goodbye or "closed"
            self._news.notify_all()

    async def _take(self, body: Any) -> None:
        match body:
            case Desired():
                self.index = body.index
                self.desired = {(one.allocation, one.epoch): one for one in body.assignments}
                self.stops = {(one.allocation, one.epoch): one for one in body.stops}
            case HeartbeatConfirmed():
                self.confirmed = body.number
            case StatusCommitted():
                self.committed = body.number
            case LogsRequest():
                await self.send(self._output(body))
            case Goodbye():
                self.goodbye = body.why
            case SessionRefused():
                self.goodbye = body.code

    def _output(self, request: LogsRequest) -> LogsReply:
        first = int(request.cursor or 0)
        texts = self.lines.get(request.allocation, [])[first : first + request.lines_max]
        lines = tuple(LogLine(float(first + i), "stdout", text) for i, text in enumerate(texts))
        return LogsReply(request.id, lines, str(first + len(texts)), False, "")
