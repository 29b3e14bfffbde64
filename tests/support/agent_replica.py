"""The replica's half of a session, for tests of the agent: records what it hears, says what it is told to."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

from aiohttp import WSMsgType, web

from scheduler.session import (
    SESSION_PATH,
    AgentHello,
    Assignment,
    Desired,
    Frame,
    Heartbeat,
    HeartbeatConfirmed,
    LogsReply,
    LogsRequest,
    SessionAccepted,
    SessionMessage,
    SessionRefused,
    Status,
    StatusCommitted,
    StopOrder,
    decode_frame,
    encode_frame,
)

WAIT_S = 20.0
TOKEN = "a-link-token"


class ReplicaHalf:
    """One listening replica.  Switches: `confirms`, `commits`, `refusal`, `garbage`."""

    def __init__(self, name: str = "n1", cluster_id: str = "cluster-1") -> None:
        self.name = name
        self.cluster_id = cluster_id
        self.confirms = True
        self.commits = True
        self.refusal: SessionRefused | None = None
        self.index = 100
        self.assignments: list[Assignment] = []
        self.stops: list[StopOrder] = []
        self.hellos: list[AgentHello] = []
        self.beats: list[Heartbeat] = []
        self.statuses: list[Status] = []
        self.replies: list[LogsReply] = []
        self.goodbyes: list[str] = []
        self.closed = 0
        self.pushes_on_hello = True
        self.mute = False
        self.beaten_ns: list[int] = []
        """When each of `beats` arrived."""
        self.lease_ms = 0
        self.registration = 0
        self.unsure: tuple[tuple[str, int], ...] = ()
        self._socket: web.WebSocketResponse | None = None
        self._news = asyncio.Condition()
        self._runner: web.AppRunner | None = None
        self._log_ids = 0
        self.port = 0

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def connected(self) -> bool:
        return self._socket is not None

    async def open(self) -> ReplicaHalf:
        application = web.Application()
        application.router.add_get(SESSION_PATH, self._serve)
        self._runner = web.AppRunner(application, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self.port)
        await site.start()
        self.port = self._runner.addresses[0][1]
        return self

    async def close(self) -> None:
        if self._socket is not None:
            await self._socket.close()
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    async def push(self) -> None:
        """Send the present set."""
        self.index += 1
        sets = tuple(self.assignments), tuple(self.stops)
        await self.say(Desired(0, self.index, *sets, self.registration, self.unsure))

    async def say(self, body: SessionMessage) -> None:
        await self.say_bytes(encode_frame(Frame("", 0, 0, body)))

    async def say_bytes(self, data: bytes) -> None:
        assert self._socket is not None, "no agent is connected"
        await self._socket.send_bytes(data)

    async def read_logs(
        self, allocation: str, cursor: str = "", *, lines_max: int = 100, wait_ms: int = 0
    ) -> LogsReply:
        self._log_ids += 1
        wanted = self._log_ids
        await self.say(LogsRequest(wanted, allocation, cursor, lines_max, wait_ms))
        await self.until(lambda: any(reply.id == wanted for reply in self.replies))
        return next(reply for reply in self.replies if reply.id == wanted)

    async def until(self, holds: Callable[[], Any]) -> Any:
        """Wait until `holds()` is true; fails after `WAIT_S`."""
        async with asyncio.timeout(WAIT_S), self._news:
            await self._news.wait_for(holds)
        return holds()

    def reports(self, allocation: str | None = None) -> list[Any]:
        """Every report heard, repeated ones once."""
        found = {}
        for status in self.statuses:
            for report in status.reports:
                if allocation in (None, report.allocation):
                    found[(report.allocation, report.epoch, report.sequence)] = report
        return list(found.values())

    def state(self, allocation: str, epoch: int) -> str | None:
        """The last state heard of an attempt."""
        states = [report.state for report in self.reports(allocation) if report.epoch == epoch]
        return states[-1] if states else None

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        if request.headers.get("Authorization") != f"Bearer {TOKEN}":
            return web.json_response({"code": "bad-token"}, status=401)
        socket = web.WebSocketResponse(max_msg_size=4 << 20)
        await socket.prepare(request)
        try:
            async for message in socket:
                if message.type is not WSMsgType.BINARY:
                    break
                await self._hear(socket, decode_frame(message.data).body)
        finally:
            if self._socket is socket:
                self._socket = None
            self.closed += 1
            await self._tell()
        return socket

    async def _hear(self, socket: web.WebSocketResponse, body: SessionMessage) -> None:
        match body:
            case AgentHello():
                self.hellos.append(body)
                if self.mute:
                    await self._tell()
                    return
                if self.refusal is not None:
                    await socket.send_bytes(encode_frame(Frame("", 0, 0, self.refusal)))
                    await socket.close()
                    return
                self._socket = socket
                await self.say(SessionAccepted(self.cluster_id, self.name, self.name, self.lease_ms))
                if self.pushes_on_hello:
                    await self.push()
            case Heartbeat():
                self.beats.append(body)
                self.beaten_ns.append(time.clock_gettime_ns(time.CLOCK_BOOTTIME))
                if self.confirms:
                    await self.say(HeartbeatConfirmed(body.number, self.index, self.lease_ms, self.registration))
            case Status():
                self.statuses.append(body)
                if self.commits:
                    self.index += 1
                    await self.say(StatusCommitted(body.number, self.index))
            case LogsReply():
                self.replies.append(body)
            case _:
                self.goodbyes.append(getattr(body, "why", ""))
        await self._tell()

    async def _tell(self) -> None:
        async with self._news:
            self._news.notify_all()
