"""TCP-like connections for unmodified asyncio protocols: asyncio's transport interface over a pair of pipes.

Owns: one end of a stream: reading paused, writing paused, half closed, reset.
Must not know: what the protocols say to each other, who connects them (`sockets`), links or faults.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Iterable
from contextvars import Context
from typing import Any, Final

from chaos.sim.ends import EndBase
from chaos.sim.lives import Life
from chaos.sim.net import Network
from chaos.sim.pipes import DATA, FIN, RESET

KERNEL_BUFFER_BYTES: Final = 256 << 10
"""What the two machines' buffers take before the writer notices that nobody reads."""
ASYNCIO_HIGH_BYTES: Final = 64 << 10


class SimSocket:
    """What asks for a socket gets this: addresses, and options that do nothing."""

    __slots__ = ("end", "family", "local", "proto", "remote", "type")

    def __init__(self, family: int = socket.AF_INET, type: int = socket.SOCK_STREAM, proto: int = 0) -> None:
        self.family = family
        self.type = type
        self.proto = proto
        self.local: tuple[str, int] = ("0.0.0.0", 0)  # noqa: S104  unbound
        self.remote: tuple[str, int] | None = None
        self.end: StreamEnd | None = None

    def setblocking(self, flag: bool) -> None:
        """Nothing here blocks."""

    def setsockopt(self, *option: Any) -> None:
        """There are no options."""

    def getsockopt(self, *option: Any) -> int:
        """There are no options."""
        return 0

    def bind(self, address: Any) -> None:
        """Take a local address."""
        self.local = address

    def getsockname(self) -> tuple[str, int]:
        """Our address."""
        return self.local

    def getpeername(self) -> tuple[str, int]:
        """The other's address."""
        if self.remote is None:
            raise OSError(107, "not connected")
        return self.remote

    def fileno(self) -> int:
        """No descriptor stands behind it."""
        return -1

    def close(self) -> None:
        """Drop a connection that no transport took over."""
        if self.end is not None:
            self.end.abort()
            self.end = None


class StreamEnd(EndBase, asyncio.Transport):
    """One end of a stream."""

    def __init__(self, net: Network, life: Life, context: Context, factory: Callable[[], Any] | None = None) -> None:
        super().__init__()
        self.net = net
        self.life = life
        self.host = life.host
        self.context = context
        self.protocol: Any = _NOBODY
        self._factory = factory
        """Makes the accepting end's protocol when the connection stands."""
        self.gone = self.fin_sent = self.fin_received = False
        self.backlog = []
        self._inbox: list[tuple[int, Any]] = []
        self._reading_paused = False
        self._tail: list[bytes] = []
        self._tail_ns = -1
        self._unconsumed = 0
        self._writing_paused = False
        self.set_write_buffer_limits()

    # -- asyncio's transport -------------------------------------------------------------------

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """``peername``, ``sockname``, ``socket``."""
        if name == "peername":
            return self.remote
        if name == "sockname":
            return self.local
        if name == "socket":
            twin = SimSocket()
            twin.local, twin.remote = self.local, self.remote
            return twin
        return default

    def is_closing(self) -> bool:
        """Whether it is closed or closing; everything is when the world has ended."""
        return self.gone or self.net.over

    def set_protocol(self, protocol: Any) -> None:
        """Hand what arrives to another protocol."""
        self.protocol = protocol

    def get_protocol(self) -> Any:
        """Who gets what arrives."""
        return self.protocol

    def is_reading(self) -> bool:
        """Whether data is being handed over."""
        return not self._reading_paused and not self.gone

    def pause_reading(self) -> None:
        """Hold data back."""
        self._reading_paused = True

    def resume_reading(self) -> None:
        """Hand data over again."""
        if self._reading_paused:
            self._reading_paused = False
            if self._inbox:
                self.net.loop.call_soon(self._pump, context=self.context)

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """When the protocol is told to stop writing, beyond what the machines' buffers take."""
        if high is None:
            high = ASYNCIO_HIGH_BYTES if low is None else 4 * low
        self._limit = KERNEL_BUFFER_BYTES + high
        self._low = KERNEL_BUFFER_BYTES + (high // 4 if low is None else low)

    def get_write_buffer_size(self) -> int:
        """Bytes beyond what the machines' buffers take."""
        return max(0, self._unconsumed - KERNEL_BUFFER_BYTES)

    def get_write_buffer_limits(self) -> tuple[int, int]:
        """(low, high)."""
        return self._low - KERNEL_BUFFER_BYTES, self._limit - KERNEL_BUFFER_BYTES

    def write(self, data: Any) -> None:
        """Send; what is written at one moment travels together."""
        if self.gone or self.fin_sent or not data or self.life.dead:
            return
        now = self.net.loop.now
        if self._tail_ns == now:
            self._tail.append(bytes(data))
        else:
            self._tail, self._tail_ns = [bytes(data)], now
            self.out.send(DATA, self._tail)
        self._unconsumed += len(data)
        if self._unconsumed > self._limit and not self._writing_paused:
            self._writing_paused = True
            self.protocol.pause_writing()

    def writelines(self, list_of_data: Iterable[Any]) -> None:
        """Send all."""
        self.write(b"".join(list_of_data))

    def can_write_eof(self) -> bool:
        """It can end one direction."""
        return True

    def write_eof(self) -> None:
        """End our direction."""
        if not (self.gone or self.fin_sent or self.life.dead):
            self.fin_sent = True
            self.out.send(FIN, None)

    def close(self) -> None:
        """End it after what was written; a reset if something was not read, as kernels do."""
        if self.gone or self.life.dead:
            return
        self.gone = True
        if self._inbox:
            self.out.send(RESET, None)
        elif not self.fin_sent:
            self.fin_sent = True
            self.out.send(FIN, None)
        self._settle()
        self._lose(None)

    def abort(self) -> None:
        """Break it now."""
        if self.gone or self.life.dead:
            return
        self.gone = True
        self.out.send(RESET, None)
        self.life.sockets.pop(self, None)
        self._lose(None)

    # -- EndBase ---------------------------------------------------------------------------------

    def deliver(self, kind: int, data: Any) -> None:
        """Take what arrived, in order."""
        if self._reading_paused or self._inbox:
            self._inbox.append((kind, data))
        else:
            self._take(kind, data)

    def take_reset(self, error: OSError) -> None:
        """The connection is broken."""
        self._lose(error)

    def unread(self) -> bool:
        """Whether data waits for a protocol that reads no further."""
        return bool(self._inbox)

    def consumed(self, count: int) -> None:
        """The other end took `count` bytes."""
        self._unconsumed -= count
        if self._writing_paused and self._unconsumed <= self._low and not self.gone:
            self._writing_paused = False
            self.net.loop.call_soon(self._resume_writing, context=self.context)

    # -- the inside ---------------------------------------------------------------------------------

    def _pump(self) -> None:
        while self._inbox and not self._reading_paused and not self.gone:
            self._take(*self._inbox.pop(0))

    def _take(self, kind: int, data: Any) -> None:
        try:
            if kind == DATA:
                payload = b"".join(data)
                self.peer.consumed(len(payload))
                self.protocol.data_received(payload)
            elif kind == FIN:
                if not self.protocol.eof_received():
                    self.close()
            else:
                self.protocol = self._made()
                self.protocol.connection_made(self)
        except Exception as error:
            message = "fatal error: protocol failed in taking data"
            self.net.loop.call_exception_handler({"message": message, "exception": error, "transport": self})
            self.abort()

    def _made(self) -> Any:
        assert self._factory is not None, "only accepting ends are opened from afar"
        return self._factory()

    def _resume_writing(self) -> None:
        if not self.gone:
            self.protocol.resume_writing()

    def _lose(self, error: Exception | None) -> None:
        """Tell the protocol of the end, after everything that is ready now.

        In asyncio's own order what a protocol started when the connection was made runs before it hears of the end, and
        aiohttp's server relies on that; the other orders must not take it away.
        """
        loop = self.net.loop
        loop.at(loop.now + 1, self._lost, error, context=self.context)

    def _lost(self, error: Exception | None) -> None:
        protocol, self.protocol = self.protocol, _NOBODY
        if protocol is not _NOBODY:
            protocol.connection_lost(error)


class _Nobody(asyncio.Protocol):
    """Takes what comes after the end."""


_NOBODY: Final = _Nobody()
