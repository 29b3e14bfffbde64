"""Real replica processes for integration tests: start, kill, ask."""

from __future__ import annotations

import asyncio
import os
import secrets
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import msgspec

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = """
import os, sys
from cluster.config import load
from cluster.log import configure
from scheduler.replica import main_replica
loaded = load(environ=os.environ)
configure(level=loaded.config.log.level, form=loaded.config.log.format)
sys.exit(main_replica(loaded))
"""


def free_ports(count: int) -> list[int]:
    """Ports that nobody used a moment ago, as the kernel gives them."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
    finally:
        for one in sockets:
            one.close()


class ReplicaProcess:
    """One replica as a process of its own; stopped, killed and started at will.

    `before`: lines of Python that the process runs first.
    """

    before = ""

    def __init__(self, node: str, directory: Path, settings: dict[str, str]) -> None:
        self.node = node
        self.directory = directory
        self.settings = settings
        self.process: asyncio.subprocess.Process | None = None
        self.log = directory / "logs" / f"{node}.log"
        self.log.parent.mkdir(parents=True, exist_ok=True)

    async def start(self) -> None:
        environ = {key: value for key, value in os.environ.items() if not key.startswith("SKERRY_")}
        with self.log.open("ab") as log:
            self.process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-c",
                self.before + PROGRAM,
                cwd=ROOT,
                env=environ | self.settings,
                stdout=log,
                stderr=log,
            )

    async def kill(self) -> None:
        assert self.process is not None
        if self.process.returncode is None:
            self.process.send_signal(signal.SIGKILL)
        await self.process.wait()

    async def stop(self, timeout_s: float = 5.0) -> int:
        """SIGTERM; returns the exit code."""
        assert self.process is not None
        if self.process.returncode is None:
            self.process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(timeout_s):
            return await self.process.wait()

    async def exited(self, timeout_s: float = 10.0) -> int:
        assert self.process is not None
        async with asyncio.timeout(timeout_s):
            return await self.process.wait()

    def said(self) -> str:
        return self.log.read_text()


class Answered(Exception):
    """The API answered with a problem document."""

    def __init__(self, status: int, problem: dict[str, Any]) -> None:
        super().__init__(f"{status} {problem}")
        self.status = status
        self.problem = problem
        self.code = problem.get("code")
        self.outcome = problem.get("outcome")


class ReplicaCluster:
    """Replicas n1 … nN over one directory; `links` may say that i reaches j at another port."""

    def __init__(
        self,
        directory: Path,
        count: int = 3,
        *,
        election_timeout_ms: int = 150,
        route: Callable[[str, str, int], int] | None = None,
        more: dict[str, str] | None = None,
    ) -> None:
        self.directory = directory
        self.link_token = secrets.token_hex(16)
        self.api_token = secrets.token_hex(16)
        self.names = [f"n{i}" for i in range(1, count + 1)]
        ports = free_ports(2 * count)
        self.link_ports = dict(zip(self.names, ports[:count], strict=True))
        self.api_ports = dict(zip(self.names, ports[count:], strict=True))
        self.election_timeout_ms = election_timeout_ms
        self.more = more or {}
        self.route = route or (lambda fr, to, port: port)
        self.replicas = {name: ReplicaProcess(name, directory, self.settings(name)) for name in self.names}
        self.http: aiohttp.ClientSession | None = None

    def settings(self, name: str) -> dict[str, str]:
        peers = ",".join(
            f"{peer}=127.0.0.1:{port if peer == name else self.route(name, peer, port)}"
            for peer, port in self.link_ports.items()
        )
        return {
            "SKERRY_CLUSTER_NAME": "test",
            "SKERRY_REPLICA_ID": name,
            "SKERRY_REPLICA_DIR": str(self.directory / name),
            "SKERRY_REPLICA_LISTEN_LINKS": f"127.0.0.1:{self.link_ports[name]}",
            "SKERRY_REPLICA_LISTEN_API": f"127.0.0.1:{self.api_ports[name]}",
            "SKERRY_REPLICA_PEERS": peers,
            "SKERRY_RAFT_ELECTION_TIMEOUT_MS": str(self.election_timeout_ms),
            "SKERRY_RAFT_SEGMENT_BYTES": str(4 << 20),
            "SKERRY_SECURITY_LINK_TOKEN": self.link_token,
            "SKERRY_SECURITY_API_TOKEN": self.api_token,
            "SKERRY_TRACE_DIR": str(self.directory / "trace"),
            **self.more,
        }

    async def __aenter__(self) -> ReplicaCluster:
        self.http = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=20))
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self.http is not None
        await self.http.close()
        for replica in self.replicas.values():
            if replica.process is not None:
                await replica.kill()

    async def start(self, *names: str) -> None:
        for name in names or self.names:
            await self.replicas[name].start()

    async def formed(self, timeout_s: float = 15.0) -> str:
        """Wait until a leader serves; returns its id."""
        return str(await self.until(self._leader, timeout_s))

    async def _leader(self) -> str | None:
        for name in self.names:
            try:
                status = await self.call("GET", "/v1/status", via=name)
            except (OSError, aiohttp.ClientError, Answered):
                continue
            if status["healthy"]:
                return str(status["leader"])
        return None

    async def whole(self, timeout_s: float = 15.0) -> str:
        """Wait until all replicas follow one leader; returns its id."""

        async def probe() -> str | None:
            leader = await self._leader()
            if leader is None:
                return None
            status = await self.call("GET", "/v1/status", via=leader)
            return leader if status["survives"] == (len(self.names) - 1) // 2 else None

        return str(await self.until(probe, timeout_s))

    async def until(self, probe: Callable[[], Any], timeout_s: float = 10.0) -> Any:
        """Poll `probe` until it says something true."""
        deadline = time.monotonic() + timeout_s
        while True:
            found = await probe()
            if found:
                return found
            if time.monotonic() > deadline:
                raise AssertionError(f"not within {timeout_s} s; logs:\n{self.logs()}")
            await asyncio.sleep(0.02)

    def logs(self) -> str:
        return "\n".join(
            f"--- {name}\n{replica.said()[-3000:]}" for name, replica in self.replicas.items() if replica.log.exists()
        )

    def url(self, via: str) -> str:
        return f"http://127.0.0.1:{self.api_ports[via]}"

    async def call(
        self, method: str, path: str, body: Any = None, *, via: str, token: str | None = None, timeout_s: float = 15.0
    ) -> dict[str, Any]:
        """One API call; raises Answered for problem documents, aiohttp errors when nobody listens."""
        assert self.http is not None
        headers = {"Authorization": f"Bearer {self.api_token if token is None else token}"}
        async with self.http.request(
            method, self.url(via) + path, json=body, headers=headers, timeout=aiohttp.ClientTimeout(total=timeout_s)
        ) as response:
            answer = msgspec.json.decode(await response.read())
            if response.status >= 400:
                assert response.content_type == "application/problem+json", response.content_type
                raise Answered(response.status, answer)
            assert isinstance(answer, dict)
            return answer

    async def submit(
        self, name: str, *, via: str, request_id: str | None = None, expected_version: int | None = None, **spec: Any
    ) -> dict[str, Any]:
        job = {"name": name, "command": ["/bin/true"]} | spec
        body: dict[str, Any] = {"job": job, "request_id": request_id or f"r-{name}"}
        if expected_version is not None:
            body["expected_version"] = expected_version
        return await self.call("POST", "/v1/jobs", body, via=via)

    async def jobs(self, via: str, *, stale: bool = False) -> dict[str, dict[str, Any]]:
        answer = await self.call("GET", "/v1/jobs" + ("?stale=true" if stale else ""), via=via)
        return {job["job"]: job for job in answer["jobs"]}

    def followers(self, leader: str) -> Iterator[str]:
        return (name for name in self.names if name != leader)
