"""What the processes of a cluster need of a network, as protocols.

Owns: the seam between what is said over WebSockets and HTTP and what carries it, and the errors of that seam.
Must not know: an implementation (`cluster.aiohttp_network` is the real one), or what anybody says.

Every wait is the caller's to bound, with ``asyncio.timeout``; the methods themselves may wait for ever.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Protocol

from msgspec import Struct

NORMAL, GOING_AWAY, BROKEN = 1000, 1001, 1006
"""Codes of RFC 6455: closed in order, closed because the process ends, ended without a word."""


class ChannelClosed(ConnectionError):
    """A channel has ended; `code` is of RFC 6455, `reason` what the other side said."""

    def __init__(self, code: int = BROKEN, reason: str = "") -> None:
        super().__init__(f"closed ({reason or code})")
        self.code = code
        self.reason = reason


class DialFailed(ConnectionError):
    """Nobody answered as a server should; the text is short, for logs and trace."""


class DialRefused(ConnectionError):
    """The upgrade was answered with another HTTP answer."""

    def __init__(self, status: int, headers: Mapping[str, str]) -> None:
        super().__init__(f"HTTP {status}")
        self.status = status
        self._headers = {name.lower(): value for name, value in headers.items()}

    def header(self, name: str) -> str:
        """A header of the answer; "" if it is not there."""
        return self._headers.get(name.lower(), "")


class NotAnUpgrade(ConnectionError):
    """The request does not ask for a WebSocket."""


class Channel(Protocol):
    """Either end of one WebSocket.  One task sends and one receives at a time."""

    async def send_bytes(self, data: bytes) -> None:
        """Send one message; waits while too much is unsent.  Raises ConnectionError."""
        ...

    async def receive(self) -> bytes:
        """The next binary message.

        Raises:
            ChannelClosed: there will be no more.
            ProtocolViolation: the other side sent what no frame of ours is: text, a broken frame, one too large.
        """
        ...

    async def close(self, reason: str = "") -> None:
        """End in order: says so, and waits for the other side a little."""
        ...

    def cut(self) -> None:
        """End now, whatever waits in buffers; `hang_up` tidies up after it."""
        ...

    async def hang_up(self) -> None:
        """Cut, and release what the channel holds; never raises, and takes a second at most."""
        ...


class Answer(Struct, frozen=True):
    """A complete HTTP answer; `media` is its Content-Type."""

    status: int
    body: bytes = b""
    media: str = "application/json"
    headers: Mapping[str, str] = {}


class Outflow(Protocol):
    """The body of an answer that is sent piece by piece."""

    async def write(self, data: bytes) -> None:
        """Send a piece; waits while too much is unsent.  Raises ConnectionError."""
        ...

    async def end(self) -> None:
        """It is complete.  Raises ConnectionError."""
        ...


class Request(Protocol):
    """One HTTP request whose head has been read."""

    @property
    def method(self) -> str:
        """In upper case."""
        ...

    @property
    def path(self) -> str:
        """Percent-encoded, without the query."""
        ...

    @property
    def query(self) -> Sequence[tuple[str, str]]:
        """Names and values in order, decoded."""
        ...

    @property
    def length(self) -> int | None:
        """Bytes of the body, if the head says so."""
        ...

    def header(self, name: str) -> str:
        """A header; "" if it is not there."""
        ...

    def body(self) -> AsyncIterator[bytes]:
        """The body as it arrives."""
        ...

    async def begin(self, *, media: str, headers: Mapping[str, str], length: int | None = None) -> Outflow:
        """Answer 200 with a body that follows piece by piece, of `length` bytes if that is known."""
        ...

    def abort(self) -> None:
        """End the connection now: whoever asked sees the answer end before its time."""
        ...


class Application(Protocol):
    """What answers HTTP requests."""

    async def answer(self, request: Request) -> Answer | None:
        """Answer one request; None when it went out by `Request.begin`."""
        ...


class Knock(Protocol):
    """A request to open a WebSocket, not answered yet."""

    @property
    def remote(self) -> str | None:
        """Address of who knocks, for logs."""
        ...

    def header(self, name: str) -> str:
        """A header of the request; "" if it is not there."""
        ...

    async def accept(self, *, frame_bytes_max: int, close_s: float) -> Channel:
        """Open it.  Raises NotAnUpgrade, or another ConnectionError when the dialer has given up meanwhile."""
        ...


OnKnock = Callable[[Knock], Awaitable[Answer | None]]
"""Answers one knock; after it accepted and served the channel to its end, what it answers does not matter."""


class Client(Protocol):
    """What one process opens connections with."""

    async def dial(
        self, address: str, path: str, *, headers: Mapping[str, str], frame_bytes_max: int, close_s: float
    ) -> Channel:
        """Open a WebSocket at ``host:port``.

        Args:
            address: whom.
            path: of the upgrade request.
            headers: of the upgrade request.
            frame_bytes_max: a larger message from the other side is a violation.
            close_s: how long an orderly end waits for the other side.

        Raises:
            DialRefused: another HTTP answer came.
            DialFailed: no connection.
        """
        ...

    async def call(
        self, address: str, method: str, target: str, *, headers: Mapping[str, str], body: bytes | None = None
    ) -> Answer:
        """Make one HTTP request at ``host:port`` and take its whole answer.

        Args:
            address: whom.
            method: in upper case.
            target: path and query, percent-encoded.
            headers: of the request.
            body: JSON, or None.

        Raises:
            DialFailed: it was certainly not sent.
            ConnectionError: nobody knows whether it arrived.
        """
        ...


class ListenLimits(Struct, frozen=True):
    """Bounds of one listening port."""

    connections_max: int = 1024
    header_timeout_s: float = 10.0
    """A connection without a complete request head is cut after this long."""
    idle_timeout_s: float = 75.0
    """A kept-alive connection between requests is cut after this long."""
    line_bytes_max: int = 8190
    header_bytes_max: int = 8190
    headers_max: int = 64


class Listening(Protocol):
    """A port that is served."""

    @property
    def address(self) -> str:
        """``host:port`` with the port that it became."""
        ...

    async def close(self) -> None:
        """Stop listening, end every connection."""
        ...


class Network(Protocol):
    """The network as one process has it."""

    def client(self, *, connections_max: int = 0, reuse: bool = True) -> AbstractAsyncContextManager[Client]:
        """Outgoing connections, closed at the end of the context.

        Args:
            connections_max: open at once; 0 = as many as are asked for.
            reuse: keep a connection whose WebSocket was refused for the next request to the same address.
        """
        ...

    async def listen(
        self,
        address: str,
        *,
        key: str,
        sockets: Mapping[str, OnKnock] | None = None,
        api: Application | None = None,
        limits: ListenLimits | None = None,
    ) -> Listening:
        """Serve a port; port 0 lets the machine choose.

        Args:
            address: ``host:port``.
            key: the setting that the address comes from, for the errors.
            sockets: who answers knocks, by path.
            api: who answers everything else.
            limits: bounds of the port.

        Raises:
            PortInUse, ListenFailed: see `cluster.errors`.
        """
        ...
