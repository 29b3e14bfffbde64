"""The direct transport: channels of `cluster.network` over message connections, without HTTP.

Owns: the knock and its answer, closing handshakes, and failures in the words of `cluster.network`.
Must not know: what anybody says; links, faults and lives (`net`, `pipes`, `lives`).

What aiohttp would do is done here in kind: a knock is one message there and an answer back, a refused knock is a whole
answer, a closing side waits for the other's close, a server that ends waits a second for who it serves.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Final

from msgspec import Struct

from chaos.sim.messages import MessageEnd, dial, listen
from chaos.sim.net import Listener
from chaos.sim.net import Network as Wires
from cluster.errors import PortInUse
from cluster.network import (
    BROKEN,
    NORMAL,
    Answer,
    ChannelClosed,
    DialFailed,
    DialRefused,
    ListenLimits,
    OnKnock,
)
from cluster.sockets import join_address, split_address
from raft.errors import ProtocolViolation

SHUTDOWN_S: Final = 1.0
OPENED: Final = Answer(101)
NOT_FOUND: Final = Answer(404)
FAILED: Final = Answer(500)


class Request(Struct, frozen=True):
    """What a dialer asks for; header names in lower case."""

    path: str
    headers: Mapping[str, str]


class DirectChannel:
    """One end of an open WebSocket; satisfies `cluster.network.Channel`."""

    __slots__ = ("_close_s", "_end", "_frame_bytes_max")

    def __init__(self, end: MessageEnd, frame_bytes_max: int, close_s: float) -> None:
        self._end = end
        self._frame_bytes_max = frame_bytes_max
        self._close_s = close_s

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
        while not end.inbox:
            if end.ended:
                raise self._end_of(end)
            await end.wait()
        data: bytes = end.take()
        if len(data) > self._frame_bytes_max:
            raise ProtocolViolation(f"a message of {len(data)} bytes, over {self._frame_bytes_max}")
        return data

    async def close(self, reason: str = "") -> None:
        """Say that this is the end, and wait for the other side's word."""
        end = self._end
        if end.closed:
            return
        end.finish((NORMAL, reason[:100]))
        try:
            async with asyncio.timeout(self._close_s):
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


class DirectKnock:
    """An upgrade request; satisfies `cluster.network.Knock`."""

    def __init__(self, end: MessageEnd, request: Request) -> None:
        self.accepted = False
        self._end = end
        self._request = request

    @property
    def remote(self) -> str | None:
        """The dialer's address."""
        return self._end.remote[0]

    def header(self, name: str) -> str:
        """A header of the request; "" if it is not there."""
        return self._request.headers.get(name.lower(), "")

    async def accept(self, *, frame_bytes_max: int, close_s: float) -> DirectChannel:
        """Open it; raises ConnectionError when the dialer has given up."""
        self._end.send(OPENED, 200)
        self.accepted = True
        return DirectChannel(self._end, frame_bytes_max, close_s)


class DirectClient:
    """Outgoing connections of one process; satisfies `cluster.network.Client`."""

    def __init__(self, wires: Wires) -> None:
        self._wires = wires

    async def dial(
        self, address: str, path: str, *, headers: Mapping[str, str], frame_bytes_max: int, close_s: float
    ) -> DirectChannel:
        """Open a WebSocket; raises DialRefused or DialFailed."""
        host, port = split_address(address)
        end: MessageEnd | None = None
        try:
            end = await dial(self._wires, host, port)
            request = Request(path, {name.lower(): value for name, value in headers.items()})
            end.send(request, 300)
            answer: Answer = await end.receive()
        except EOFError:
            raise DialFailed("ServerDisconnectedError") from None
        except TimeoutError:
            raise
        except OSError as error:
            raise DialFailed(error.strerror.lower() if error.strerror else type(error).__name__) from None
        except asyncio.CancelledError:
            if end is not None:
                end.abort()
            raise
        if answer is not OPENED:
            end.close()
            raise DialRefused(answer.status, answer.headers)
        return DirectChannel(end, frame_bytes_max, close_s)


class DirectListening:
    """A port that is served; satisfies `cluster.network.Listening`."""

    def __init__(self, wires: Wires, host: str, sockets: Mapping[str, OnKnock], limits: ListenLimits) -> None:
        self.address = ""
        self._wires = wires
        self._host = host
        self._sockets = sockets
        self._limits = limits
        self._listener: Listener | None = None
        self._serving: dict[asyncio.Task[None], MessageEnd] = {}

    def open(self, port: int) -> None:
        """Bind; raises OSError."""
        self._listener = listen(self._wires, port, self._take)
        self.address = join_address(self._host, self._listener.port)

    async def close(self) -> None:
        """Stop listening, end every connection."""
        if self._listener is not None:
            self._listener.close()
        for end in self._serving.values():
            end.abort()
        tasks = list(self._serving)
        if tasks:
            await asyncio.wait(tasks, timeout=SHUTDOWN_S)
        for task in tasks:
            task.cancel()

    def _take(self, end: MessageEnd) -> None:
        """A connection stands."""
        if len(self._serving) >= self._limits.connections_max:
            end.abort()
            return
        task = asyncio.get_running_loop().create_task(self._serve(end))
        self._serving[task] = end
        task.add_done_callback(self._serving.pop)

    async def _serve(self, end: MessageEnd) -> None:
        try:
            async with asyncio.timeout(self._limits.header_timeout_s):
                request: Request = await end.receive()
        except (TimeoutError, EOFError, ConnectionError):
            end.abort()
            return
        knock = DirectKnock(end, request)
        answer = await self._answer(knock, request)
        if knock.accepted:
            end.close((NORMAL, ""))
        elif not end.closed:
            end.send(answer, 200)
            end.close()

    async def _answer(self, knock: DirectKnock, request: Request) -> Answer:
        on_knock = self._sockets.get(request.path)
        if on_knock is None:
            return NOT_FOUND
        try:
            return await on_knock(knock) or FAILED
        except Exception as error:
            message = f"a handler of {request.path} failed"
            asyncio.get_running_loop().call_exception_handler({"message": message, "exception": error})
            return FAILED


class DirectNetwork:
    """The network as one process has it; satisfies `cluster.network.Network`."""

    def __init__(self, wires: Wires) -> None:
        self._wires = wires

    @asynccontextmanager
    async def client(self, *, connections_max: int = 0, reuse: bool = True) -> AsyncIterator[DirectClient]:
        """Outgoing connections."""
        yield DirectClient(self._wires)

    async def listen(
        self, address: str, *, sockets: Mapping[str, OnKnock], key: str, limits: ListenLimits | None = None
    ) -> DirectListening:
        """Serve a port; raises PortInUse."""
        host, port = split_address(address, key)
        listening = DirectListening(self._wires, host, sockets, limits or ListenLimits())
        try:
            listening.open(port)
        except OSError as error:
            raise PortInUse(
                f"port {port} ({key} = {address}) is in use: {error}", hint="free it", key=key, address=address
            ) from None
        return listening
