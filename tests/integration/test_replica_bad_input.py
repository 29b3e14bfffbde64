"""Bad input of every kind: a clear error with code and hint; nothing lost, nothing hung."""

from __future__ import annotations

import asyncio
import json
import os
import random
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from raft.store.identity import IDENTITY_NAME
from tests.support.replicas import PROGRAM, ROOT, Answered, ReplicaCluster, ReplicaProcess


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


async def test_every_call_needs_the_token_but_health_and_description(alone: ReplicaCluster) -> None:
    paths = ["/v1/status", "/v1/jobs", "/v1/nodes", "/v1/events", "/metrics", "/v1/explain/a/b", "/v1/logs/a/b"]
    for path in paths:
        for token in ("", "wrong-token-wrong-token"):
            assert (await problem(alone, "GET", path, token=token)).status == 401
    refused = await problem(alone, "POST", "/v1/jobs", {"job": {}}, token="wrong-token-wrong-token")
    assert (refused.status, refused.code) == (401, "unauthorized")
    assert (await alone.call("GET", "/healthz", via="n1", token=""))["ok"] is True
    description = await alone.call("GET", "/openapi.json", via="n1", token="")
    assert "/v1/jobs/{namespace}/{name}" in description["paths"]


@pytest.mark.parametrize(
    ("job", "code"),
    [
        ({"name": "x", "command": ["/bin/true"], "colour": "red"}, "bad-job"),
        ({"name": "x", "command": "/bin/true"}, "bad-job"),
        ({"name": "Not A Name", "command": ["/bin/true"]}, "bad-job"),
        ({"name": "x"}, "bad-job"),
        ({"name": "x", "command": []}, "bad-job"),
        ({"name": "x", "command": ["/bin/true"], "resources": {"limits": {"memory": "12 bananas"}}}, "bad-job"),
        ({"name": "x", "command": ["/bin/true"], "replicas": -1}, "bad-job"),
        ({"name": "x", "command": ["/bin/true"], "replicas": 10**9}, "bad-job"),
    ],
)
async def test_a_job_file_that_is_wrong_is_refused_with_its_field(
    alone: ReplicaCluster, job: dict[str, Any], code: str
) -> None:
    refused = await problem(alone, "POST", "/v1/jobs", {"job": job, "request_id": "r"})
    assert (refused.status, refused.code, refused.outcome) == (422, code, "not-done")
    assert refused.problem["hint"]
    assert await alone.jobs("n1") == {}


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
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
    ],
)
async def test_a_call_that_is_wrong_is_answered_with_a_problem_document(
    alone: ReplicaCluster, method: str, path: str, body: Any, status: int
) -> None:
    assert (await problem(alone, method, path, body)).status == status


async def test_a_gigabyte_is_refused_early_on_both_ports(alone: ReplicaCluster) -> None:
    async def endless() -> AsyncIterator[bytes]:
        chunk = b"x" * (1 << 20)
        for _ in range(1024):
            yield chunk

    assert alone.http is not None
    headers = {"Authorization": f"Bearer {alone.api_token}", "Content-Type": "application/json"}
    for url in (alone.url("n1") + "/v1/jobs", f"http://127.0.0.1:{alone.link_ports['n1']}/v1/agents"):
        try:
            async with asyncio.timeout(10):
                async with alone.http.post(url, data=endless(), headers=headers) as response:
                    assert response.status in (404, 405, 413)
        except aiohttp.ClientError:
            pass  # hung up while we were still sending: as good an answer
    declared = {**headers, "Content-Length": str(1 << 30)}
    lines = ["POST /v1/jobs HTTP/1.1", "Host: x", *(f"{key}: {value}" for key, value in declared.items()), "", ""]
    reader, writer = await asyncio.open_connection("127.0.0.1", alone.api_ports["n1"])
    writer.write("\r\n".join(lines).encode())
    async with asyncio.timeout(5):
        assert b" 413 " in await reader.readline()
    writer.close()
    await alone.submit("still-here", via="n1")


async def test_garbage_on_both_ports_leaves_the_replica_serving(alone: ReplicaCluster) -> None:
    dice = random.Random(7)
    openings = [
        b"\x00" * 4096,
        dice.randbytes(65_536),
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET /v1/links HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n" + b"\xff" * 100,
        b"A" * 100_000,
    ]
    for port in (alone.api_ports["n1"], alone.link_ports["n1"]):
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
    await alone.submit("still-here", via="n1")
    assert "internal error" not in alone.replicas["n1"].said()


async def test_random_calls_are_never_answered_with_an_internal_error(alone: ReplicaCluster) -> None:
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
    assert alone.http is not None
    headers = {"Authorization": f"Bearer {alone.api_token}"}
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
        async with alone.http.request(method, alone.url("n1") + path, json=body, headers=headers) as response:
            assert response.status < 500, f"{method} {path} {json.dumps(body)[:500]}: {await response.text()}"
    await alone.submit("still-here", via="n1")


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
