"""Messages to and from the sandboxer, over its socket.

Owns: the socket on the event loop, what waits to be sent.  Must not know: what is said.
"""

from __future__ import annotations

import asyncio
import socket
from collections import deque
from collections.abc import Callable
from typing import Any, Protocol

from agents.sandboxer import protocol

READS_PER_WAKE = 64


class Channel(Protocol):
    """Messages of `agents.sandboxer.protocol`, in order, both ways; a simulated one stands in."""

    def open(self, take: Callable[[dict[str, Any]], None], ended: Callable[[str], None]) -> None:
        """Begin: `take` gets each message, `ended` once why there will be no more, unless it was closed here."""
        ...

    def send(self, message: dict[str, Any]) -> None:
        """Queue a message; never blocks."""
        ...

    def close(self) -> None:
        """Leave; repeating it changes nothing."""
        ...


class SocketChannel:
    """A channel over a connected, non-blocking SOCK_SEQPACKET socket."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._loop = asyncio.get_running_loop()
        self._outbox: deque[bytes] = deque()
        self._closed = False
        self._take: Callable[[dict[str, Any]], None]
        self._ended: Callable[[str], None]

    def open(self, take: Callable[[dict[str, Any]], None], ended: Callable[[str], None]) -> None:
        """See `Channel.open`."""
        self._take, self._ended = take, ended
        self._loop.add_reader(self._sock.fileno(), self._readable)

    def send(self, message: dict[str, Any]) -> None:
        """See `Channel.send`."""
        self._outbox.append(protocol.encode(message))
        self._writable()

    def close(self) -> None:
        """See `Channel.close`."""
        if self._closed:
            return
        self._closed = True
        self._loop.remove_reader(self._sock.fileno())
        self._loop.remove_writer(self._sock.fileno())
        self._sock.close()

    def _writable(self) -> None:
        if self._closed:
            return
        try:
            while self._outbox:
                protocol.send(self._sock, self._outbox[0])
                self._outbox.popleft()
        except BlockingIOError:
            self._loop.add_writer(self._sock.fileno(), self._writable)
            return
        except (OSError, protocol.ProtocolError) as error:
            self._end(f"sending failed: {error}")
            return
        self._loop.remove_writer(self._sock.fileno())

    def _readable(self) -> None:
        try:
            for _ in range(READS_PER_WAKE):
                if self._closed:
                    return
                message = protocol.receive(self._sock)
                if message is None:
                    self._end("the sandboxer closed the connection")
                    return
                self._take(message)
        except BlockingIOError:
            return
        except (OSError, protocol.ProtocolError) as error:
            self._end(f"receiving failed: {error!r}")

    def _end(self, why: str) -> None:
        if not self._closed:
            self.close()
            self._ended(why)
