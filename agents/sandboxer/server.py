"""The sandboxer's socket: clients in, answers and events out.

Owns: connections, their limits, the translation of requests to events.
Must not know: processes or cgroups; nothing here decides about a workload.

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
from typing import Any, Final

from agents.sandboxer import events as ev
from agents.sandboxer import linux, protocol, terms
from agents.sandboxer.core import Core
from agents.sandboxer.fence import LEASE_NS_MAX
from agents.sandboxer.loop import Loop
from agents.sandboxer.runtime import Runtime
from agents.sandboxer.spec import ALLOCATION_PATTERN, EPOCH_MAX, GRACE_MS_MAX, BadSpec, parse
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
    greeted: bool = False


class Server:
    """Listens in `directory`.  `hello`: the fields of the hello answer that never change."""

    def __init__(self, loop: Loop, directory: str, core: Core, tracer: Tracer, hello: protocol.Json) -> None:
        self._loop = loop
        self._core = core
        self._tracer = tracer
        self._hello = hello
        self._clients: dict[int, Client] = {}
        self._next_number = 1
        self._directory_fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self._path = protocol.reachable_path(directory, self._directory_fd)
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
        self._runtime: Runtime
        self.finished: Callable[[ev.Finish], None]

    def listen(self, runtime: Runtime, finished: Callable[[ev.Finish], None]) -> None:
        """Take connections; the lock on the directory is held, so a socket in it is a dead one's."""
        self._runtime = runtime
        self.finished = finished
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

    def say(self, effect: ev.Reply | ev.Refuse | ev.Announce | ev.Finish) -> None:
        """Carry out an effect meant for clients."""
        match effect:
            case ev.Reply():
                fields = dict(effect.fields)
                if fields.get("record") is not None:
                    fields["record"] = self._runtime.describe(fields["record"])
                self.answer(effect.caller, fields)
            case ev.Refuse():
                self._refuse(effect)
            case ev.Announce():
                record = self._runtime.describe(effect.record)
                message = {"ev": effect.kind, "sequence": effect.sequence, "record": record}
                for client in list(self._clients.values()):
                    if client.greeted:
                        self._send(client, message)
            case ev.Finish():
                self.finished(effect)

    def answer(self, caller: ev.Caller, fields: protocol.Json) -> None:
        """Answer a request, if its client is still there."""
        client = self._clients.get(caller.client)
        if client is not None:
            self._send(client, {"re": caller.request, "ok": True, **fields})

    def _refuse(self, refusal: ev.Refuse) -> None:
        client = self._clients.get(refusal.caller.client)
        if client is not None:
            fields = {"code": refusal.code, "message": refusal.message, "hint": refusal.hint}
            self._send(client, {"re": refusal.caller.request, "ok": False, **fields, "retryable": refusal.retryable})

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

    def _send(self, client: Client, message: protocol.Json) -> None:
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
                self._take(client, message)
        except BlockingIOError:
            return
        except (OSError, protocol.ProtocolError):
            self._drop(client)

    # -- requests ---------------------------------------------------------------------------------

    def _take(self, client: Client, message: protocol.Json) -> None:
        number = message.get("id")
        if not isinstance(number, int):
            raise protocol.ProtocolError("a request without an id")
        caller = ev.Caller(client.number, number)
        op = message.get("op")
        if op == "hello":
            self._greet(client, caller, message)
            return
        if not client.greeted:
            raise protocol.ProtocolError("a request before hello")
        handler = {
            "start": self._start,
            "renew": self._renew,
            "stop": self._stop,
            "list": self._list,
            "usage": self._usage,
            "forget": self._forget,
            "shutdown": self._shutdown,
        }.get(str(op))
        try:
            if handler is None:
                raise BadSpec(f"no operation {op!r}")
            handler(caller, message)
        except BadSpec as error:
            self._refuse(ev.Refuse(caller, terms.BAD_REQUEST, str(error), "correct the request", False))

    def _greet(self, client: Client, caller: ev.Caller, message: protocol.Json) -> None:
        if message.get("protocol") != protocol.PROTOCOL_VERSION:
            text = f"this sandboxer speaks protocol {protocol.PROTOCOL_VERSION}, not {message.get('protocol')!r}"
            hint = "stop it with its own version, or use that version's agent"
            self._refuse(ev.Refuse(caller, terms.PROTOCOL_MISMATCH, text, hint, False))
            return
        self.answer(caller, {**self._hello, "sequence": self._core.sequence})
        client.greeted = True

    def _start(self, caller: ev.Caller, message: protocol.Json) -> None:
        registration = _integer(message, "registration", 0, EPOCH_MAX) if "registration" in message else 0
        self._runtime.dispatch(ev.StartAsked(caller, parse(message.get("spec")), registration))

    def _renew(self, caller: ev.Caller, message: protocol.Json) -> None:
        deadline_ns = _integer(message, "deadline_ns", 0, self._loop.now_ns() + LEASE_NS_MAX)
        registration = _integer(message, "registration", 0, EPOCH_MAX)
        self._runtime.dispatch(ev.RenewAsked(caller, deadline_ns, registration))

    def _stop(self, caller: ev.Caller, message: protocol.Json) -> None:
        allocation, epoch = _key(message)
        own = message.get("grace_ms") is None
        grace_ms = None if own else _integer(message, "grace_ms", 0, GRACE_MS_MAX)
        self._runtime.dispatch(ev.StopAsked(caller, allocation, epoch, grace_ms))

    def _forget(self, caller: ev.Caller, message: protocol.Json) -> None:
        self._runtime.dispatch(ev.ForgetAsked(caller, *_key(message)))

    def _list(self, caller: ev.Caller, message: protocol.Json) -> None:
        self.answer(caller, {"records": [self._runtime.describe(record) for record in self._core.records()]})

    def _usage(self, caller: ev.Caller, message: protocol.Json) -> None:
        workloads, node = self._runtime.usage()
        self.answer(caller, {"workloads": workloads, "node": node})

    def _shutdown(self, caller: ev.Caller, message: protocol.Json) -> None:
        self._runtime.dispatch(ev.ShutdownAsked(caller, message.get("stop_workloads") is not False))


def _key(message: protocol.Json) -> tuple[str, int]:
    allocation = message.get("allocation")
    if not isinstance(allocation, str) or not ALLOCATION_PATTERN.match(allocation):
        raise BadSpec(f"allocation {allocation!r} is not a name")
    return allocation, _integer(message, "epoch", 0, EPOCH_MAX)


def _integer(message: dict[str, Any], name: str, lowest: int, highest: int) -> int:
    value = message.get(name)
    if not isinstance(value, int) or isinstance(value, bool) or not lowest <= value <= highest:
        raise BadSpec(f"{name} is {value!r}, not an integer from {lowest} to {highest}")
    return value
