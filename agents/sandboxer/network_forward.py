"""The helper that carries connections from published ports to workloads.

Owns: its connections.  Must not know: anything but sockets; it has no privileges and sees no files.

Bytes wait in one buffer a direction; while it is not empty its source is not read, so a slow reader slows its
writer.  The end of one direction is handed on alone.  The workload sees the node as its client.
"""

from __future__ import annotations

import contextlib
import errno
import json
import select
import socket
from dataclasses import dataclass, field
from typing import Final

CONNECTIONS_MAX: Final = 8192
CHUNK_BYTES: Final = 64 << 10
MESSAGE_BYTES_MAX: Final = 64 << 10
DESCRIPTORS_MAX: Final = 64


@dataclass(slots=True)
class End:
    """One end of a connection.  `pending` waits to be written to it."""

    sock: socket.socket
    name: str
    other: End | None = None
    pending: bytearray = field(default_factory=bytearray)
    connecting: bool = False
    read_all: bool = False
    """Its peer sends no more."""
    told_all: bool = False
    """We send it no more."""


class Forwarder:
    """Serves listeners until `control` ends."""

    def __init__(self, control: socket.socket) -> None:
        self._control = control
        self._epoll = select.epoll()
        self._epoll.register(control.fileno(), select.EPOLLIN)
        self._listeners: dict[int, tuple[socket.socket, str, tuple[str, int]]] = {}
        self._ends: dict[int, End] = {}

    def run(self) -> None:
        """Until the sandboxer is gone."""
        while True:
            for fd, mask in self._epoll.poll():
                if fd == self._control.fileno():
                    if not self._take():
                        return
                elif fd in self._listeners:
                    self._accept(fd)
                elif fd in self._ends:
                    self._move(self._ends[fd], mask)

    def _take(self) -> bool:
        data, descriptors, _, _ = socket.recv_fds(self._control, MESSAGE_BYTES_MAX, DESCRIPTORS_MAX)
        if not data:
            return False
        message = json.loads(data)
        if "publish" in message:
            for descriptor, port in zip(descriptors, message["ports"], strict=True):
                listener = socket.socket(fileno=descriptor)
                self._listeners[descriptor] = (listener, message["publish"], (message["address"], port))
                self._epoll.register(descriptor, select.EPOLLIN)
        else:
            self._withdraw(message["withdraw"])
        return True

    def _withdraw(self, name: str) -> None:
        for fd, (listener, owner, _) in list(self._listeners.items()):
            if owner == name:
                self._epoll.unregister(fd)
                del self._listeners[fd]
                listener.close()
        for end in list(self._ends.values()):
            if end.name == name:
                self._drop(end)

    def _accept(self, fd: int) -> None:
        listener, name, target = self._listeners[fd]
        try:
            client, _ = listener.accept()
        except OSError:
            return
        if len(self._ends) >= 2 * CONNECTIONS_MAX:
            client.close()
            return
        server = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        for sock in (client, server):
            sock.setblocking(False)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        near, far = End(client, name), End(server, name, connecting=True)
        near.other, far.other = far, near
        for end in (near, far):
            self._ends[end.sock.fileno()] = end
            self._epoll.register(end.sock.fileno(), 0)
        if server.connect_ex(target) not in (0, errno.EINPROGRESS):
            self._drop(near)
            return
        self._watch(near)
        self._watch(far)

    def _move(self, end: End, mask: int) -> None:
        other = end.other
        assert other is not None, "ends come in pairs"
        try:
            if end.connecting and mask & (select.EPOLLOUT | select.EPOLLERR | select.EPOLLHUP):
                failed = end.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
                if failed:
                    raise OSError(failed, "connecting")
                end.connecting = False
            if mask & (select.EPOLLERR | select.EPOLLHUP) and not mask & select.EPOLLIN:
                raise ConnectionResetError
            if mask & select.EPOLLIN and not other.pending and not end.read_all:
                data = end.sock.recv(CHUNK_BYTES)
                end.read_all = not data
                other.pending += data
            self._flush(end)
            self._flush(other)
        except BlockingIOError:
            pass
        except OSError:
            self._drop(end)
            return
        if end.told_all and other.told_all:
            self._drop(end)
            return
        self._watch(end)
        self._watch(other)

    def _flush(self, end: End) -> None:
        """Write what waits for `end`, and the end of it after that."""
        if end.connecting:
            return
        if end.pending:
            try:
                sent = end.sock.send(end.pending)
            except BlockingIOError:
                return
            del end.pending[:sent]
        assert end.other is not None, "ends come in pairs"
        if not end.pending and end.other.read_all and not end.told_all:
            end.told_all = True
            with contextlib.suppress(OSError):
                end.sock.shutdown(socket.SHUT_WR)

    def _watch(self, end: End) -> None:
        assert end.other is not None, "ends come in pairs"
        mask = select.EPOLLOUT if end.connecting or end.pending else 0
        if not end.connecting and not end.read_all and not end.other.pending:
            mask |= select.EPOLLIN
        self._epoll.modify(end.sock.fileno(), mask)

    def _drop(self, end: End) -> None:
        for each in (end, end.other):
            if each is not None and self._ends.pop(each.sock.fileno(), None) is not None:
                self._epoll.unregister(each.sock.fileno())
                each.sock.close()


def run(control: socket.socket) -> None:
    """Forward until `control` ends."""
    Forwarder(control).run()
