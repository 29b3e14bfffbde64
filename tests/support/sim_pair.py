"""Two simulated machines that talk: what was sent, what arrived when, in both kinds of connections.

`MessagePair` uses message ends, `StreamPair` asyncio's own streams over the simulated TCP; tests run on both.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from chaos.sim.host import Process, ProcessHost, SimHost
from chaos.sim.messages import MessageEnd, dial, listen
from chaos.sim.world import World

MS = 1_000_000
PORT = 7000


def unset(number: int) -> None:
    """The connection does not stand yet."""
    raise AssertionError("not connected")


class Side:
    """One end as a test sees it: `heard` is (milliseconds, number), or (milliseconds, word for the end)."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.heard: list[tuple[float, Any]] = []
        self.send: Callable[[int], None] = unset
        self.reads = asyncio.Event()
        self.reads.set()

    def hear(self, what: Any) -> None:
        self.heard.append((self.world.now_ns / MS, what))

    @property
    def numbers(self) -> list[int]:
        return [what for _, what in self.heard if isinstance(what, int)]

    @property
    def end(self) -> str | None:
        return next((what for _, what in self.heard if isinstance(what, str)), None)

    def when(self, what: Any) -> float:
        return next(ms for ms, each in self.heard if each == what)


class Pair:
    """`a` dials `b`, once; `processes` may be crashed, `hosts` powered off."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.hosts = {name: world.hosts.get(name) or world.host(name) for name in ("a", "b")}
        self.a, self.b = Side(world), Side(world)
        self.processes: dict[str, Process] = {}
        self.tasks: list[asyncio.Task[Any]] = []

    @property
    def host_b(self) -> SimHost:
        return self.hosts["b"]

    def start(self) -> None:
        """The connection stands when this returns; nothing was sent."""
        self.serve()
        self.processes["a"] = self.hosts["a"].spawn("dialer", self._dial)
        self.world.run_for(0.01)
        while self.a.send is unset or self.b.send is unset:
            self.world.run_for(1)

    def serve(self) -> None:
        self.processes["b"] = self.hosts["b"].spawn("server", self._serve)
        self.world.run_for(0.001)

    async def _dial(self, host: ProcessHost) -> None:
        raise NotImplementedError

    async def _serve(self, host: ProcessHost) -> None:
        raise NotImplementedError

    def send(self, side: str, *numbers: int) -> None:
        """Send in the process of that side."""
        for number in numbers:
            self.processes[side].post(self.sides[side].send, number)

    @property
    def sides(self) -> dict[str, Side]:
        return {"a": self.a, "b": self.b}

    def pairs(self) -> list[tuple[str, str]]:
        return [("a", "b"), ("b", "a")]


class MessagePair(Pair):
    async def _dial(self, host: ProcessHost) -> None:
        await self._talk(self.a, await dial(self.world.network, "b", PORT))

    async def _serve(self, host: ProcessHost) -> None:
        loop = asyncio.get_running_loop()
        listen(self.world.network, PORT, lambda end: self.tasks.append(loop.create_task(self._talk(self.b, end))))
        await loop.create_future()

    async def _talk(self, side: Side, end: MessageEnd) -> None:
        side.send = lambda number: end.send(number, 8)
        try:
            while True:
                await side.reads.wait()
                side.hear(await end.receive())
        except EOFError:
            side.hear("eof")
        except OSError as error:
            side.hear(type(error).__name__)
        await asyncio.get_running_loop().create_future()


class StreamPair(Pair):
    async def _dial(self, host: ProcessHost) -> None:
        await self._talk(self.a, *await asyncio.open_connection("b", PORT))

    async def _serve(self, host: ProcessHost) -> None:
        await asyncio.start_server(lambda reader, writer: self._talk(self.b, reader, writer), "b", PORT)
        await asyncio.get_running_loop().create_future()

    async def _talk(self, side: Side, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        side.send = lambda number: writer.write(number.to_bytes(8))
        try:
            while True:
                await side.reads.wait()
                side.hear(int.from_bytes(await reader.readexactly(8)))
        except asyncio.IncompleteReadError:
            side.hear("eof")
        except OSError as error:
            side.hear(type(error).__name__)
        await asyncio.get_running_loop().create_future()


KINDS: dict[str, type[Pair]] = {"messages": MessagePair, "streams": StreamPair}
