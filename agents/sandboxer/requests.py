"""Requests in, answers and events out, whatever carries them.

Owns: the translation of a client's messages to events and of effects to messages, who may ask.
Must not know: sockets, processes or cgroups; nothing here decides about a workload.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from agents.sandboxer import events as ev
from agents.sandboxer import protocol, terms
from agents.sandboxer.core import Core
from agents.sandboxer.fence import LEASE_NS_MAX
from agents.sandboxer.spec import ALLOCATION_PATTERN, EPOCH_MAX, GRACE_MS_MAX, BadSpec, parse

if TYPE_CHECKING:
    from agents.sandboxer.runtime import Runtime
    from agents.sandboxer.surroundings import Loop


class Desk:
    """Serves clients, which are numbers here.  `hello`: the fields of the hello answer that never change.

    `send` takes a client's message, and ignores clients that are gone.
    """

    def __init__(
        self, loop: Loop, core: Core, hello: protocol.Json, send: Callable[[int, protocol.Json], None]
    ) -> None:
        self._loop = loop
        self._core = core
        self._hello = hello
        self._send = send
        self._greeted: dict[int, None] = {}
        self._runtime: Runtime
        self._finished: Callable[[ev.Finish], None]

    def open(self, runtime: Runtime, finished: Callable[[ev.Finish], None]) -> None:
        """Serve with this runtime; `finished` is told of the end."""
        self._runtime = runtime
        self._finished = finished

    def left(self, client: int) -> None:
        """A client is gone."""
        self._greeted.pop(client, None)

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
                for client in list(self._greeted):
                    self._send(client, dict(message))
            case ev.Finish():
                self._finished(effect)

    def answer(self, caller: ev.Caller, fields: protocol.Json) -> None:
        """Answer a request."""
        self._send(caller.client, {"re": caller.request, "ok": True, **fields})

    def _refuse(self, refusal: ev.Refuse) -> None:
        fields = {"code": refusal.code, "message": refusal.message, "hint": refusal.hint}
        answer = {"re": refusal.caller.request, "ok": False, **fields, "retryable": refusal.retryable}
        self._send(refusal.caller.client, answer)

    # -- requests ---------------------------------------------------------------------------------

    def take(self, client: int, message: protocol.Json) -> None:
        """Take a client's message; ProtocolError when no correct client sends it."""
        number = message.get("id")
        if not isinstance(number, int):
            raise protocol.ProtocolError("a request without an id")
        caller = ev.Caller(client, number)
        op = message.get("op")
        if op == "hello":
            self._greet(caller, message)
            return
        if client not in self._greeted:
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

    def _greet(self, caller: ev.Caller, message: protocol.Json) -> None:
        if message.get("protocol") != protocol.PROTOCOL_VERSION:
            text = f"this sandboxer speaks protocol {protocol.PROTOCOL_VERSION}, not {message.get('protocol')!r}"
            hint = "stop it with its own version, or use that version's agent"
            self._refuse(ev.Refuse(caller, terms.PROTOCOL_MISMATCH, text, hint, False))
            return
        self._greeted[caller.client] = None
        self.answer(caller, {**self._hello, "sequence": self._core.sequence})

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
