"""The trace through the API, fetching it, and readiness."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from skerry.errors import ApiError, Unreachable
from skerry.trace_fetch import fetch_trace
from tests.support.replicas import Answered, ReplicaCluster


@pytest.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[ReplicaCluster]:
    async with ReplicaCluster(tmp_path) as made:
        await made.start()
        await made.whole()
        yield made


async def get(cluster: ReplicaCluster, path: str, token: str | None = None) -> tuple[int, bytes]:
    assert cluster.http is not None
    headers = {"Authorization": f"Bearer {cluster.api_token if token is None else token}"}
    async with cluster.http.get(cluster.url("n1") + path, headers=headers) as answer:
        return answer.status, await answer.read()


async def test_a_fetched_trace_is_what_the_processes_wrote_and_goes_on_where_it_ended(
    cluster: ReplicaCluster, tmp_path: Path
) -> None:
    source, out = tmp_path / "trace", tmp_path / "fetched"
    # the torn tail of a process that was killed: never given
    torn = source / "a9-0badcafe.jsonl"
    torn.write_bytes(b'{"i":1}\n{"i":2}\n{"i":3')
    (source / "notes.txt").write_text("not a trace")
    (source / "a8-00c0ffee.jsonl").symlink_to("/etc/hostname")
    addresses = [cluster.url(name) for name in cluster.names]

    async def all_have_written() -> bool:
        return len(list(source.glob("n*-*.jsonl"))) == 3

    await cluster.until(all_have_written)
    first = await fetch_trace(addresses, token=cluster.api_token, out=out)
    names = sorted(path.name for path in source.glob("n*-*.jsonl"))
    assert sorted(path.name for path in out.iterdir()) == sorted(["a9-0badcafe.jsonl", *names])
    assert (out / torn.name).read_bytes() == b'{"i":1}\n{"i":2}\n'
    assert (first.files, first.unreachable) == (4, ())

    await cluster.submit("one", via="n1")
    sizes = {path.name: path.stat().st_size for path in out.iterdir()}
    torn.write_bytes(torn.read_bytes() + b"}\n")

    async def caught_up() -> bool:
        await fetch_trace(addresses, token=cluster.api_token, out=out)
        return "default/one" in "".join(path.read_text() for path in out.glob("n1-*.jsonl"))

    await cluster.until(caught_up)
    assert (out / torn.name).read_bytes() == torn.read_bytes()
    for path in out.iterdir():
        data, original = path.read_bytes(), (source / path.name).read_bytes()
        assert original.startswith(data)
        assert len(data) >= sizes[path.name]
        assert all(isinstance(json.loads(line), dict) for line in data.splitlines())


async def test_only_trace_files_are_served(cluster: ReplicaCluster, tmp_path: Path) -> None:
    (tmp_path / "trace" / "notes.txt").write_text("not a trace")
    (tmp_path / "trace" / "a8-00c0ffee.jsonl").symlink_to("/etc/hostname")
    for name in ("..%2F..%2Fn1%2Fidentity", "%2e%2e", "notes.txt", "a8-00c0ffee.jsonl", "n1-.jsonl"):
        status, body = await get(cluster, f"/v1/trace/{name}")
        assert (status, json.loads(body)["code"]) in [(404, "no-such-trace"), (404, "not-found")], (name, body)
    assert (await get(cluster, "/v1/trace?offset=1"))[0] == 400


async def test_a_trace_needs_a_token_and_a_wrong_one_is_told(cluster: ReplicaCluster, tmp_path: Path) -> None:
    assert (await get(cluster, "/v1/trace", token="wrong-token"))[0] == 401
    with pytest.raises(ApiError) as refused:
        await fetch_trace([cluster.url("n1")], token="wrong-token", out=tmp_path / "out")
    assert refused.value.status == 401


async def test_a_fetch_names_who_does_not_answer(cluster: ReplicaCluster, tmp_path: Path) -> None:
    dead = "http://127.0.0.1:9"
    found = await fetch_trace([dead, cluster.url("n2")], token=cluster.api_token, out=tmp_path / "out")
    assert (found.unreachable, found.files > 0) == ((dead,), True)
    with pytest.raises(Unreachable):
        await fetch_trace([dead], token=cluster.api_token, out=tmp_path / "out")


async def test_a_replica_is_ready_while_it_has_a_leader_and_not_when_it_is_left_alone(cluster: ReplicaCluster) -> None:
    for name in cluster.names:
        ready = await cluster.call("GET", "/readyz", via=name)
        assert (ready["ready"], ready["id"]) == (True, name)
        assert ready["applied_index"] > 0
    await asyncio.gather(*(cluster.replicas[name].kill() for name in ("n2", "n3")))

    async def unready() -> Answered | None:
        try:
            await cluster.call("GET", "/readyz", via="n1")
        except Answered as answer:
            return answer
        return None

    answer = await cluster.until(unready)
    assert (answer.status, answer.code) == (503, "not-ready")
    assert (await get(cluster, "/healthz"))[0] == 200, "it serves, though it is not ready"
