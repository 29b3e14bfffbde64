"""The real network: WebSockets of aiohttp over TCP.

Owns: what aiohttp calls things, and its failures in our words.  Must not know: what anybody says.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
from aiohttp import web
from yarl import URL

from cluster.network import (
    BROKEN,
    NORMAL,
    Answer,
    Application,
    ChannelClosed,
    DialFailed,
    DialRefused,
    ListenLimits,
    NotAnUpgrade,
    OnKnock,
)
from cluster.sockets import Listener, listen, response_of
from raft.errors import ProtocolViolation

HANG_UP_S = 1.0
DNS_CACHE_S = 2
_ENDINGS = (aiohttp.WSMsgType.CLOSING, aiohttp.WSMsgType.CLOSED)


class SocketChannel:
    """One WebSocket; satisfies `cluster.network.Channel`.

    Args:
        ws: open; either end.
        cut: ends its connection at once.
    """

    __slots__ = ("_cut", "_ws")

    def __init__(self, ws: aiohttp.ClientWebSocketResponse | web.WebSocketResponse, cut: Callable[[], None]) -> None:
        self._ws = ws
        self._cut = cut

    async def send_bytes(self, data: bytes) -> None:
        """Send one message; raises ConnectionError."""
        try:
            await self._ws.send_bytes(data)
        except (aiohttp.ClientError, OSError, RuntimeError) as error:
            raise ChannelClosed(BROKEN, type(error).__name__) from None

    async def receive(self) -> bytes:
        """The next binary message; raises ChannelClosed or ProtocolViolation."""
        try:
            message = await self._ws.receive()
        except (aiohttp.ClientError, OSError) as error:
            raise ChannelClosed(BROKEN, words(error)) from None
        if message.type is aiohttp.WSMsgType.BINARY:
            data: bytes = message.data
            return data
        raise self._no_frame(message)

    async def close(self, reason: str = "") -> None:
        """End in order."""
        try:
            await self._ws.close(message=reason.encode()[:100])
        except (aiohttp.ClientError, OSError, RuntimeError):
            self._cut()

    def cut(self) -> None:
        """End at the socket, whatever waits in buffers."""
        self._cut()

    async def hang_up(self) -> None:
        """End even when the other side reads nothing: the socket first, then the object."""
        self._cut()
        try:
            async with asyncio.timeout(HANG_UP_S):
                await self.close()
        except TimeoutError:
            return  # the cancelled close() has dropped the connection

    def _no_frame(self, message: aiohttp.WSMessage) -> Exception:
        """What a message that is no binary one means."""
        if message.type is aiohttp.WSMsgType.CLOSE:
            return ChannelClosed(message.data or NORMAL, message.extra or "")
        if message.type in _ENDINGS:
            return ChannelClosed(self._ws.close_code or BROKEN)
        if message.type is aiohttp.WSMsgType.ERROR and not isinstance(message.data, aiohttp.WebSocketError):
            return ChannelClosed(BROKEN, type(message.data).__name__)
        return ProtocolViolation(f"unexpected {message.type.name.lower()} message: {message.data!r:.100}")


class SocketClient:
    """Outgoing connections; satisfies `cluster.network.Client`."""

    def __init__(self, session: aiohttp.ClientSession) -> None:
        self._session = session

    async def dial(
        self, address: str, path: str, *, headers: Mapping[str, str], frame_bytes_max: int, close_s: float
    ) -> SocketChannel:
        """Open a WebSocket; raises DialRefused or DialFailed."""
        try:
            ws = await self._session.ws_connect(
                f"http://{address}{path}",
                headers=headers,
                max_msg_size=frame_bytes_max,
                compress=0,
                timeout=aiohttp.ClientWSTimeout(ws_close=close_s),
            )
        except aiohttp.WSServerHandshakeError as error:
            raise DialRefused(error.status, error.headers or {}) from None
        except TimeoutError:
            raise
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise DialFailed(words(error)) from None
        return SocketChannel(ws, lambda: _shut(ws))

    async def call(
        self, address: str, method: str, target: str, *, headers: Mapping[str, str], body: bytes | None = None
    ) -> Answer:
        """Make one request; raises DialFailed or another ConnectionError."""
        media = {"Content-Type": "application/json"} if body is not None else {}
        url = URL(f"http://{address}{target}", encoded=True)
        try:
            async with self._session.request(method, url, headers={**headers, **media}, data=body) as response:
                data = await response.read()
                return Answer(response.status, data, response.headers.get("Content-Type", ""), dict(response.headers))
        except aiohttp.ClientConnectorError as error:
            raise DialFailed(words(error)) from None
        except (aiohttp.ClientError, OSError, ValueError) as error:
            if isinstance(error, TimeoutError):
                raise
            raise ConnectionError(words(error)) from None


class SocketKnock:
    """An upgrade request; satisfies `cluster.network.Knock`."""

    def __init__(self, request: web.Request) -> None:
        self.response: web.WebSocketResponse | None = None
        self._request = request

    @property
    def remote(self) -> str | None:
        """The dialer's IP address."""
        return self._request.remote

    def header(self, name: str) -> str:
        """A header of the request; "" if it is not there."""
        return self._request.headers.get(name, "")

    async def accept(self, *, frame_bytes_max: int, close_s: float) -> SocketChannel:
        """Open it; raises NotAnUpgrade or another ConnectionError."""
        ws = web.WebSocketResponse(max_msg_size=frame_bytes_max, compress=False, autoping=True, timeout=close_s)
        if not ws.can_prepare(self._request).ok:
            raise NotAnUpgrade("not a WebSocket upgrade")
        await ws.prepare(self._request)
        self.response = ws
        return SocketChannel(ws, self._abort)

    def _abort(self) -> None:
        if self._request.transport is not None:
            self._request.transport.abort()


class SocketOutflow:
    """The body of an answer in pieces; satisfies `cluster.network.Outflow`."""

    def __init__(self, response: web.StreamResponse) -> None:
        self._response = response

    async def write(self, data: bytes) -> None:
        """Send a piece; raises ConnectionError."""
        await self._response.write(data)

    async def end(self) -> None:
        """It is complete; raises ConnectionError."""
        await self._response.write_eof()


class SocketRequest:
    """An HTTP request; satisfies `cluster.network.Request`."""

    def __init__(self, request: web.Request) -> None:
        self.response: web.StreamResponse | None = None
        self.method = request.method
        self._request = request

    @property
    def path(self) -> str:
        """Percent-encoded."""
        return self._request.rel_url.raw_path

    @property
    def query(self) -> Sequence[tuple[str, str]]:
        """Names and values, decoded."""
        return list(self._request.query.items())

    @property
    def length(self) -> int | None:
        """Content-Length."""
        return self._request.content_length

    def header(self, name: str) -> str:
        """A header; "" if it is not there."""
        return self._request.headers.get(name, "")

    def body(self) -> AsyncIterator[bytes]:
        """The body as it arrives."""
        return aiter(self._request.content.iter_any())

    async def begin(self, *, media: str, headers: Mapping[str, str], length: int | None = None) -> SocketOutflow:
        """Answer 200, the body follows."""
        response = web.StreamResponse(headers={"Content-Type": media, **headers})
        if length is not None:
            response.content_length = length
        await response.prepare(self._request)
        self.response = response
        return SocketOutflow(response)

    def abort(self) -> None:
        """End the connection."""
        if self._request.transport is not None:
            self._request.transport.abort()


class AiohttpNetwork:
    """TCP of this machine; satisfies `cluster.network.Network`."""

    @asynccontextmanager
    async def client(self, *, connections_max: int = 0, reuse: bool = True) -> AsyncIterator[SocketClient]:
        """Outgoing connections."""
        async with aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=connections_max, ttl_dns_cache=DNS_CACHE_S, force_close=not reuse),
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=None),
        ) as session:
            yield SocketClient(session)

    async def listen(
        self,
        address: str,
        *,
        key: str,
        sockets: Mapping[str, OnKnock] | None = None,
        api: Application | None = None,
        limits: ListenLimits | None = None,
    ) -> Listener:
        """Serve a port; raises PortInUse or ListenFailed."""
        app = web.Application()
        for path, on_knock in (sockets or {}).items():
            app.router.add_get(path, knocking(on_knock))
        if api is not None:
            app.router.add_route("*", "/{everything:.*}", asking(api))
        return await listen(app, address, key=key, limits=limits)


def knocking(on_knock: OnKnock) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    """Who answers knocks, as a handler of aiohttp's."""

    async def handle(request: web.Request) -> web.StreamResponse:
        knock = SocketKnock(request)
        answer = await on_knock(knock)
        if knock.response is not None:
            return knock.response
        assert answer is not None, "who gives no answer has accepted"
        return response_of(answer)

    return handle


def asking(api: Application) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    """Who answers requests, as a handler of aiohttp's."""

    async def handle(request: web.Request) -> web.StreamResponse:
        asked = SocketRequest(request)
        answer = await api.answer(asked)
        if asked.response is not None:
            return asked.response
        assert answer is not None, "who gives no answer has begun one"
        return response_of(answer)

    return handle


def words(error: BaseException) -> str:
    """A short reason for logs and trace; never contains headers."""
    if isinstance(error, aiohttp.ClientConnectorError | ConnectionRefusedError):
        cause = error.os_error if isinstance(error, aiohttp.ClientConnectorError) else error
        return cause.strerror.lower() if cause.strerror and "[" not in cause.strerror else "connect failed"
    return type(error).__name__


def _shut(ws: aiohttp.ClientWebSocketResponse) -> None:
    """End a connection at its socket."""
    sock: Any = ws.get_extra_info("socket")
    if sock is None:
        return
    try:
        with socket.socket(fileno=os.dup(sock.fileno())) as twin:
            twin.shutdown(socket.SHUT_RDWR)
    except OSError:
        return  # it has ended already
