"""Open WebSockets of the direct transport, and what travels before they are open.

Owns: the words of the direct transport, the channel with its closing handshake.
Must not know: who dials or listens (`direct`, `direct_server`), what anybody says, links or faults.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Final

from msgspec import Struct

from chaos.sim.messages import MessageEnd
from cluster.network import BROKEN, NORMAL, Answer, ChannelClosed
from raft.errors import ProtocolViolation

OPENED: Final = Answer(101)
HEAD_BYTES: Final = 300
"""What a request's or an answer's head counts on a throttled line."""


class Asked(Struct, frozen=True):
    """What a dialer says first: a request, or with `upgrade` a knock.  Header names are in lower case."""

    method: str
    target: str
    headers: Mapping[str, str]
    body: bytes = b""
    upgrade: bool = False


class Begun(Struct, frozen=True):
    """An answer whose body follows in pieces, up to an empty one."""

    media: str
    headers: Mapping[str, str]


def lowered(headers: Mapping[str, str]) -> dict[str, str]:
    """Headers by name in lower case."""
    return {name.lower(): value for name, value in headers.items()}


class DirectChannel:
    """One end of an open WebSocket; satisfies `cluster.network.Channel`."""

    __slots__ = ("_close_s", "_closing", "_end", "_frame_bytes_max")

    def __init__(self, end: MessageEnd, frame_bytes_max: int, close_s: float) -> None:
        self._end = end
        self._frame_bytes_max = frame_bytes_max
        self._close_s = close_s
        self._closing = False

    async def send_bytes(self, data: bytes) -> None:
        """Send one message; waits while too much is unread.  Raises ChannelClosed."""
        end = self._end
        if end.closed:
            raise ChannelClosed(BROKEN, "ConnectionResetError")
        end.send(data, len(data))
        if end.congested:
            try:
                await end.drain()
            except ConnectionError:
                raise ChannelClosed(BROKEN, "ConnectionResetError") from None

    async def receive(self) -> bytes:
        """The next message; raises ChannelClosed or ProtocolViolation."""
        end = self._end
        while not end.inbox or self._closing:
            if self._closing:
                raise ChannelClosed(NORMAL, "closed by this side")
            if end.ended:
                raise self._end_of(end)
            await end.wait()
        data: bytes = end.take()
        if len(data) > self._frame_bytes_max:
            raise ProtocolViolation(f"a message of {len(data)} bytes, over {self._frame_bytes_max}")
        return data

    async def close(self, reason: str = "") -> None:
        """Say that this is the end, and wait for the other side's word; whoever receives meanwhile hears of the end."""
        end = self._end
        if end.closed or self._closing:
            return
        self._closing = True
        end.finish((NORMAL, reason[:100]))
        try:
            async with asyncio.timeout(self._close_s):
                await end.dismiss()
                while not end.ended:
                    if end.inbox:
                        end.take()
                    else:
                        await end.wait()
        except TimeoutError:
            pass  # it does not answer
        end.close()

    def cut(self) -> None:
        """End now."""
        self._end.abort()

    async def hang_up(self) -> None:
        """End now; nothing is left to be released."""
        self._end.abort()

    def _end_of(self, end: MessageEnd) -> ChannelClosed:
        """Why there is no more; answers an orderly close."""
        if end.error is None and end.close_code is not None:
            code, reason = end.close_code
            end.close((code, ""))
            return ChannelClosed(code, reason)
        end.close()
        return ChannelClosed(BROKEN, "" if end.error is None else type(end.error).__name__)
