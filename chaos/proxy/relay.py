"""One proxy: a listener, its connections, its toxics and its counters.

Owns: applying toxics to living and new connections at one moment, and telling the trace what
was injected and how many bytes crossed.  Must not know: HTTP.
"""

from __future__ import annotations

import asyncio
import socket
from random import Random
from typing import Any, Protocol

import msgspec

from chaos.proxy.connection import Connection
from chaos.proxy.pipe import Counters, Pipe
from chaos.proxy.stages import STAGES
from chaos.proxy.toxic import STREAMS, BadRequest, ProxySpec, Stream, Toxic, parse_address

CONNECTIONS_MAX = 1024
"""Connections of one proxy; further ones are closed at once."""
TOXICS_MAX = 64
ACCEPTS_AT_ONCE = 64
BACKLOG = 512


class Emitter(Protocol):
    """Where trace events go (`cluster.trace.Tracer` or a test's list)."""

    def emit(self, kind: str, /, **fields: Any) -> object:
        """Record one event."""
        ...


class _Injected:
    """One fault in force: its id, and the counters at its start."""

    def __init__(self, id: str, kind: str, forwarded: int, discarded: int) -> None:
        self.id = id
        self.kind = kind
        self.forwarded = forwarded
        self.discarded = discarded


class Relay:
    """A proxy of the API; at most one listener at a time."""

    def __init__(self, spec: ProxySpec, emitter: Emitter, dice: Random, run_id: str) -> None:
        self.spec = spec
        self.toxics: dict[str, Toxic] = {}
        self.counters: dict[Stream, Counters] = {stream: Counters() for stream in STREAMS}
        self.connections_total = 0
        self.refused_total = 0
        self._emitter = emitter
        self._dice = dice
        self._run_id = run_id
        self._injected: dict[str, _Injected] = {}
        self._fault_count = 0
        self._connections: dict[int, Connection] = {}
        self._dials: set[asyncio.Task[None]] = set()
        self._listener: socket.socket | None = None

    # -- the listener ---------------------------------------------------------------------

    async def open(self) -> None:
        """Listen; raises OSError when the address is taken."""
        if self._listener is not None:
            return
        loop = asyncio.get_running_loop()
        host, port = parse_address(self.spec.listen, "listen")
        found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, kind, protocol, _, where = found[0]
        listener = socket.socket(family, kind, protocol)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.setblocking(False)
            listener.bind(where)
            listener.listen(BACKLOG)
        except BaseException:
            listener.close()
            raise
        self._listener = listener
        self.spec.listen = _text_address(listener)
        loop.add_reader(listener, self._accept)

    def close(self) -> None:
        """Stop listening and drop every connection."""
        if self._listener is not None:
            asyncio.get_running_loop().remove_reader(self._listener)
            self._listener.close()
            self._listener = None
        for task in list(self._dials):
            task.cancel()
        self.drop_connections()

    def drop_connections(self) -> None:
        """Close every living connection."""
        for connection in list(self._connections.values()):
            connection.close()

    async def drained(self) -> None:
        """Wait for dials in flight to notice that they were cancelled."""
        await asyncio.gather(*self._dials, return_exceptions=True)

    def _accept(self) -> None:
        loop = asyncio.get_running_loop()
        for _ in range(ACCEPTS_AT_ONCE):
            if self._listener is None:
                return
            try:
                client, _ = self._listener.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError:  # out of descriptors: the backlog waits a little
                listener = self._listener
                loop.remove_reader(listener)
                loop.call_later(0.1, self._listen_again, listener)
                return
            if len(self._connections) >= CONNECTIONS_MAX:
                self.refused_total += 1
                client.close()
                continue
            self._welcome(loop, client)

    def _listen_again(self, listener: socket.socket) -> None:
        if self._listener is listener:
            asyncio.get_running_loop().add_reader(listener, self._accept)

    def _welcome(self, loop: asyncio.AbstractEventLoop, client: socket.socket) -> None:
        connection = Connection(loop, client, self.counters, self._gone)
        self._connections[id(connection)] = connection
        self.connections_total += 1
        for toxic in self.toxics.values():
            self._infect(connection, toxic)
        task = loop.create_task(connection.run(parse_address(self.spec.upstream, "upstream")))
        self._dials.add(task)
        task.add_done_callback(self._dials.discard)

    def _gone(self, connection: Connection) -> None:
        self._connections.pop(id(connection), None)

    # -- toxics ---------------------------------------------------------------------------

    def add_toxic(self, toxic: Toxic) -> None:
        """Put the toxic into force now; when this returns, a silenced stream is silent."""
        if len(self.toxics) >= TOXICS_MAX:
            raise BadRequest(f"a proxy has at most {TOXICS_MAX} toxics")
        self.toxics[toxic.name] = toxic
        discarded = self._totals(toxic.stream)[1]  # what the cut throws away counts from here
        for connection in list(self._connections.values()):
            self._infect(connection, toxic)
        self._tell_fault(toxic)
        self._injected[toxic.name].discarded = discarded

    def update_toxic(self, toxic: Toxic, attributes: dict[str, int], toxicity: float) -> None:
        """Change attributes (in place) and toxicity (living connections throw the coin again)."""
        throw_again = toxicity != toxic.toxicity
        self._tell_heal(toxic.name)
        toxic.attributes, toxic.toxicity = attributes, toxicity
        for connection in list(self._connections.values()):
            if throw_again:
                self._cure(connection, toxic)
                if not connection.closed:
                    self._infect(connection, toxic)
                continue
            for stage in connection.pipes[toxic.stream].stages():
                if stage.toxic is toxic:
                    stage.update()
        self._tell_fault(toxic)

    def remove_toxic(self, name: str) -> None:
        """Take the toxic out of force; silenced connections close, so that peers dial again."""
        toxic = self.toxics[name]
        crossed = self._crossed(self._injected[name], toxic.stream)
        for connection in list(self._connections.values()):
            self._cure(connection, toxic)
        self._tell_heal(name, crossed)
        del self.toxics[name]

    def _infect(self, connection: Connection, toxic: Toxic) -> None:
        if toxic.toxicity < 1 and self._dice.random() >= toxic.toxicity:
            return
        pipe: Pipe = connection.pipes[toxic.stream]
        stage = STAGES[toxic.type](toxic, asyncio.get_running_loop(), self._dice, pipe)
        pipe.add(stage, silences=toxic.silences())

    def _cure(self, connection: Connection, toxic: Toxic) -> None:
        pipe = connection.pipes[toxic.stream]
        for stage in pipe.stages():
            if stage.toxic is toxic:
                pipe.take_out(stage)

    # -- enabled --------------------------------------------------------------------------

    async def set_enabled(self, enabled: bool) -> None:
        """Disabled = connection refused for all; raises OSError when the port is taken again."""
        if enabled == self.spec.enabled:
            return
        if enabled:
            await self.open()
            self.spec.enabled = True
            self._tell_heal("")
        else:
            self.spec.enabled = False
            self.close()
            self._tell("", "down", {}, None)

    # -- the trace ------------------------------------------------------------------------

    def document(self) -> dict[str, Any]:
        """The JSON form of the API."""
        spec: dict[str, Any] = msgspec.to_builtins(self.spec)
        return spec | {"toxics": [toxic.document() for toxic in self.toxics.values()]}

    def counters_document(self) -> dict[str, Any]:
        """Bytes by stream, and connections."""
        streams = {stream: counters.document() for stream, counters in self.counters.items()}
        numbers = {
            "connections": len(self._connections),
            "connections_total": self.connections_total,
            "refused_total": self.refused_total,
        }
        return streams | numbers

    def end_faults(self) -> None:
        """The proxy goes away: every fault in force ends in the trace."""
        for name in list(self._injected):
            self._tell_heal(name)

    def _tell_fault(self, toxic: Toxic) -> None:
        args = dict(toxic.attributes) | {"toxicity": toxic.toxicity}
        self._tell(toxic.name, toxic.type, args, toxic.stream)

    def _tell(self, name: str, kind: str, args: dict[str, Any], stream: Stream | None) -> None:
        self._fault_count += 1
        forwarded, discarded = self._totals(stream)
        fault = _Injected(f"{self.spec.name}#{self._run_id}.{self._fault_count}", kind, forwarded, discarded)
        self._injected[name] = fault
        self._emitter.emit(
            "fault",
            id=fault.id,
            kind=kind,
            target=self.spec.name,
            args=args,
            by=self._by(name, stream),
            counters={"bytes_forwarded": forwarded},
        )

    def _tell_heal(self, name: str, crossed: dict[str, int] | None = None) -> None:
        fault = self._injected.pop(name, None)
        if fault is None:
            return
        stream = self.toxics[name].stream if name in self.toxics else None
        self._emitter.emit(
            "heal",
            id=fault.id,
            kind=fault.kind,
            target=self.spec.name,
            by=self._by(name, stream),
            counters=crossed or self._crossed(fault, stream),
        )

    def _by(self, name: str, stream: Stream | None) -> dict[str, Any]:
        return {"proxy": self.spec.name, "toxic": name or None, "stream": stream or "both"}

    def _totals(self, stream: Stream | None) -> tuple[int, int]:
        counted = [self.counters[each] for each in STREAMS if stream in (None, each)]
        return sum(each.forwarded for each in counted), sum(each.discarded for each in counted)

    def _crossed(self, fault: _Injected, stream: Stream | None) -> dict[str, int]:
        forwarded, discarded = self._totals(stream)
        return {
            "bytes_forwarded": forwarded,
            "bytes_since_fault": forwarded - fault.forwarded,
            "bytes_discarded": discarded - fault.discarded,
        }


def _text_address(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
