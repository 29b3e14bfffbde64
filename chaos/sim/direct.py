"""The direct transport: `cluster.network` over message connections, without HTTP.

Owns: dialling, calling and listening as one process does it, and failures in the words of `cluster.network`.
Must not know: what anybody says; links, faults and lives (`net`, `pipes`, `lives`).

What aiohttp would do is done here in kind: a knock is one message there and an answer back, a refused knock is a whole
answer, a closing side waits for the other's close, a server that ends waits a second for who it serves.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

from chaos.sim.channels import HEAD_BYTES, OPENED, Asked, Begun, DirectChannel, lowered
from chaos.sim.direct_server import DirectListening
from chaos.sim.messages import MessageEnd, dial
from chaos.sim.net import Network as Wires
from cluster.errors import PortInUse
from cluster.network import Answer, Application, DialFailed, DialRefused, ListenLimits, OnKnock
from cluster.sockets import split_address


class DirectClient:
    """Outgoing connections of one process; satisfies `cluster.network.Client`."""

    def __init__(self, wires: Wires) -> None:
        self._wires = wires

    async def dial(
        self, address: str, path: str, *, headers: Mapping[str, str], frame_bytes_max: int, close_s: float
    ) -> DirectChannel:
        """Open a WebSocket; raises DialRefused or DialFailed."""
        end = await self._connect(address)
        try:
            end.send(Asked("GET", path, lowered(headers), upgrade=True), HEAD_BYTES)
            answer: Answer = await end.receive()
        except EOFError:
            raise DialFailed("ServerDisconnectedError") from None
        except TimeoutError:
            raise
        except OSError as error:
            raise DialFailed(_words(error)) from None
        except asyncio.CancelledError:
            end.abort()
            raise
        if answer is not OPENED:
            end.close()
            raise DialRefused(answer.status, answer.headers)
        return DirectChannel(end, frame_bytes_max, close_s)

    async def call(
        self, address: str, method: str, target: str, *, headers: Mapping[str, str], body: bytes | None = None
    ) -> Answer:
        """Make one request; raises DialFailed or another ConnectionError."""
        end = await self._connect(address)
        media = {"content-type": "application/json"} if body is not None else {}
        try:
            asked = Asked(method, target, {**lowered(headers), **media}, body or b"")
            end.send(asked, HEAD_BYTES + len(asked.body))
            return await _whole(end)
        except EOFError:
            raise ConnectionError("ServerDisconnectedError") from None
        except TimeoutError:
            raise
        except OSError as error:
            raise ConnectionError(_words(error)) from None
        except asyncio.CancelledError:
            end.abort()
            raise
        finally:
            end.close()

    async def _connect(self, address: str) -> MessageEnd:
        host, port = split_address(address)
        try:
            return await dial(self._wires, host, port)
        except TimeoutError:
            raise
        except OSError as error:
            raise DialFailed(_words(error)) from None


class DirectNetwork:
    """The network as one process has it; satisfies `cluster.network.Network`."""

    def __init__(self, wires: Wires) -> None:
        self._wires = wires

    @asynccontextmanager
    async def client(self, *, connections_max: int = 0, reuse: bool = True) -> AsyncIterator[DirectClient]:
        """Outgoing connections."""
        yield DirectClient(self._wires)

    async def listen(
        self,
        address: str,
        *,
        key: str,
        sockets: Mapping[str, OnKnock] | None = None,
        api: Application | None = None,
        limits: ListenLimits | None = None,
    ) -> DirectListening:
        """Serve a port; raises PortInUse."""
        host, port = split_address(address, key)
        listening = DirectListening(self._wires, host, sockets or {}, api, limits or ListenLimits())
        try:
            listening.open(port)
        except OSError as error:
            raise PortInUse(
                f"port {port} ({key} = {address}) is in use: {error}", hint="free it", key=key, address=address
            ) from None
        return listening


async def _whole(end: MessageEnd) -> Answer:
    """An answer with all of its body."""
    first: Answer | Begun = await end.receive()
    if isinstance(first, Answer):
        return first
    pieces: list[bytes] = []
    while piece := await end.receive():
        pieces.append(piece)
    return Answer(200, b"".join(pieces), first.media, first.headers)


def _words(error: OSError) -> str:
    """A short reason, as `cluster.aiohttp_network` gives it."""
    return error.strerror.lower() if error.strerror else type(error).__name__
