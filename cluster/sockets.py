"""Listening with limits.

Owns: addresses, the errors of binding, connection limits, and time-outs of connections that send no request.
Must not know: routes or what is said over a connection, beyond a problem document for what no route takes.
"""

from __future__ import annotations

import asyncio
import errno
import os
from typing import Any, cast

from aiohttp import web

from cluster.errors import BadRequest, BodyTooLarge, ConfigError, ListenFailed, MethodNotAllowed, NotFound, PortInUse
from cluster.network import Answer, ListenLimits
from cluster.problems import problem_answer, problem_of
from raft.errors import SkerryError

SWEEP_S = 0.5


def split_address(address: str, key: str = "address") -> tuple[str, int]:
    """``host:port`` or ``[v6]:port`` as a pair; "" before the colon is all interfaces.  Raises ConfigError."""
    host, colon, port = address.rpartition(":")
    if not colon or not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise ConfigError(f"{key} = {address!r} is not host:port", hint="write it as 127.0.0.1:7101", key=key)
    return host.removeprefix("[").removesuffix("]"), int(port)


def join_address(host: str, port: int) -> str:
    """Inverse of `split_address`."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def response_of(answer: Answer) -> web.Response:
    """An answer as aiohttp's."""
    headers = dict(answer.headers)
    if answer.media:
        headers["Content-Type"] = answer.media
    return web.Response(body=answer.body, status=answer.status, headers=headers)


def error_of(failure: web.HTTPException, request: web.Request) -> SkerryError:
    """What aiohttp itself refuses, as an error of ours."""
    if isinstance(failure, web.HTTPNotFound):
        return NotFound(f"nothing is at {request.path[:200]}", hint="GET /openapi.json of the API lists its paths")
    if isinstance(failure, web.HTTPMethodNotAllowed):
        allowed = ", ".join(sorted(failure.allowed_methods))
        return MethodNotAllowed(f"{request.method} is not for {request.path[:200]}", hint=f"use {allowed}")
    if isinstance(failure, web.HTTPRequestEntityTooLarge):
        return BodyTooLarge("the body is too large", hint="send less")
    return BadRequest(failure.reason, hint="correct the request")


class _Refuser(asyncio.Protocol):
    """Closes a connection that is one too many."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        cast(asyncio.WriteTransport, transport).abort()  # uvloop's transports derive from none of asyncio's


class Listener:
    """A port that serves an application, within limits; made by `listen`."""

    def __init__(self, app: web.Application, limits: ListenLimits) -> None:
        self.address = ""
        self.port = 0
        self.refused = 0
        self._limits = limits
        self._active: dict[asyncio.BaseProtocol, int] = {}
        self._since: dict[asyncio.BaseProtocol, float] = {}
        self._served: set[asyncio.BaseProtocol] = set()
        self._server: asyncio.Server | None = None
        self._sweeper: asyncio.Task[None] | None = None
        app.middlewares.insert(0, self._middleware())
        self._runner = web.AppRunner(
            app,
            access_log=None,
            keepalive_timeout=limits.idle_timeout_s,
            max_line_size=limits.line_bytes_max,
            max_field_size=limits.header_bytes_max,
            max_headers=limits.headers_max,
            shutdown_timeout=1.0,
            handle_signals=False,
        )

    async def start(self, address: str, key: str) -> None:
        """Bind; raises PortInUse, ListenFailed or ConfigError."""
        host, port = split_address(address, key)
        await self._runner.setup()
        loop = asyncio.get_running_loop()
        try:
            self._server = await loop.create_server(self._protocol, host or None, port, backlog=256)
        except OSError as error:
            await self._runner.cleanup()
            raise _listen_error(error, address, key) from None
        self.port = self._server.sockets[0].getsockname()[1]
        self.address = join_address(host, self.port)
        self._sweeper = loop.create_task(self._sweep(), name=f"sweep {self.address}")

    async def close(self) -> None:
        """Stop listening, end every connection."""
        if self._sweeper is not None:
            self._sweeper.cancel()
        if self._server is not None:
            self._server.close()
        await self._runner.cleanup()
        self._sweeper = self._server = None

    @property
    def connections(self) -> int:
        """Open connections."""
        server = self._runner.server
        return len(server.connections) if server is not None else 0

    def _protocol(self) -> asyncio.Protocol:
        server = self._runner.server
        if server is None or len(server.connections) >= self._limits.connections_max:
            self.refused += 1
            return _Refuser()
        return server()

    def _middleware(self) -> Any:
        """Counts the requests in progress of each connection, for the sweeper."""

        @web.middleware
        async def count(request: web.Request, handler: Any) -> web.StreamResponse:
            protocol = request.protocol
            self._active[protocol] = self._active.get(protocol, 0) + 1
            self._served.add(protocol)
            try:
                return await handler(request)  # type: ignore[no-any-return]
            except web.HTTPException as error:  # of applications without a table of routes
                return response_of(problem_answer(problem_of(error_of(error, request), None)))
            finally:
                self._active[protocol] -= 1
                self._since[protocol] = asyncio.get_running_loop().time()

        return count

    async def _sweep(self) -> None:
        """Cut connections that owe us a request for too long: slow or silent openers, idle ones."""
        loop, limits = asyncio.get_running_loop(), self._limits
        while True:
            await asyncio.sleep(SWEEP_S)
            server, now = self._runner.server, loop.time()
            if server is None:
                return
            connections = server.connections
            for protocol in connections:
                since = self._since.setdefault(protocol, now)
                patience = limits.idle_timeout_s if protocol in self._served else limits.header_timeout_s
                if not self._active.get(protocol) and now - since > patience and protocol.transport is not None:
                    protocol.transport.abort()
            open_now = set(connections)
            self._since = {p: t for p, t in self._since.items() if p in open_now}
            self._active = {p: n for p, n in self._active.items() if p in open_now}
            self._served &= open_now


async def listen(app: web.Application, address: str, *, key: str, limits: ListenLimits | None = None) -> Listener:
    """Serve `app` (not started yet) on ``host:port``; port 0 lets the kernel choose.

    Args:
        app: gets one middleware more.
        address: where.
        key: the setting it comes from, for the errors.
        limits: bounds of the port.

    Raises:
        PortInUse: names the port, the setting and what to do.
        ListenFailed: the address is not of this machine, or not allowed.
    """
    listener = Listener(app, limits or ListenLimits())
    await listener.start(address, key)
    return listener


def _listen_error(error: OSError, address: str, key: str) -> PortInUse | ListenFailed:
    if error.errno == errno.EADDRINUSE:
        return PortInUse(
            f"port {address.rpartition(':')[2]} ({key} = {address}) is in use by another process",
            hint=f"stop that process (ss -ltnp shows it), or set {key} to a free port; port 0 picks one",
            key=key,
            address=address,
        )
    return ListenFailed(
        f"cannot listen on {address} ({key}): {os.strerror(error.errno) if error.errno else error}",
        hint=f"set {key} to an address of this machine and a port this user may open",
        key=key,
        address=address,
    )
