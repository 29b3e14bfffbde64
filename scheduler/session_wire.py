"""One agent's WebSocket: frames in and out, with their trace.

Owns: encoding, clocks, time-outs and closing.  Must not know: what a message means.
"""

from __future__ import annotations

import asyncio
from typing import Any, Protocol

import msgspec

from cluster.network import Channel, ChannelClosed
from raft.errors import ProtocolViolation
from scheduler.session import (
    Frame,
    Goodbye,
    Heartbeat,
    HeartbeatConfirmed,
    SessionMessage,
    SessionRefused,
    decode_frame,
    encode_frame,
)

SEND_S = 5.0
"""An agent that takes no bytes for this long loses its session."""
CLOSE_S = 1.0


class Trace(Protocol):
    """What is needed of `cluster.trace.Tracer`."""

    incarnation: str
    heartbeat_sample: int

    def emit(self, kind: str, /, **fields: Any) -> str:
        """Record one event."""
        ...

    def stamp_send(self) -> tuple[str, int, int]:
        """Message id and clocks."""
        ...

    def observe(self, lc: int, hlc: int) -> None:
        """Merge clocks."""
        ...


class SessionLost(Exception):
    """The WebSocket is gone, or takes nothing; the session is over."""


class BadFrame(Exception):
    """The agent sent what no agent sends."""


class SessionWire:
    """Frames of one session.

    A heartbeat outside the trace's sample comes without an id, and its confirmation goes
    without one: neither is traced.

    Args:
        channel: accepted.
        trace: of this process.
        peer: the node, once it said who it is.
    """

    def __init__(self, channel: Channel, trace: Trace, peer: str = "?") -> None:
        self.peer = peer
        self._channel = channel
        self._trace = trace
        self._traced_heartbeat = 0

    async def send(self, body: SessionMessage) -> None:
        """Send one message; raises SessionLost."""
        message, lamport, hybrid = self._trace.stamp_send()
        traced = not isinstance(body, HeartbeatConfirmed) or body.number == self._traced_heartbeat
        data = encode_frame(Frame(message if traced else "", lamport, hybrid, body))
        if traced:
            self._trace.emit("send", m=message, to=self.peer, type=kind_of(body), bytes=len(data))
        try:
            async with asyncio.timeout(SEND_S):
                await self._channel.send_bytes(data)
        except (TimeoutError, ConnectionError) as error:
            await self.close("send-failed")
            raise SessionLost(f"{self.peer} takes no data: {error!r}") from None

    async def receive(self, timeout_s: float) -> SessionMessage | None:
        """The next message; None when the agent closed.

        Raises:
            TimeoutError: nothing came.
            BadFrame: not a frame of this protocol.
        """
        try:
            async with asyncio.timeout(timeout_s):
                data = await self._channel.receive()
        except ChannelClosed:
            return None
        except ProtocolViolation as error:
            raise BadFrame(error.message) from None
        try:
            frame = decode_frame(data)
        except (msgspec.DecodeError, msgspec.ValidationError, ValueError) as error:
            raise BadFrame(str(error)) from None
        self._trace.observe(frame.lc, frame.hlc)
        if frame.m:
            if isinstance(frame.body, Heartbeat):
                self._traced_heartbeat = frame.body.number
            self.peer = getattr(frame.body, "node", self.peer)
            size = len(data)
            self._trace.emit("recv", m=frame.m, fr=self.peer, type=kind_of(frame.body), bytes=size)
        return frame.body

    async def refuse(self, code: str, message: str, hint: str) -> None:
        """Tell why the session ends, and close."""
        await self._last(SessionRefused(code, message, hint), code)

    async def goodbye(self, why: str) -> None:
        """End in order."""
        await self._last(Goodbye(why), why)

    async def close(self, why: str) -> None:
        """Close without a word."""
        try:
            async with asyncio.timeout(CLOSE_S):
                await self._channel.close(why)
        except (TimeoutError, ConnectionError):
            pass

    async def _last(self, body: SessionMessage, why: str) -> None:
        try:
            await self.send(body)
        except SessionLost:
            return
        await self.close(why)


def kind_of(body: SessionMessage) -> str:
    """Name of a message's type."""
    return type(body).__name__
