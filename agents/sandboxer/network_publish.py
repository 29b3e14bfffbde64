"""Publishing ports: listening on the node for workloads that have their own network.

Owns: the listening sockets and the helper process that serves them.
Must not know: addresses' origin, attempts, how bytes are moved (`network_forward`).

The sandboxer listens itself, so that a taken port is a failed start, and hands each socket to one helper.  A helper
that dies is replaced and given all sockets again: connections break, none is refused.  It dies with the sandboxer, so
while a `keep` workload has none, its ports are not served.  Shutting a listener down ends it in every process
that has it; a new one may listen on the port at once.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import signal
import socket
from dataclasses import dataclass
from typing import Any, Final

from agents.sandboxer import capabilities, linux, network_forward
from agents.sandboxer.loop import Loop

BACKLOG: Final = 512
RESTART_S: Final = 0.05
SEND_TIMEOUT_S: Final = 1.0
HELPER_NAME: Final = "skerry-forward"


@dataclass(slots=True)
class _Published:
    address: str
    listeners: list[tuple[socket.socket, int]]
    """(socket, port of the workload)"""


class Publisher:
    """All published ports of a node."""

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self._published: dict[str, _Published] = {}
        self._control: socket.socket | None = None
        self.pid = 0
        """Of the helper; 0 = there is none."""

    def publish(self, name: str, address: str, ports: tuple[tuple[int, int], ...]) -> None:
        """Take the node's ports and forward them to `address`; OSError, and none taken, if one is not free."""
        if not ports:
            return
        listeners: list[tuple[socket.socket, int]] = []
        try:
            for host, own in ports:
                listeners.append((_listen(host), own))
        except OSError:
            _end(listeners)
            raise
        self._published[name] = _Published(address, listeners)
        if self._control is None:
            self._start()
        else:
            self._tell(name)

    def withdraw(self, name: str) -> None:
        """Stop listening for `name`, and cut its connections."""
        published = self._published.pop(name, None)
        if published is not None:
            _end(published.listeners)
            self._send({"withdraw": name}, [])

    def close(self) -> None:
        """Withdraw all and end the helper."""
        for name in list(self._published):
            self.withdraw(name)
        self._drop()

    def _start(self) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.settimeout(SEND_TIMEOUT_S)
        parent = os.getpid()
        self.pid = os.fork()
        if self.pid == 0:
            _serve(theirs, parent)
        theirs.close()
        self._control = ours
        self._loop.add_reader(ours.fileno(), self._helper_gone)
        for name in list(self._published):
            self._tell(name)

    def _tell(self, name: str) -> None:
        published = self._published[name]
        message: dict[str, Any] = {
            "publish": name,
            "address": published.address,
            "ports": [port for _, port in published.listeners],
        }
        self._send(message, [listener.fileno() for listener, _ in published.listeners])

    def _send(self, message: dict[str, Any], descriptors: list[int]) -> None:
        if self._control is None:
            return
        try:
            socket.send_fds(self._control, [json.dumps(message).encode()], descriptors)
        except OSError:
            self._helper_gone()

    def _helper_gone(self) -> None:
        """It says nothing: what is readable is its end."""
        self._drop()
        self._loop.call_later(RESTART_S, self._restart)

    def _restart(self) -> None:
        if self._control is None and self._published:
            self._start()

    def _drop(self) -> None:
        if self._control is None:
            return
        self._loop.remove(self._control.fileno())
        self._control.close()
        self._control = None
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)  # our child, not yet reaped: the number is still its own
        with contextlib.suppress(ChildProcessError):
            os.waitpid(self.pid, 0)
        self.pid = 0


def _listen(port: int) -> socket.socket:
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("0.0.0.0", port))  # noqa: S104 - publishing is what this is for
        listener.listen(BACKLOG)
        listener.setblocking(False)
    except OSError as error:
        listener.close()
        why = "is taken by another program" if error.errno == errno.EADDRINUSE else str(error.strerror)
        raise OSError(error.errno, f"port {port} of this node: {why}") from error
    return listener


def _end(listeners: list[tuple[socket.socket, int]]) -> None:
    for listener, _ in listeners:
        with contextlib.suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)
        listener.close()


def _serve(control: socket.socket, parent: int) -> None:
    """The helper: without signals, descriptors and privileges of the sandboxer."""
    try:
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD):
            signal.signal(number, signal.SIG_DFL)
        linux.prctl(linux.PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(0)
        linux.set_name(HELPER_NAME)
        for entry in os.listdir("/proc/self/fd"):
            if int(entry) > 2 and int(entry) != control.fileno():
                with contextlib.suppress(OSError):
                    os.close(int(entry))
        capabilities.drop_all()
        linux.prctl(linux.PR_SET_NO_NEW_PRIVS, 1)
        network_forward.run(control)
    finally:
        os._exit(0)
