"""The event stream, the trace of operations, and an orderly end with everybody connected."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.support.agents import FakeAgent
from tests.support.replicas import Answered, ReplicaCluster


@pytest.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[ReplicaCluster]:
    async with ReplicaCluster(tmp_path) as made:
        await made.start()
        await made.whole()
        yield made


class Stream:
    """One event stream, line by line."""

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self.response = response
        self.lines: list[dict[str, Any]] = []

    async def next(self) -> dict[str, Any]:
        async with asyncio.timeout(10):
            line = await self.response.content.readline()
        if not line:
            raise EOFError
        self.lines.append(json.loads(line))
        return self.lines[-1]

    async def until(self, kind: str, **fields: Any) -> dict[str, Any]:
        while True:
            line = await self.next()
            if line["k"] == kind and all(line.get(key) == value for key, value in fields.items()):
                return line


@asynccontextmanager
async def follow(cluster: ReplicaCluster, via: str, since: int = 0) -> AsyncIterator[Stream]:
    assert cluster.http is not None
    url = f"{cluster.url(via)}/v1/events?since={since}"
    async with cluster.http.get(url, headers={"Authorization": f"Bearer {cluster.api_token}"}) as response:
        assert (response.status, response.content_type) == (200, "application/x-ndjson")
        yield Stream(response)


async def test_changes_are_streamed_as_they_are_applied_and_resumed_by_index(cluster: ReplicaCluster) -> None:
    first = await cluster.submit("one", via="n1")
    async with follow(cluster, "n2") as stream:
        assert (await stream.until("job", job="default/one"))["index"] == first["index"]
        second = await cluster.submit("two", via="n3")
        assert (await stream.until("job", job="default/two"))["index"] == second["index"]
    async with follow(cluster, "n3", since=first["index"]) as resumed:
        assert (await resumed.until("job"))["job"] == "default/two"


async def test_the_stream_of_a_restarted_replica_has_everything_again(cluster: ReplicaCluster) -> None:
    await cluster.submit("one", via="n1")
    await cluster.replicas["n1"].kill()
    await cluster.start("n1")
    await cluster.whole()
    async with follow(cluster, "n1") as stream:
        assert (await stream.until("job"))["job"] == "default/one"


async def test_a_reader_from_the_future_is_told_of_the_gap(cluster: ReplicaCluster) -> None:
    async with follow(cluster, "n1", since=1 << 40) as stream:
        assert (await stream.next())["k"] == "gap"


async def test_sigterm_with_sessions_and_streams_open_ends_everything_in_order(cluster: ReplicaCluster) -> None:
    agent = FakeAgent("a1")
    await agent.connect(cluster.link_ports["n1"], cluster.link_token)
    await agent.wait(lambda a: a.index > 0)
    async with follow(cluster, "n1") as stream:
        started = time.monotonic()
        assert await cluster.replicas["n1"].stop() == 0
        assert time.monotonic() - started < 2.0
        assert (await stream.until("end"))["why"] == "the replica stops"
    await agent.wait(lambda a: a.goodbye == "stopping")
    await agent.close()


async def test_every_operation_is_in_the_trace_with_its_outcome(cluster: ReplicaCluster, tmp_path: Path) -> None:
    done = await cluster.submit("one", via="n2", request_id="r-ok")
    with pytest.raises(Answered):
        await cluster.submit("one", via="n2", request_id="r-bad", expected_version=7, command=["/bin/false"])
    await cluster.call("GET", "/v1/jobs/default/one", via="n2")
    for replica in cluster.replicas.values():
        assert await replica.stop() == 0
    events = [
        json.loads(line)
        for path in sorted((tmp_path / "trace").glob("*.jsonl"))
        for line in path.read_text().splitlines()
    ]
    operations = {(event["id"], event["ph"]): event for event in events if event["k"] == "op"}
    assert operations["r-ok", "ok"]["value"]["index"] == done["index"]
    assert ("r-ok", "invoke") in operations
    assert operations["r-bad", "fail"]["code"] == "version-conflict"
    reads = [event for event in operations.values() if event["op"] == "read" and event["ph"] == "ok"]
    assert reads[0]["value"]["version"] == 1
    seen = [event for event in events if event["k"] == "job" and event["request_id"] == "r-ok"]
    assert {event["n"] for event in seen} == {"n1", "n2", "n3"}
    assert {event["index"] for event in seen} == {done["index"]}
