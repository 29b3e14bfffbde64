"""One client's connection through a proxy: two sockets, two pipes.

Owns: dialing the upstream, closing and resetting both sides together.  Must not know: HTTP or
how toxics are created; it asks its relay for the stages of a new connection.

While the upstream direction is silenced a new connection is accepted and nothing is dialed:
the far side must not see even a handshake.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections.abc import Callable

from chaos.proxy.pipe import Counters, Pipe
from chaos.proxy.toxic import STREAMS, Stream

DIAL_TIMEOUT_S = 10.0


def _tune(sock: socket.socket) -> None:
    sock.setblocking(False)
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


class Connection:
    """A pair of sockets; closed once, from whatever side."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        client: socket.socket,
        counters: dict[Stream, Counters],
        on_closed: Callable[[Connection], None],
    ) -> None:
        self._loop = loop
        self._client = client
        self._server: socket.socket | None = None
        self._on_closed = on_closed
        self.closed = False
        self.pipes: dict[Stream, Pipe] = {
            "upstream": Pipe(loop, self, counters["upstream"]),
            "downstream": Pipe(loop, self, counters["downstream"]),
        }
        _tune(client)

    async def run(self, address: tuple[str, int]) -> None:
        """Dial and start both pipes; on failure the client gets RST."""
        if self.pipes["upstream"].silent:
            self.pipes["upstream"].attach(self._client, None)
            return
        try:
            async with asyncio.timeout(DIAL_TIMEOUT_S):
                server = await self._dial(address)
        except (OSError, TimeoutError):
            self.reset()
            return
        if self.closed:  # a toxic or the API closed it meanwhile
            server.close()
            return
        self._server = server
        self.pipes["upstream"].attach(self._client, server)
        self.pipes["downstream"].attach(server, self._client)

    async def _dial(self, address: tuple[str, int]) -> socket.socket:
        found = await self._loop.getaddrinfo(*address, type=socket.SOCK_STREAM)
        failure: OSError = OSError("no address found")
        for family, kind, protocol, _, where in found:
            sock = socket.socket(family, kind, protocol)
            _tune(sock)
            try:
                await self._loop.sock_connect(sock, where)
            except OSError as error:
                sock.close()
                failure = error
            except BaseException:
                sock.close()
                raise
            else:
                return sock
        raise failure

    # -- what pipes report ----------------------------------------------------------------

    def source_broke(self, pipe: Pipe) -> None:
        """A side sent RST or vanished: the other learns it, unless a cut lies between."""
        if not pipe.silent:
            self.reset()
        else:
            self.ended_in_silence(pipe)

    def sink_broke(self, pipe: Pipe) -> None:
        """A side takes no more; the writer learns it unless the way back is cut."""
        opposite = next(other for other in self.pipes.values() if other is not pipe)
        if opposite.silent:
            pipe.sink_is_gone()
        else:
            self.reset()

    def ended(self, pipe: Pipe) -> None:
        """One direction is done; both done closes the connection."""
        if all(each.done for each in self.pipes.values()):
            self.close()

    def ended_in_silence(self, pipe: Pipe) -> None:
        """Wait for the cut's removal, unless nobody is left on the other side."""
        if pipe.sink is None or all(each.source_ended for each in self.pipes.values()):
            self.close()

    # -- closing --------------------------------------------------------------------------

    def close(self) -> None:
        """Close both sides."""
        if self.closed:
            return
        self.closed = True
        for stream in STREAMS:
            self.pipes[stream].shut()
        self._client.close()
        if self._server is not None:
            self._server.close()
        self._on_closed(self)

    def reset(self) -> None:
        """Close both sides with RST."""
        for sock in (self._client, self._server):
            if sock is not None and not self.closed:
                with contextlib.suppress(OSError):
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close()
