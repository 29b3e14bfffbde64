"""The sandboxer's socket: connections and what waits in them.

Owns: connections, who may connect, their limits.  Must not know: what is asked (`requests`).

A client that sends garbage, sends before saying hello, or does not read is disconnected; the
workloads and the other clients do not notice.
"""

from __future__ import annotations

import contextlib
import os
import socket
import struct
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from agents.sandboxer import linux, protocol
from agents.sandboxer.loop import Loop
from agents.sandboxer.trace import Tracer

CLIENTS_MAX: Final = 64
OUTBOX_MAX: Final = 8192
MESSAGES_PER_WAKE: Final = 32
_UCRED: Final = struct.Struct("3i")


@dataclass(slots=True)
class Client:
    """One connection."""

    number: int
    sock: socket.socket
    outbox: deque[bytes] = field(default_factory=deque)


class Server:
    """Listens in `directory`."""

    def __init__(self, loop: Loop, directory: str, tracer: Tracer) -> None:
        self._loop = loop
        self._tracer = tracer
        self._clients: dict[int, Client] = {}
        self._next_number = 1
        self._directory_fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self._path = protocol.reachable_path(directory, self._directory_fd)
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
        self._take: Callable[[int, protocol.Json], None]
        self._left: Callable[[int], None]

    def listen(self, take: Callable[[int, protocol.Json], None], left: Callable[[int], None]) -> None:
        """Take connections; the lock on the directory is held, so a socket in it is a dead one's.

        `take` gets each message with its client's number, and raises ProtocolError for garbage; `left` hears who went.
        """
        self._take, self._left = take, left
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._path)
        umask = os.umask(0o177)
        try:
            self._listener.bind(self._path)
        finally:
            os.umask(umask)
        self._listener.listen(CLIENTS_MAX)
        self._listener.setblocking(False)
        self._loop.add_reader(self._listener.fileno(), self._accept)

    def stop_listening(self) -> None:
        """Take no more connections, and remove the socket."""
        self._loop.remove(self._listener.fileno())
        self._listener.close()
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._path)
        os.close(self._directory_fd)

    def close(self) -> None:
        """Send what waits, as far as the clients read, and leave them."""
        for client in list(self._clients.values()):
            self._flush(client)
            self._drop(client)

    # -- connections ------------------------------------------------------------------------------

    def _accept(self) -> None:
        try:
            sock, _ = self._listener.accept()
        except OSError:
            return
        pid, uid, _ = _UCRED.unpack(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size))
        if uid not in (0, os.geteuid()) or linux.sees_less(pid) or len(self._clients) >= CLIENTS_MAX:
            sock.close()
            return
        sock.setblocking(False)
        client = Client(self._next_number, sock)
        self._next_number += 1
        self._clients[client.number] = client
        self._loop.add_reader(sock.fileno(), lambda: self._readable(client))

    def _drop(self, client: Client) -> None:
        if self._clients.pop(client.number, None) is not None:
            self._loop.remove(client.sock.fileno())
            client.sock.close()
            self._left(client.number)

    def send(self, number: int, message: protocol.Json) -> None:
        """Send a client a message, if it is still there; never blocks."""
        client = self._clients.get(number)
        if client is None:
            return
        message["lc"], message["hlc"] = self._tracer.tick()
        client.outbox.append(protocol.encode(message))
        if len(client.outbox) > OUTBOX_MAX:
            self._drop(client)
        elif len(client.outbox) == 1:
            self._flush(client)

    def _flush(self, client: Client) -> None:
        try:
            while client.outbox:
                protocol.send(client.sock, client.outbox[0])
                client.outbox.popleft()
        except BlockingIOError:
            self._loop.add_writer(client.sock.fileno(), lambda: self._flush(client))
        except (OSError, protocol.ProtocolError):
            self._drop(client)
        else:
            self._loop.remove_writer(client.sock.fileno())

    def _readable(self, client: Client) -> None:
        try:
            for _ in range(MESSAGES_PER_WAKE):
                if client.number not in self._clients:
                    return
                message = protocol.receive(client.sock)
                if message is None:
                    self._drop(client)
                    return
                self._tracer.observe(message.get("lc"), message.get("hlc"))
                self._take(client.number, message)
        except BlockingIOError:
            return
        except (OSError, protocol.ProtocolError):
            self._drop(client)
