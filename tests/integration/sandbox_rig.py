"""Sandboxers for tests, and proof that they touch nothing but their own cgroups."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

from agents.sandbox_client import SandboxClient, SandboxerOptions, WorkloadEvent, WorkloadRecord
from agents.sandboxer import users
from agents.sandboxer.cgroups import detect
from scheduler.model import Limits, Workload
from scheduler.session import Assignment

DEADLINE_S = 30.0
CLUSTER = "rig"


def assignment(
    allocation: str,
    *command: str,
    epoch: int = 1,
    attempt: int = 1,
    cpu: int = 0,
    memory: int = 64 << 20,
    pids: int = 32,
    grace_s: int = 5,
    on_disconnect: str = "keep",
    env: dict[str, str] | None = None,
    network: str = "",
    ports: dict[int, int] | None = None,
) -> Assignment:
    namespace, _, name = allocation.partition("/")
    limits = Limits(cpu, memory, pids)
    hosts = tuple((f"p{number}", number) for number in ports or {})
    inner = tuple((ports or {}).values())
    workload = Workload(
        name.split(".")[0],
        namespace,
        "service",
        command,
        env or {},
        limits,
        hosts,
        grace_s,
        on_disconnect,
        network,
        inner,
    )
    return Assignment(allocation, epoch, attempt, workload)


def cgroup_mounts() -> list[str]:
    mounts = detect.read_mounts()
    return sorted({*mounts.v1.values(), *([mounts.v2] if mounts.v2 else [])})


def trees(node: str) -> list[str]:
    """The node's cgroup directories that exist."""
    name = detect.tree_name(None, CLUSTER, node)
    return [path for mount in cgroup_mounts() if os.path.isdir(path := os.path.join(mount, name))]


def claims(node: str) -> list[Path]:
    """Claims on users that name the node."""
    name = f"{detect.tree_name(None, CLUSTER, node)} "
    directory = Path(users.CLAIMS)
    return [path for path in directory.iterdir() if path.read_text().startswith(name)] if directory.exists() else []


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state not in (b"Z", b"X")


async def until(condition: Callable[[], object], what: str) -> None:
    """Wait for a condition of the outside world, with a deadline."""
    try:
        async with asyncio.timeout(DEADLINE_S):
            while not condition():  # noqa: ASYNC110 - nothing tells of another process
                await asyncio.sleep(0.01)
    except TimeoutError:
        raise AssertionError(f"not within {DEADLINE_S} s: {what}") from None


class Rig:
    """One node's sandboxer and its client."""

    def __init__(self, directory: Path, node: str, cgroups: str = "auto", numbers: str = "") -> None:
        self.directory = directory
        self.node = node
        self.options = SandboxerOptions(
            node=node,
            cluster=CLUSTER,
            cgroups=cgroups,
            users=numbers,
            trace_dir=str(directory / "trace"),
            output_bytes_max=1 << 20,
        )
        self.client: SandboxClient
        self._events: AsyncIterator[WorkloadEvent]

    async def connect(self) -> SandboxClient:
        self.client = await SandboxClient.connect(self.directory, start_if_absent=True, options=self.options)
        self._events = self.client.events()
        return self.client

    async def renew(self, lease_s: float, registration: int = 0) -> int:
        """A lease that lasts `lease_s` from now; returns its deadline."""
        deadline_ns = time.clock_gettime_ns(time.CLOCK_BOOTTIME) + int(lease_s * 1e9)
        await self.client.renew(deadline_ns, registration)
        return deadline_ns

    async def event(self, kind: str, allocation: str, epoch: int | None = None) -> WorkloadRecord:
        """The next event of this kind about this allocation."""
        async with asyncio.timeout(DEADLINE_S):
            async for event in self._events:
                record = event.record
                if (event.kind, record.allocation) == (kind, allocation) and epoch in (None, record.epoch):
                    return record
        raise AssertionError("the event stream ended")

    async def record(self, allocation: str, epoch: int = 1) -> WorkloadRecord | None:
        for record in await self.client.list():
            if (record.allocation, record.epoch) == (allocation, epoch):
                return record
        return None

    async def exited(self, allocation: str, epoch: int = 1) -> WorkloadRecord:
        """The record once it has exited, whether or not its event is past."""
        record = await self.record(allocation, epoch)
        if record is not None and record.state == "exited":
            return record
        return await self.event("exited", allocation, epoch)

    async def kill_sandboxer(self) -> None:
        """SIGKILL it, and wait until it and its journal child are gone."""
        pid = self.client.hello.pid
        journal = [child for child in children(pid) if command_name(child) == "skerry-journal"]
        pidfd = os.pidfd_open(pid)
        signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        os.close(pidfd)
        await self.client.close()
        await until(lambda: not any(alive(process) for process in (pid, *journal)), "the sandboxer died")

    async def end(self) -> None:
        """Stop everything and check that nothing is left, also after a failure."""
        with contextlib.suppress(AttributeError):
            await self.client.close()
        client = await SandboxClient.connect(self.directory, start_if_absent=True, options=self.options)
        pid = client.hello.pid
        for record in await client.list():
            if record.state != "exited":
                await client.stop(record.allocation, record.epoch, 0)
        await client.shutdown(stop_workloads=True)
        await client.close()
        await until(lambda: not alive(pid), "the sandboxer ended")
        assert trees(self.node) == []
        assert claims(self.node) == []


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def command_name(pid: int) -> str:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/comm").read_text().strip()
    return ""


class Decoys:
    """Cgroups of somebody else, with a process in them; a sandboxer must not touch any."""

    LIMITS = (("memory.limit_in_bytes", "134217728"), ("pids.max", "77"), ("cpu.cfs_quota_us", "50000"))

    def __init__(self) -> None:
        self.process = subprocess.Popen(["sleep", "1000"])
        names = (f"guard-{os.getpid()}", f"skerry-{CLUSTER}-other-{os.getpid()}")
        self.paths = [os.path.join(mount, name) for mount in cgroup_mounts() for name in names]
        for path in self.paths:
            os.mkdir(path)
            for file, value in self.LIMITS:
                if os.path.exists(f"{path}/{file}"):
                    Path(path, file).write_text(value)
            Path(path, "cgroup.procs").write_text(str(self.process.pid))
        self.before = self.state()

    def state(self) -> dict[str, list[str]]:
        """Every decoy's limits and members, and the names beside them that are not Skerry's."""
        state = {}
        for path in self.paths:
            files = [f"{path}/{file}" for file, _ in self.LIMITS if os.path.exists(f"{path}/{file}")]
            state[path] = [Path(file).read_text() for file in (f"{path}/cgroup.procs", *files)]
        for mount in cgroup_mounts():
            entries = sorted(entry.name for entry in os.scandir(mount) if entry.is_dir())
            state[mount] = [name for name in entries if not name.startswith(("skerry-", "guard-"))]
        return state

    def check(self) -> None:
        assert self.process.poll() is None, "a process of another cgroup was killed"
        assert self.state() == self.before, "another cgroup was changed"

    def remove(self) -> None:
        self.process.kill()
        self.process.wait()
        for path in self.paths:
            with contextlib.suppress(FileNotFoundError):
                os.rmdir(path)


def guarded() -> Iterator[Decoys]:
    """Decoys around a test."""
    decoys = Decoys()
    try:
        yield decoys
        decoys.check()
    finally:
        decoys.remove()
