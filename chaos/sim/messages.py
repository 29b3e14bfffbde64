"""Connections that carry whole messages: the substrate of the direct transport.

Owns: one end with its inbox, closing with a code, back-pressure.
Must not know: WebSockets, HTTP or what a message means (`chaos.sim.network`).
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from contextvars import Context
from typing import Any, Final

from chaos.sim.ends import EndBase
from chaos.sim.lives import Life
from chaos.sim.net import Listener, Network
from chaos.sim.pipes import DATA, FIN, RESET

UNCONSUMED_MAX_BYTES: Final = 256 << 10
"""What travels or waits to be read before `drain` waits."""


class MessageEnd(EndBase):
    """One end.  `on_open` is called at the accepting end when the first segment arrives."""

    def __init__(
        self, net: Network, life: Life, context: Context, on_open: Callable[[MessageEnd], None] | None = None
    ) -> None:
        self.net = net
        self.life = life
        self.host = life.host
        self.context = context
        self._on_open = on_open
        self.gone = self.fin_sent = self.fin_received = False
        self.backlog = []
        self.inbox: deque[Any] = deque()
        self.error: OSError | None = None
        """Why it is broken."""
        self.close_code: Any = None
        """What the other end closed with."""
        self._reader: asyncio.Future[None] | None = None
        self._left: asyncio.Future[None] | None = None
        """Who dismissed the reader waits for its leaving."""
        self._writers: list[asyncio.Future[None]] = []
        self._unconsumed = 0

    @property
    def closed(self) -> bool:
        """Whether nothing can be sent any more."""
        return self.gone or self.fin_sent

    @property
    def ended(self) -> bool:
        """Whether nothing will arrive any more; what has arrived may still be in the inbox."""
        return self.gone or self.fin_received

    @property
    def congested(self) -> bool:
        """Whether so much is on its way unread that a writer should wait."""
        return self._unconsumed > UNCONSUMED_MAX_BYTES

    def send(self, message: Any, size: int) -> None:
        """Send a message that counts `size` bytes; never blocks.

        Raises:
            ConnectionResetError: the connection has ended, as far as this end knows.
        """
        if self.gone or self.fin_sent:
            raise ConnectionResetError(104, "Connection reset by peer" if self.error else "the connection is closed")
        if not self.life.dead:
            self._unconsumed += size
            self.out.send(DATA, (size, message))

    async def drain(self) -> None:
        """Wait while it is congested; raises ConnectionResetError if it breaks meanwhile."""
        while self.congested:
            if self.gone:
                raise ConnectionResetError(104, "Connection reset by peer")
            writer: asyncio.Future[None] = self.net.loop.create_future()
            self._writers.append(writer)
            try:
                await writer
            finally:
                if writer in self._writers:
                    self._writers.remove(writer)

    async def receive(self) -> Any:
        """The next message.

        Raises:
            EOFError: the other end closed; `close_code` says with what.
            ConnectionError, OSError: the connection is broken.
        """
        while not self.inbox:
            if self.error is not None:
                raise self.error
            if self.fin_received:
                raise EOFError
            if self.gone:
                raise ConnectionResetError(104, "the connection is closed")
            await self.wait()
        return self.take()

    async def wait(self) -> None:
        """Return when something may have arrived, or the end."""
        assert self._reader is None, "two readers of one connection"
        self._reader = self.net.loop.create_future()
        try:
            await self._reader
        finally:
            self._reader = None
            if self._left is not None and not self._left.done():
                self._left.set_result(None)

    async def dismiss(self) -> None:
        """Have whoever waits stop waiting, and return once it has."""
        reader = self._reader
        if reader is None:
            return
        left = self._left = self.net.loop.create_future()
        if not reader.done():
            reader.set_result(None)
        await left

    def take(self) -> Any:
        """The oldest message of the inbox, which is not empty."""
        size, message = self.inbox.popleft()
        self.peer.consumed(size)
        return message

    def finish(self, code: Any = None) -> None:
        """End our direction after what was sent; what arrives is still taken."""
        if not (self.gone or self.fin_sent or self.life.dead):
            self.fin_sent = True
            self.out.send(FIN, code)
            self._settle()

    def close(self, code: Any = None) -> None:
        """End our direction after what was sent, and take nothing more."""
        if self.gone or self.life.dead:
            return
        self.finish(code)
        self.gone = True
        self._wake()

    def abort(self) -> None:
        """Break it now."""
        if self.gone or self.life.dead:
            return
        self.gone = True
        self.out.send(RESET, None)
        self.life.sockets.pop(self, None)
        self._wake()

    # -- EndBase ---------------------------------------------------------------------------------

    def deliver(self, kind: int, data: Any) -> None:
        """Take what arrived, in order."""
        if kind == DATA:
            self.inbox.append(data)
            reader = self._reader
            if reader is not None and not reader.done():
                reader.set_result(None)
        elif kind == FIN:
            self.close_code = data
            self._wake()
        elif self._on_open is not None:
            try:
                self._on_open(self)
            except Exception as error:
                message = "fatal error: nobody took the connection"
                self.net.loop.call_exception_handler({"message": message, "exception": error})
                self.abort()

    def take_reset(self, error: OSError) -> None:
        """The connection is broken."""
        self.error = error
        self._wake()

    def unread(self) -> bool:
        """Whether messages wait."""
        return bool(self.inbox)

    def consumed(self, size: int) -> None:
        """The other end took a message."""
        self._unconsumed -= size
        if self._writers and self._unconsumed <= UNCONSUMED_MAX_BYTES and not self.life.dead:
            self._wake_writers()

    # -- the inside ---------------------------------------------------------------------------------

    def _wake(self) -> None:
        reader = self._reader
        if reader is not None and not reader.done():
            reader.set_result(None)
        self._wake_writers()

    def _wake_writers(self) -> None:
        for writer in self._writers:
            if not writer.done():
                writer.set_result(None)


def listen(net: Network, port: int, on_open: Callable[[MessageEnd], None]) -> Listener:
    """Accept message connections on a port of the asking life's machine."""
    return net.listen(port, lambda its_net, life, context: MessageEnd(its_net, life, context, on_open))


async def dial(net: Network, host: str, port: int) -> MessageEnd:
    """Connect to a port; raises OSError."""
    end: MessageEnd = await net.dial(host, port, MessageEnd)
    return end
