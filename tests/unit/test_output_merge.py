"""Reading output through whichever replica holds a node's session."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from cluster.errors import PeerUnreachable
from raft.errors import SkerryError
from scheduler.errors import NodeUnreachable
from scheduler.output import OutputReader
from scheduler.session import LogLine, LogsReply


class Session:
    def __init__(self, lines: list[LogLine], error: SkerryError | None = None) -> None:
        self.lines = lines
        self.error = error
        self.waits: list[int] = []
        self.arrived = asyncio.Event()
        self.waiting = asyncio.Event()

    async def logs(self, allocation: str, cursor: str, lines_max: int, wait_ms: int, *, timeout_s: float) -> LogsReply:
        self.waits.append(wait_ms)
        if self.error is not None:
            raise self.error
        if wait_ms and not self.lines:
            self.waiting.set()
            try:
                async with asyncio.timeout(wait_ms / 1000):
                    await self.arrived.wait()
            except TimeoutError:
                pass
        first = int(cursor or 0)
        found = tuple(self.lines[first : first + lines_max])
        return LogsReply(1, found, str(first + len(found)), False, "")


class Held(dict[str, Session]):
    pass


class Wire:
    def __init__(self) -> None:
        self.readers: dict[str, OutputReader] = {}

    async def request(self, to: str, method: str, body: bytes, *, timeout_s: float) -> bytes:
        if to not in self.readers:
            raise PeerUnreachable(f"{to} is gone")
        return await self.readers[to].serve(body)


def replicas(**held: dict[str, Session]) -> tuple[dict[str, OutputReader], Wire]:
    wire = Wire()
    for name, sessions in held.items():
        others = [other for other in held if other != name]
        wire.readers[name] = OutputReader(others=others, held=Held(sessions), peers=wire)
    return wire.readers, wire


def line(t: float, text: str) -> LogLine:
    return LogLine(t, "stdout", text)


async def read(reader: OutputReader, nodes: dict[str, str], **options: Any) -> Any:
    return await reader.read(nodes, options.pop("cursors", {}), **({"lines_max": 100, "wait_ms": 0} | options))


async def test_lines_of_several_nodes_are_merged_by_time() -> None:
    readers, _ = replicas(n1={"a1": Session([line(1, "a"), line(3, "c")])}, n2={"a2": Session([line(2, "b")])}, n3={})
    for reader in readers.values():
        output = await read(reader, {"d/j.0": "a1", "d/j.1": "a2"})
        assert [(one.allocation, one.text) for one in output.lines] == [("d/j.0", "a"), ("d/j.1", "b"), ("d/j.0", "c")]
        assert output.cursors == {"d/j.0": "2", "d/j.1": "1"}


async def test_a_node_nobody_holds_is_unreachable_alone_and_a_noted_error_among_others() -> None:
    readers, _ = replicas(n1={"a1": Session([line(1, "a")])}, n2={})
    with pytest.raises(NodeUnreachable):
        await read(readers["n2"], {"d/j.1": "a9"})
    output = await read(readers["n2"], {"d/j.0": "a1", "d/j.1": "a9"})
    assert ([one.text for one in output.lines], output.errors) == (["a"], {"d/j.1": "node-unreachable"})


async def test_an_error_of_the_holding_replica_keeps_its_code() -> None:
    error = NodeUnreachable("no answer")
    readers, _ = replicas(n1={"a1": Session([], error)}, n2={})
    with pytest.raises(SkerryError) as caught:
        await read(readers["n2"], {"d/j.0": "a1"})
    assert (caught.value.code, caught.value.message) == ("node-unreachable", "no answer")


async def test_a_dead_replica_does_not_hide_the_one_that_holds_the_session() -> None:
    readers, wire = replicas(n1={}, n2={"a1": Session([line(1, "a")])}, n3={})
    del wire.readers["n3"]
    output = await read(readers["n1"], {"d/j.0": "a1"})
    assert [one.text for one in output.lines] == ["a"]


async def test_a_follower_waits_only_when_nothing_is_there_and_gets_the_first_lines_at_once() -> None:
    quiet, busy = Session([]), Session([])
    readers, _ = replicas(n1={"a1": quiet, "a2": busy})
    reading = asyncio.ensure_future(read(readers["n1"], {"d/j.0": "a1", "d/j.1": "a2"}, wait_ms=20_000))
    await busy.waiting.wait()
    busy.lines.append(line(1, "now"))
    busy.arrived.set()
    async with asyncio.timeout(5):
        output = await reading
    assert [one.text for one in output.lines] == ["now"]
    assert output.cursors == {"d/j.1": "1"}, "the quiet one goes on where it was"
