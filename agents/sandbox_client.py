"""What the agent asks of the sandboxer.

Owns: connecting (and starting an absent sandboxer), requests and their answers, the stream of
workload events.  Must not know: replicas, sessions, or what the agent concludes from an event.

Connect, then `list`, then read `events`: a record carries the sequence of its last change, so an
event with a lower one tells nothing new.  When the sandboxer goes, every waiting call and the
event stream end with `SandboxerGone`; connect again.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any, Protocol, Self

import msgspec
from msgspec import Struct

from agents.sandbox_channel import Channel, SocketChannel
from agents.sandbox_launch import CONNECT_TIMEOUT_S, SandboxerOptions, SandboxerUnavailable, open_socket
from agents.sandboxer import protocol
from raft.errors import SkerryError
from scheduler.model import Exit
from scheduler.session import Assignment

__all__ = [
    "SandboxClient",
    "SandboxerGone",
    "SandboxerHello",
    "SandboxerOptions",
    "SandboxerRefused",
    "SandboxerUnavailable",
    "Usage",
    "WorkloadEvent",
    "WorkloadRecord",
    "spec_of",
]

REQUEST_TIMEOUT_S = 30.0
EVENTS_MAX = 65_536
"""Events held for a reader that does not read; beyond it the connection is given up."""


class SandboxerGone(SkerryError):
    """The connection to the sandboxer ended."""

    code = "sandboxer-gone"
    retryable = True
    outcome = "unknown"


class SandboxerRefused(SkerryError):
    """The sandboxer refused a request; `reason` is one of the codes of `agents.sandboxer.terms`."""

    code = "sandboxer-refused"

    def __init__(self, reason: str, message: str, *, hint: str = "", retryable: bool = False) -> None:
        super().__init__(message, hint=hint, reason=reason, retryable=retryable)
        self.reason = reason
        self.retry_may_help = retryable


class SandboxerHello(Struct, frozen=True):
    """Who answers on the socket."""

    protocol: int
    incarnation: str
    pid: int
    boot_id: str
    node: str
    cluster: str
    isolation: str
    """``cgroup-hybrid + pid,mount,uts,ipc,user namespaces + seccomp + network bridge`` … or ``degraded``."""
    isolation_why: str
    sequence: int


class WorkloadRecord(Struct, frozen=True):
    """One attempt as the sandboxer knows it.  `state`: starting | running | stopping | exited."""

    allocation: str
    epoch: int
    attempt: int
    job: str
    state: str
    pid: int
    """Process id on the node; 0 before the start."""
    cgroup: str
    output: str
    """Directory of the files ``stdout`` and ``stderr``."""
    sequence: int
    adopted: bool
    oom_kills: int
    started_unix_ms: int
    exit: Exit | None


class WorkloadEvent(Struct, frozen=True):
    """Something happened to an attempt.  `kind`: started | stopping | oom | exited | adopted."""

    kind: str
    sequence: int
    record: WorkloadRecord


class Usage(Struct, frozen=True):
    """What the running workloads use: allocation → (cpu_ns since start, memory_bytes, pids), and their sum."""

    workloads: dict[str, tuple[int, int, int]]
    node: tuple[int, int]


class TraceClocks(Protocol):
    """The part of a tracer that keeps causal order across the socket."""

    def stamp_send(self) -> tuple[str, int, int]:
        """(message id, Lamport clock, hybrid clock) of a message being sent."""
        ...

    def observe(self, lc: int, hlc: int) -> None:
        """Merge the clocks of a received message."""
        ...


def spec_of(assignment: Assignment, generation: int = 0) -> dict[str, Any]:
    """The `protocol.SPEC_FIELDS` of an assignment; its environment carries the fencing token."""
    workload = assignment.workload
    token = f"{generation}:{assignment.epoch}"
    hosts = [port for _, port in workload.ports]
    return {
        "allocation": assignment.allocation,
        "epoch": assignment.epoch,
        "attempt": assignment.attempt,
        "job": f"{workload.namespace}/{workload.job}",
        "command": list(workload.command),
        "env": {**workload.env, "SKERRY_FENCING_TOKEN": token},
        "cpu_millicores": workload.limits.cpu_millicores,
        "memory_bytes": workload.limits.memory_bytes,
        "pids": workload.limits.pids,
        "grace_ms": workload.grace_s * 1000,
        "on_disconnect": workload.on_disconnect,
        "network": workload.network,
        "ports": [list(pair) for pair in zip(hosts, workload.container_ports or hosts, strict=True)],
    }


class SandboxClient:
    """One connection to the sandboxer of a directory.  Make it with `connect`."""

    def __init__(self, channel: Channel, clocks: TraceClocks | None) -> None:
        self._channel = channel
        self._clocks = clocks
        self._loop = asyncio.get_running_loop()
        self._waiting: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._next_id = 1
        self._events: asyncio.Queue[WorkloadEvent | None] = asyncio.Queue(EVENTS_MAX)
        self._gone: str | None = None
        self.hello: SandboxerHello
        channel.open(self._received, self._end)

    @classmethod
    async def connect(
        cls,
        directory: Path,
        *,
        start_if_absent: bool,
        options: SandboxerOptions | None = None,
        clocks: TraceClocks | None = None,
    ) -> Self:
        """Connect to the sandboxer of `directory`; start one (with `options`) where none answers.

        Raises:
            SandboxerUnavailable: none answers within `CONNECT_TIMEOUT_S`; the message quotes its log.
            SandboxerRefused: it speaks another protocol version.
        """

        async def opened() -> Channel:
            return SocketChannel(await open_socket(directory, options if start_if_absent else None))

        return await cls.over(opened, clocks=clocks, again=start_if_absent)

    @classmethod
    async def over(
        cls, opened: Callable[[], Awaitable[Channel]], *, clocks: TraceClocks | None = None, again: bool = True
    ) -> Self:
        """Connect over the channel that `opened` gives; with `again`, over another one where it ends before the hello.

        Raises:
            SandboxerGone: it ended before the hello, also when tried again for `CONNECT_TIMEOUT_S`.
            SandboxerRefused: it speaks another protocol version.
        """
        deadline = asyncio.get_running_loop().time() + CONNECT_TIMEOUT_S
        while True:
            client = cls(await opened(), clocks)
            try:
                answer = await client._request("hello", protocol=protocol.PROTOCOL_VERSION)
                client.hello = msgspec.convert(answer, SandboxerHello)
            except SandboxerGone:  # it was just ending: the next one may be started
                await client.close()
                if not again or asyncio.get_running_loop().time() > deadline:
                    raise
            except BaseException:
                await client.close()
                raise
            else:
                return client

    @property
    def incarnation(self) -> str:
        """Random id of the sandboxer process; kept while agents come and go."""
        return self.hello.incarnation

    async def start(self, assignment: Assignment, *, generation: int = 0, registration: int = 0) -> WorkloadRecord:
        """Start an attempt; idempotent per (allocation, epoch).

        `generation` of the cluster and the epoch are the fencing token that the workload gets in
        its environment; `registration` names the lease under which a `stop` workload starts.

        Returns once the program runs, or with an exited record of reason ``start-failed``.

        Raises:
            SandboxerRefused: reason stale-epoch (fenced), epoch-busy (an older attempt still runs; retry),
                no-lease (retry once it is renewed),
                journal-failed (retry), spec-changed, shutting-down, bad-request.
        """
        answer = await self._request("start", spec=spec_of(assignment, generation), registration=registration)
        return msgspec.convert(answer["record"], WorkloadRecord)

    async def renew(self, deadline_ns: int, registration: int) -> None:
        """The node's lease lasts until `deadline_ns` on CLOCK_BOOTTIME; neither ever goes back."""
        await self._request("renew", deadline_ns=deadline_ns, registration=registration)

    async def stop(self, allocation: str, epoch: int, grace_s: float | None) -> WorkloadRecord | None:
        """Fence `allocation` up to `epoch` and stop what runs of it: SIGTERM, after the grace SIGKILL.

        `grace_s` None = the workload's own, which the sandboxer remembers.

        Returns at once with the record, None if nothing of it is known; the exit follows as an event.
        """
        grace_ms = None if grace_s is None else int(grace_s * 1000)
        answer = await self._request("stop", allocation=allocation, epoch=epoch, grace_ms=grace_ms)
        record = answer["record"]
        return None if record is None else msgspec.convert(record, WorkloadRecord)

    async def list(self) -> list[WorkloadRecord]:
        """Every attempt that runs, or exited and is not yet forgotten."""
        return msgspec.convert((await self._request("list"))["records"], list[WorkloadRecord])

    async def usage(self) -> Usage:
        """What the running workloads use now."""
        answer = await self._request("usage")
        return msgspec.convert({"workloads": answer["workloads"], "node": answer["node"]}, Usage)

    async def forget(self, allocation: str, epoch: int) -> None:
        """Drop an exited attempt's record and output; its epoch stays fenced.  Unknown is fine.

        Raises:
            SandboxerRefused: reason not-exited.
        """
        await self._request("forget", allocation=allocation, epoch=epoch)

    async def shutdown(self, stop_workloads: bool) -> None:
        """End the sandboxer: with `stop_workloads` all workloads stop (grace, then kill) and every cgroup,
        namespace and socket is removed first; without, `keep` workloads run on and `stop` ones die with it.
        """  # fmt: skip
        await self._request("shutdown", timeout_s=None, stop_workloads=stop_workloads)

    async def events(self) -> AsyncIterator[WorkloadEvent]:
        """Events in order, from the connection on; ends with `SandboxerGone`."""
        while True:
            event = await self._events.get()
            if event is None:
                self._events.put_nowait(None)
                raise SandboxerGone(self._gone or "the sandboxer's connection ended")
            yield event

    async def close(self) -> None:
        """Leave; the sandboxer and its workloads go on."""
        self._end("closed by this agent")

    async def _request(self, op: str, *, timeout_s: float | None = REQUEST_TIMEOUT_S, **fields: Any) -> dict[str, Any]:
        if self._gone is not None:
            raise SandboxerGone(self._gone)
        number = self._next_id
        self._next_id += 1
        message = {"op": op, "id": number, **fields}
        if self._clocks is not None:
            _, message["lc"], message["hlc"] = self._clocks.stamp_send()
        future: asyncio.Future[dict[str, Any]] = self._loop.create_future()
        self._waiting[number] = future
        self._channel.send(message)
        try:
            async with asyncio.timeout(timeout_s):
                answer = await future
        except TimeoutError:
            raise SandboxerGone(f"the sandboxer did not answer {op} within {timeout_s} s") from None
        finally:
            self._waiting.pop(number, None)
        if not answer.get("ok"):
            raise SandboxerRefused(
                str(answer.get("code")),
                str(answer.get("message")),
                hint=str(answer.get("hint", "")),
                retryable=bool(answer.get("retryable")),
            )
        return answer

    def _received(self, message: dict[str, Any]) -> None:
        if self._gone is not None:
            return
        try:
            self._take(message)
        except (msgspec.ValidationError, asyncio.QueueFull) as error:
            self._end(f"receiving failed: {error!r}")

    def _take(self, message: dict[str, Any]) -> None:
        if self._clocks is not None and "hlc" in message:
            self._clocks.observe(int(message.get("lc", 0)), int(message["hlc"]))
        if "ev" in message:
            record = msgspec.convert(message["record"], WorkloadRecord)
            if self._events.qsize() >= EVENTS_MAX - 1:
                raise asyncio.QueueFull
            self._events.put_nowait(WorkloadEvent(str(message["ev"]), int(message["sequence"]), record))
            return
        future = self._waiting.get(message.get("re", -1))
        if future is not None and not future.done():
            future.set_result(message)

    def _end(self, why: str) -> None:
        if self._gone is not None:
            return
        self._gone = why
        self._channel.close()
        for future in self._waiting.values():
            if not future.done():
                future.set_exception(SandboxerGone(why))
        self._events.put_nowait(None)
