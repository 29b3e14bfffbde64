"""A sandboxer without processes, for tests of the agent's own behaviour."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

from agents import inventory
from agents.sandbox_client import SandboxerGone, SandboxerRefused, Usage, WorkloadEvent, WorkloadRecord
from scheduler.model import Exit
from scheduler.session import Assignment


class MemorySandboxer:
    """What outlives connections: records, fences and the sequence."""

    def __init__(self, incarnation: str = "s1") -> None:
        self.incarnation = incarnation
        self.records: dict[tuple[str, int], WorkloadRecord] = {}
        self.fenced: dict[str, int] = {}
        self.sequence = 0
        self.starts: list[tuple[str, int]] = []
        self.started_under: dict[tuple[str, int], tuple[int, int]] = {}
        self.leases: list[tuple[int, int]] = []
        self.stops: list[tuple[str, int, float]] = []
        self.forgotten: list[tuple[str, int]] = []
        self.refuse: SandboxerRefused | None = None
        self.clients: list[MemoryClient] = []
        self.shut_down = False

    def connect(self) -> MemoryClient:
        client = MemoryClient(self)
        self.clients.append(client)
        return client

    def change(self, allocation: str, epoch: int, state: str, kind: str, how: Exit | None = None) -> WorkloadRecord:
        self.sequence += 1
        record = WorkloadRecord(
            allocation, epoch, 1, "default/web", state, 4242, f"/{allocation}", "", self.sequence, False, 0, 0, how
        )
        self.records[(allocation, epoch)] = record
        for client in self.clients:
            client.tell(WorkloadEvent(kind, self.sequence, record))
        return record

    def exit(self, allocation: str, epoch: int, code: int = 0, reason: str = "exited") -> None:
        self.change(allocation, epoch, "exited", "exited", Exit(code, None, reason, True))

    def crash(self) -> None:
        clients, self.clients = self.clients, []
        for client in clients:
            client.tell(None)


class MemoryClient:
    """One connection, with the methods of SandboxClient that the agent uses."""

    def __init__(self, sandboxer: MemorySandboxer) -> None:
        self._sandboxer = sandboxer
        self._events: asyncio.Queue[WorkloadEvent | None] = asyncio.Queue(1000)
        self.incarnation = sandboxer.incarnation
        self.hello: Any = SimpleNamespace(
            incarnation=sandboxer.incarnation, isolation="memory", isolation_why="a test", sequence=sandboxer.sequence,
            boot_id=inventory.boot_id(),
        )  # fmt: skip

    def tell(self, event: WorkloadEvent | None) -> None:
        self._events.put_nowait(event)

    async def renew(self, deadline_ns: int, registration: int) -> None:
        self._sandboxer.leases.append((deadline_ns, registration))

    async def start(self, assignment: Assignment, *, generation: int = 0, registration: int = 0) -> WorkloadRecord:
        box, key = self._sandboxer, (assignment.allocation, assignment.epoch)
        if box.refuse is not None:
            raise box.refuse
        if box.fenced.get(assignment.allocation, 0) >= assignment.epoch:
            raise SandboxerRefused("stale-epoch", "fenced")
        if key in box.records:
            return box.records[key]
        box.starts.append(key)
        box.started_under[key] = (generation, registration)
        return box.change(*key, "running", "started")

    async def stop(self, allocation: str, epoch: int, grace_s: float) -> WorkloadRecord | None:
        box = self._sandboxer
        box.stops.append((allocation, epoch, grace_s))
        box.fenced[allocation] = max(epoch, box.fenced.get(allocation, 0))
        record = box.records.get((allocation, epoch))
        if record is not None and record.state == "running":
            box.change(allocation, epoch, "exited", "exited", Exit(None, 15, "stopped", True))
        return record

    async def list(self) -> list[WorkloadRecord]:
        return list(self._sandboxer.records.values())

    async def usage(self) -> Usage:
        live = [r for r in self._sandboxer.records.values() if r.state == "running"]
        return Usage({record.allocation: (1_000_000, 4096, 1) for record in live}, (1_000_000 * len(live), 4096))

    async def forget(self, allocation: str, epoch: int) -> None:
        self._sandboxer.forgotten.append((allocation, epoch))

    async def shutdown(self, stop_workloads: bool) -> None:
        box = self._sandboxer
        for (allocation, epoch), record in list(box.records.items()):
            if stop_workloads and record.state == "running":
                box.change(allocation, epoch, "exited", "exited", Exit(None, 15, "stopped", True))
        box.shut_down = True
        box.crash()

    async def events(self) -> AsyncIterator[WorkloadEvent]:
        while (event := await self._events.get()) is not None:
            yield event
        raise SandboxerGone("the test took it away")

    async def close(self) -> None:
        if self in self._sandboxer.clients:
            self._sandboxer.clients.remove(self)
