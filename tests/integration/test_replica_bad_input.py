"""Bad input of every kind: a clear error with code and hint; nothing lost, nothing hung."""

from __future__ import annotations

import asyncio
import json
import os
import random
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import pytest_asyncio

from raft.store.identity import IDENTITY_NAME
from tests.support.replicas import PROGRAM, ROOT, Answered, ReplicaCluster, ReplicaProcess

WRONG_JOBS: list[dict[str, Any]] = [
    {"name": "x", "command": ["/bin/true"], "colour": "red"},
    {"name": "x", "command": "/bin/true"},
    {"name": "Not A Name", "command": ["/bin/true"]},
    {"name": "x"},
    {"name": "x", "command": []},
    {"name": "x", "command": ["/bin/true"], "resources": {"limits": {"memory": "12 bananas"}}},
    {"name": "x", "command": ["/bin/true"], "replicas": -1},
    {"name": "x", "command": ["/bin/true"], "replicas": 10**9},
]

WRONG_CALLS: list[tuple[str, str, Any, int]] = [
    ("POST", "/v1/jobs", {"job": {}, "request_id": "r", "extra": 1}, 400),
    ("POST", "/v1/jobs", {"job": {}}, 400),
    ("POST", "/v1/jobs", [1, 2], 400),
    ("POST", "/v1/jobs", {"job": {}, "request_id": "spaces are not allowed"}, 400),
    ("POST", "/v1/jobs/default/none/stop", {"request_id": "r"}, 404),
    ("GET", "/v1/jobs/default/none", None, 404),
    ("GET", "/v1/jobs/UPPER/none", None, 404),
    ("GET", "/v1/nodes/none", None, 404),
    ("GET", "/v1/logs/default/none", None, 404),
    ("GET", "/v1/logs/default/none.0", None, 404),
    ("GET", "/v1/logs/default/none?cursor=%21%21", None, 400),
    ("GET", "/v1/logs/default/none?lines_max=0", None, 400),
    ("GET", "/v1/jobs?stale=perhaps", None, 400),
    ("GET", "/v1/jobs?unknown=1", None, 400),
    ("GET", "/v1/events?since=-1", None, 400),
    ("GET", "/nothing/here", None, 404),
    ("DELETE", "/v1/jobs", None, 405),
]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[ReplicaCluster]:
    """One replica for tests that cannot harm it, if it is any good."""
    async with ReplicaCluster(tmp_path_factory.mktemp("shared"), 1) as made:
        await made.start()
        await made.formed()
        yield made


@pytest.fixture
async def alone(tmp_path: Path) -> AsyncIterator[ReplicaCluster]:
    async with ReplicaCluster(tmp_path, 1) as made:
        await made.start()
        await made.formed()
        yield made


async def problem(cluster: ReplicaCluster, method: str, path: str, body: Any = None, **options: Any) -> Answered:
    with pytest.raises(Answered) as caught:
        await cluster.call(method, path, body, via="n1", **options)
    found = caught.value.problem
    assert {"type", "title", "status", "detail", "code", "hint", "retryable", "outcome", "leader"} <= set(found)
    return caught.value


@pytest.mark.asyncio(loop_scope="module")
async def test_every_call_needs_the_token_but_health_and_description(shared: ReplicaCluster) -> None:
    paths = ["/v1/status", "/v1/jobs", "/v1/nodes", "/v1/events", "/metrics", "/v1/explain/a/b", "/v1/logs/a/b"]
    for path in paths:
        for token in ("", "wrong-token-wrong-token"):
            assert (await problem(shared, "GET", path, token=token)).status == 401
    refused = await problem(shared, "POST", "/v1/jobs", {"job": {}}, token="wrong-token-wrong-token")
    assert (refused.status, refused.code) == (401, "unauthorized")
    assert (await shared.call("GET", "/healthz", via="n1", token=""))["ok"] is True
    description = await shared.call("GET", "/openapi.json", via="n1", token="")
    assert "/v1/jobs/{namespace}/{name}" in description["paths"]


@pytest.mark.asyncio(loop_scope="module")
async def test_a_job_file_that_is_wrong_is_refused_with_its_field(shared: ReplicaCluster) -> None:
    for job in WRONG_JOBS:
        refused = await problem(shared, "POST", "/v1/jobs", {"job": job, "request_id": "r"})
        assert (refused.status, refused.code, refused.outcome) == (422, "bad-job", "not-done"), job
        assert refused.problem["hint"], job
    assert "default/x" not in await shared.jobs("n1")


@pytest.mark.asyncio(loop_scope="module")
async def test_a_call_that_is_wrong_is_answered_with_a_problem_document(shared: ReplicaCluster) -> None:
    for method, path, body, status in WRONG_CALLS:
        assert (await problem(shared, method, path, body)).status == status, path


@pytest.mark.asyncio(loop_scope="module")
async def test_a_gigabyte_is_refused_early_on_both_ports(shared: ReplicaCluster) -> None:
    async def endless() -> AsyncIterator[bytes]:
        chunk = b"x" * (1 << 20)
        for _ in range(1024):
            yield chunk

    assert shared.http is not None
    headers = {"Authorization": f"Bearer {shared.api_token}", "Content-Type": "application/json"}
    for url in (shared.url("n1") + "/v1/jobs", f"http://127.0.0.1:{shared.link_ports['n1']}/v1/agents"):
        try:
            async with asyncio.timeout(10):
                async with shared.http.post(url, data=endless(), headers=headers) as response:
                    assert response.status in (404, 405, 413)
        except aiohttp.ClientError:
            pass  # hung up while we were still sending: as good an answer
    declared = {**headers, "Content-Length": str(1 << 30)}
    lines = ["POST /v1/jobs HTTP/1.1", "Host: x", *(f"{key}: {value}" for key, value in declared.items()), "", ""]
    reader, writer = await asyncio.open_connection("127.0.0.1", shared.api_ports["n1"])
    writer.write("\r\n".join(lines).encode())
    async with asyncio.timeout(5):
        assert b" 413 " in await reader.readline()
    writer.close()
    await shared.submit("still-here", via="n1", request_id=f"r-{time.monotonic_ns()}")


@pytest.mark.asyncio(loop_scope="module")
async def test_garbage_on_both_ports_leaves_the_replica_serving(shared: ReplicaCluster) -> None:
    dice = random.Random(7)
    openings = [
        b"\x00" * 4096,
        dice.randbytes(65_536),
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET /v1/links HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n" + b"\xff" * 100,
        b"A" * 100_000,
    ]
    for port in (shared.api_ports["n1"], shared.link_ports["n1"]):
        for opening in openings:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(opening)
            try:
                async with asyncio.timeout(5):
                    await writer.drain()
                    await reader.read(65_536)
            except (OSError, TimeoutError):
                pass
            writer.transport.abort()
    await shared.submit("still-here", via="n1", request_id=f"r-{time.monotonic_ns()}")
    assert "internal error" not in shared.replicas["n1"].said()


@pytest.mark.asyncio(loop_scope="module")
async def test_random_calls_are_never_answered_with_an_internal_error(shared: ReplicaCluster) -> None:
    dice = random.Random(11)
    words = [
        "",
        "x",
        "default",
        "a" * 300,
        "%00",
        "%ff",
        "..",
        "\u2603",
        "0",
        "-1",
        "{}",
        "web.0",
        "web.-1",
        "web.99999999999999999999",
    ]
    values: list[Any] = [None, True, -1, 1 << 70, 1.5, "", "x" * 5000, [], {}, {"a": {"b": []}}, "\ud7ff", "1Gi"]
    fields = ["name", "namespace", "command", "replicas", "env", "resources", "ports", "kind", "restartPolicy", "zz"]
    assert shared.http is not None
    headers = {"Authorization": f"Bearer {shared.api_token}"}
    shapes = [
        ("GET", "/v1/jobs/{}/{}"), ("GET", "/v1/logs/{}/{}"), ("GET", "/v1/explain/{}/{}"), ("GET", "/v1/nodes/{}"),
        ("POST", "/v1/jobs"), ("POST", "/v1/jobs/{}/{}/stop"), ("POST", "/v1/nodes/{}/cordon"),
        ("GET", "/v1/logs/{}/{}?cursor={}"),
    ]  # fmt: skip
    for _ in range(400):
        method, shape = dice.choice(shapes)
        path = shape.format(*(dice.choice(words) for _ in range(shape.count("{}"))))
        job = {field: dice.choice(values) for field in dice.sample(fields, dice.randrange(len(fields)))}
        body = dice.choice([{"job": job, "request_id": "r"}, {"request_id": dice.choice(values)}, dice.choice(values)])
        async with shared.http.request(method, shared.url("n1") + path, json=body, headers=headers) as response:
            assert response.status < 500, f"{method} {path} {json.dumps(body)[:500]}: {await response.text()}"
    await shared.submit("still-here", via="n1", request_id=f"r-{time.monotonic_ns()}")


async def failed_start(replica: ReplicaProcess, code: str, *words: str) -> None:
    await replica.start()
    assert await replica.exited() not in (0, 70)
    said = replica.said()
    for word in (code, "hint", *words):
        assert word in said, said
    assert "Traceback" not in said, said


async def test_a_port_in_use_is_named_with_its_setting(alone: ReplicaCluster, tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        for key in ("SKERRY_REPLICA_LISTEN_LINKS", "SKERRY_REPLICA_LISTEN_API"):
            settings = alone.settings("n1") | {
                "SKERRY_REPLICA_DIR": str(tmp_path / key),
                "SKERRY_REPLICA_LISTEN_LINKS": "127.0.0.1:0",
                "SKERRY_REPLICA_LISTEN_API": "127.0.0.1:0",
                key: f"127.0.0.1:{port}",
            }
            await failed_start(ReplicaProcess("n1", tmp_path / key, settings), "port-in-use", str(port))


async def test_a_data_directory_in_use_is_refused(alone: ReplicaCluster, tmp_path: Path) -> None:
    settings = alone.settings("n1") | {
        "SKERRY_REPLICA_LISTEN_LINKS": "127.0.0.1:0",
        "SKERRY_REPLICA_LISTEN_API": "127.0.0.1:0",
    }
    await failed_start(ReplicaProcess("n1", tmp_path / "second", settings), "store-locked")
    await alone.submit("unharmed", via="n1")


async def test_a_data_directory_of_another_cluster_or_node_is_refused(alone: ReplicaCluster, tmp_path: Path) -> None:
    assert await alone.replicas["n1"].stop() == 0
    settings = alone.settings("n1")
    other_cluster = settings | {"SKERRY_CLUSTER_NAME": "other"}
    await failed_start(ReplicaProcess("n1", tmp_path / "cluster", other_cluster), "store-foreign")
    other_node = settings | {"SKERRY_REPLICA_ID": "n9", "SKERRY_REPLICA_PEERS": "n9=127.0.0.1:1"}
    await failed_start(ReplicaProcess("n9", tmp_path / "node", other_node), "store-foreign")


async def test_a_data_directory_of_a_newer_version_is_refused(alone: ReplicaCluster, tmp_path: Path) -> None:
    assert await alone.replicas["n1"].stop() == 0
    path = tmp_path / "n1" / IDENTITY_NAME
    path.write_text(json.dumps(json.loads(path.read_text()) | {"format": 999}))
    await failed_start(ReplicaProcess("n1", tmp_path / "again", alone.settings("n1")), "store-too-new", "999")


async def test_a_corrupted_log_is_refused(alone: ReplicaCluster, tmp_path: Path) -> None:
    for number in range(5):
        await alone.submit(f"j{number}", via="n1")
    assert await alone.replicas["n1"].stop() == 0
    segments = sorted(path for path in (tmp_path / "n1").iterdir() if path.stat().st_size > 4096)
    data = bytearray(segments[0].read_bytes())
    used = len(bytes(data).rstrip(b"\0"))
    data[used // 2] ^= 0xFF
    segments[0].write_bytes(bytes(data))
    await failed_start(ReplicaProcess("n1", tmp_path / "again", alone.settings("n1")), "store-corrupt")


async def test_a_full_log_refuses_writes_and_still_serves_reads(tmp_path: Path) -> None:
    async with ReplicaCluster(tmp_path, 1) as cluster:
        cluster.replicas["n1"].settings["SKERRY_RAFT_LOG_ENTRIES_MAX"] = "64"
        await cluster.start()
        await cluster.formed()
        refused: Answered | None = None
        accepted = 0
        while refused is None and accepted < 100:
            try:
                await cluster.submit(f"j{accepted}", via="n1")
                accepted += 1
            except Answered as answered:
                refused = answered
        assert refused is not None, "64 entries hold no 100 jobs"
        assert (refused.status, refused.code, refused.outcome) == (507, "log-full", "not-done")
        assert refused.problem["hint"]
        assert len(await cluster.jobs("n1")) == accepted > 30


async def test_a_configuration_that_cannot_be_is_a_usage_error(tmp_path: Path) -> None:
    cluster = ReplicaCluster(tmp_path, 1)
    settings = cluster.settings("n1") | {"SKERRY_REPLICA_PEERS": "n2=127.0.0.1:1"}
    replica = ReplicaProcess("n1", tmp_path, settings)
    await replica.start()
    assert await replica.exited() == 2
    assert "replica.peers" in replica.said()


def test_a_replica_does_not_start_without_assertions(tmp_path: Path) -> None:
    cluster = ReplicaCluster(tmp_path, 1)
    found = subprocess.run(
        [sys.executable, "-O", "-c", PROGRAM],
        cwd=ROOT,
        env={**os.environ, **cluster.settings("n1")},
        capture_output=True,
        text=True,
        timeout=20,
    )
    assert found.returncode == 2
    assert "without python -O" in found.stderr
