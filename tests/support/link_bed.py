"""A bed for link tests: replicas' links on kernel-given ports, and a TCP relay that can cut directions."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from aiohttp import web

from cluster.aiohttp_network import AiohttpNetwork, knocking
from cluster.clock import SystemClock
from cluster.dice import SeededDice
from cluster.sockets import Listener, listen
from cluster.trace import Tracer
from cluster.trace_writer import file_tracer
from cluster.transport import LinkIdentity, Links
from raft.messages import Append, AppendReply, Entry, Message

TOKEN = "a-token-for-tests"
DEADLINE_S = 8.0


async def until(condition: Callable[[], Any], what: str, deadline_s: float = DEADLINE_S) -> None:
    """Wait for a condition of the loop's own state, looking on every turn of the loop; fails loudly."""
    loop = asyncio.get_running_loop()
    end = loop.time() + deadline_s
    while not condition():
        assert loop.time() < end, f"within {deadline_s} s it never came true that {what}"
        await asyncio.sleep(0.002)


class Member:
    """One replica's links, with everything it heard."""

    def __init__(self, node: str, *, store_id: str = "", cluster: str = "bed") -> None:
        self.node = node
        self.store_id = store_id or f"{ord(node[-1]):032x}"
        self.cluster = cluster
        self.cluster_id = ""
        self.retired: tuple[str, ...] = ()
        self.token = TOKEN
        self.port = 0
        self.heard: list[tuple[str, Message]] = []
        self.served: list[tuple[str, str, bytes]] = []
        self.hold: asyncio.Event | None = None
        self.serve_error: Exception | None = None
        self.trace_dir: Path | None = None
        self.heartbeat_sample = 1
        self.routine: tuple[str, ...] = ()
        self.lives = 0
        self.tracer: Tracer
        self.links: Links
        self.listener: Listener | None = None
        self._task: asyncio.Task[None] | None = None

    async def listen_first(self) -> None:
        """Take a port before addresses are handed out."""
        app = web.Application()
        app.router.add_get("/v1/links", self._handle)
        self.listener = await listen(app, f"127.0.0.1:{self.port}", key="replica.listen_links")
        self.port = self.listener.port

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        return await knocking(self.links.sockets()["/v1/links"])(request)

    def start(self, addresses: dict[str, str]) -> None:
        self.lives += 1
        self.tracer = file_tracer(
            self.node,
            self.trace_dir,
            SystemClock(),
            incarnation=f"{self.lives:02x}{ord(self.node[-1]):06x}",
            heartbeat_sample=self.heartbeat_sample,
        )
        self.links = Links(
            identity=LinkIdentity(
                self.node, self.store_id, self.cluster, lambda: self.cluster_id, retired=lambda: self.retired
            ),
            peers=addresses,
            token=self.token,
            tracer=self.tracer,
            clock=SystemClock(),
            dice=SeededDice(self.lives),
            deliver=lambda sender, message, store: self.heard.append((sender, message)),
            serve=self._serve,
            network=AiohttpNetwork(),
            requests_max=4,
            routine=self.routine,
        )
        self._task = asyncio.create_task(self.links.run())

    async def _serve(self, sender: str, method: str, body: bytes) -> bytes:
        self.served.append((sender, method, body))
        if self.hold is not None:
            await self.hold.wait()
        if self.serve_error is not None:
            raise self.serve_error
        return method.encode() + b":" + body

    async def stop(self) -> None:
        if self._task is not None:
            await self.links.close()
            await self._task
            self._task = None
        if self.listener is not None:
            await self.listener.close()
            self.listener = None
        self.tracer.close()

    def indexes(self, sender: str) -> list[int]:
        """prev_index of every Append heard from `sender`."""
        return [m.prev_index for s, m in self.heard if s == sender and isinstance(m, Append)]


def append(number: int, entries: int = 0) -> Append:
    return Append(1, number, 1, 0, 0, tuple(Entry(1, number + 1 + i, 1, b"x" * 100) for i in range(entries)))


def reply(number: int) -> AppendReply:
    return AppendReply(1, True, number, 0, 0, 0)


class Relay:
    """Forwards TCP to `upstream`; each direction can be swallowed, and connections can be ended."""

    def __init__(self, upstream_port: Callable[[], int]) -> None:
        self._upstream_port = upstream_port
        self.port = 0
        self.forward_cut = False
        self.backward_cut = False
        self.forward_bytes_swallowed = 0
        self.opened = 0
        self._server: asyncio.Server | None = None
        self._writers: list[asyncio.StreamWriter] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._doomed: set[int] = set()

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.opened += 1
        number = self.opened
        self._writers.append(writer)
        try:
            upstream_reader, upstream_writer = await asyncio.open_connection("127.0.0.1", self._upstream_port())
        except OSError:
            writer.close()
            return
        self._writers.append(upstream_writer)
        try:
            await asyncio.gather(
                self._pump(number, reader, upstream_writer, True),
                self._pump(number, upstream_reader, writer, False),
            )
        except asyncio.CancelledError:
            return  # stop() ends it; streams log a cancelled acceptor as an error

    async def _pump(
        self, number: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, forward: bool
    ) -> None:
        try:
            while data := await reader.read(65536):
                if self.forward_cut if forward else self.backward_cut:
                    self._doomed.add(number)  # bytes are lost: this connection can never be right again
                if number in self._doomed:
                    self.forward_bytes_swallowed += len(data) if forward else 0
                    continue
                writer.write(data)
                await writer.drain()
        except (ConnectionError, asyncio.CancelledError):
            pass
        finally:
            if number not in self._doomed:
                writer.close()

    def cut(self, *, forward: bool = True, backward: bool = True) -> None:
        self.forward_cut, self.backward_cut = forward, backward

    def heal(self, *, end_connections: bool = True) -> None:
        """Let new connections through; old ones get EOF (as Toxiproxy does) or hang for ever."""
        self.forward_cut = self.backward_cut = False
        if end_connections:
            for writer in self._writers:
                writer.close()
            self._writers.clear()

    async def stop(self) -> None:
        if self._server is not None:
            self._server.close()
        for writer in self._writers:
            writer.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


@asynccontextmanager
async def pair(*, relayed: bool = False, **overrides: Any) -> AsyncIterator[tuple[Member, Member, dict[str, Relay]]]:
    """n1 and n2; with `relayed`, each dials the other through the relay named ``n1~n2`` or ``n2~n1``."""
    one, two = Member("n1"), Member("n2")
    for name, value in overrides.items():
        setattr(one, name, value)
        setattr(two, name, value)
    relays: dict[str, Relay] = {}
    for member in (one, two):
        await member.listen_first()
    for source, target in ((one, two), (two, one)):
        relay = Relay(lambda target=target: target.port)  # type: ignore[misc]
        if relayed:
            await relay.start()
        relays[f"{source.node}~{target.node}"] = relay
    ports = {"n1~n2": two.port, "n2~n1": one.port}
    if relayed:
        ports = {name: relay.port for name, relay in relays.items()}
    one.start({"n1": "127.0.0.1:1", "n2": f"127.0.0.1:{ports['n1~n2']}"})
    two.start({"n2": "127.0.0.1:1", "n1": f"127.0.0.1:{ports['n2~n1']}"})
    try:
        yield one, two, relays
    finally:
        for member in (one, two):
            await member.stop()
        for relay in relays.values():
            await relay.stop()


def is_up(member: Member, peer: str) -> bool:
    return any(status.outgoing for status in member.links.peers_status() if status.peer == peer)


async def both_up(one: Member, two: Member) -> None:
    await until(lambda: is_up(one, two.node) and is_up(two, one.node), "both links are up")
