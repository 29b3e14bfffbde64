"""asyncio's calls for connections on the simulated network: names, servers, connecting.

Owns: the loop with `create_connection`, `create_server` and `sock_connect`, which aiohttp's connector uses.
Must not know: how a stream works (`streams`), links or faults.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from contextvars import Context
from typing import Any, cast

from chaos.sim.lives import LIFE, Life
from chaos.sim.loop import SimLoop
from chaos.sim.net import Listener, Network
from chaos.sim.streams import SimSocket, StreamEnd


class SimServer(asyncio.AbstractServer):
    """A listening port, as `create_server` returns it."""

    def __init__(self, listener: Listener) -> None:
        self._listener = listener
        sock = SimSocket()
        sock.local = (listener.host.address, listener.port)
        self._sockets = (sock,)

    @property
    def sockets(self) -> tuple[SimSocket, ...]:
        """One socket while it listens."""
        return self._sockets if self._listener.open else ()

    def close(self) -> None:
        """Stop listening; connections go on."""
        self._listener.close()

    def get_loop(self) -> asyncio.AbstractEventLoop:
        """The world's loop."""
        return asyncio.get_running_loop()

    def is_serving(self) -> bool:
        """Whether it listens."""
        return self._listener.open

    async def start_serving(self) -> None:
        """It does already."""

    async def serve_forever(self) -> None:
        """Wait for ever."""
        await asyncio.get_running_loop().create_future()

    async def wait_closed(self) -> None:
        """Nothing takes time."""


class NetLoop(SimLoop):
    """The loop with asyncio's calls for connections."""

    network: Network

    async def getaddrinfo(self, host: Any, port: Any, **hints: Any) -> list[Any]:
        """The address of a machine.

        Raises:
            socket.gaierror: nobody has that name.
        """
        try:
            found = self.network.find(host or "")
        except OSError:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known") from None
        return [(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", (found.address, int(port or 0)))]

    async def getnameinfo(self, sockaddr: Any, flags: int = 0) -> tuple[str, str]:
        """The address itself."""
        return str(sockaddr[0]), str(sockaddr[1])

    async def sock_connect(self, sock: Any, address: Any) -> None:
        """Make a connection that `create_connection` takes over."""
        end = cast(StreamEnd, await self.network.dial(address[0], address[1], _without_protocol))
        sock.local, sock.remote, sock.end = end.local, end.remote, end

    async def create_connection(
        self,
        protocol_factory: Callable[[], Any],
        host: Any = None,
        port: Any = None,
        *,
        sock: Any = None,
        **options: Any,
    ) -> tuple[StreamEnd, Any]:
        """Connect, or take over what `sock_connect` connected."""
        assert not options.get("ssl"), "no TLS in the simulator"
        if sock is None:
            sock = SimSocket()
            await self.sock_connect(sock, (host, port))
        end: StreamEnd = sock.end
        sock.end = None
        end.protocol = protocol = protocol_factory()
        protocol.connection_made(end)
        end.resume_reading()
        if end.gone:
            end.take_reset(ConnectionResetError(104, "Connection reset by peer"))
        return end, protocol

    async def create_server(  # type: ignore[override]
        self, protocol_factory: Callable[[], Any], host: Any = None, port: Any = None, **options: Any
    ) -> SimServer:
        """Listen on a port of the machine that asks."""
        assert not options.get("ssl"), "no TLS in the simulator"
        assert LIFE.get().host is not None, "spawn a process on a machine to listen"

        def accept(net: Network, life: Life, context: Context) -> StreamEnd:
            return StreamEnd(net, life, context, protocol_factory)

        return SimServer(self.network.listen(int(port or 0), accept))


def _without_protocol(net: Network, life: Life, context: Context) -> StreamEnd:
    """The dialling end holds everything back until there is a protocol."""
    end = StreamEnd(net, life, context)
    end.pause_reading()
    return end
