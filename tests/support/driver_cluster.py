"""Drivers in one process: real loop, real threads, links that can be cut, disks that can hang."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from random import Random
from typing import Any
from zlib import crc32

import msgspec

from chaos.disk import ForgettingDisk, ForgettingFile
from cluster.clock import SystemClock
from cluster.dice import SeededDice
from raft.core import CoreConfig
from raft.driver import Driver
from raft.effects import Role
from raft.messages import COMMAND, Entry, Message
from raft.store.log_store import LogStore

SEGMENT_BYTES = 1 << 18
PATIENCE_S = 20.0


class HangingFile:
    """A file whose sync waits at its disk's gate."""

    def __init__(self, disk: HangingDisk, file: ForgettingFile) -> None:
        self._disk = disk
        self._file = file

    def sync(self) -> None:
        self._disk.gate.wait(PATIENCE_S)
        self._file.sync()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


class HangingDisk:
    """A disk that can be told to hang: while `gate` is not set, no sync of files opened here returns."""

    def __init__(self, disk: ForgettingDisk) -> None:
        self.disk = disk
        self.gate = threading.Event()
        self.gate.set()

    def open(self, name: str, *, create: bool = False) -> HangingFile:
        return HangingFile(self, self.disk.open(name, create=create))

    def __getattr__(self, name: str) -> Any:
        return getattr(self.disk, name)


class Memory:
    """A state machine that keeps what it is given; commands answer their own data."""

    def __init__(self) -> None:
        self.entries: list[Entry] = []
        self.fail_on = b""
        self.restored = self.released = self.hashed = 0
        self.gate = threading.Event()
        self.gate.set()

    @property
    def commands(self) -> list[bytes]:
        return [entry.data for entry in self.entries if entry.kind == COMMAND]

    def apply(self, entries: Sequence[Entry]) -> list[bytes]:
        for entry in entries:
            if self.fail_on and entry.data == self.fail_on:
                raise ValueError("a command that this version cannot apply")
            self.entries.append(entry)
        return [entry.data for entry in entries]

    def freeze(self) -> FrozenMemory:
        return FrozenMemory(self, list(self.entries))

    def restore(self, index: int, term: int, chunks: Iterable[bytes]) -> None:
        self.entries = msgspec.msgpack.decode(b"".join(chunks), type=list[Entry])
        assert self.entries[-1].index == index, "the state is the one that was asked for"
        self.restored += 1


class FrozenMemory:
    """Its state at one index; `gate` of the machine holds its writing up."""

    def __init__(self, machine: Memory, entries: list[Entry]) -> None:
        self._machine = machine
        self._entries = entries

    def chunks(self) -> Iterator[bytes]:
        data = msgspec.msgpack.encode(self._entries)
        for start in range(0, len(data), 1000):
            self._machine.gate.wait(PATIENCE_S)
            yield data[start : start + 1000]

    def digest(self) -> str:
        self._machine.hashed += 1
        return f"0:{crc32(msgspec.msgpack.encode(self._entries)):08x}"

    def release(self) -> None:
        self._machine.released += 1


class Recorder:
    """An observer that keeps events."""

    def __init__(self) -> None:
        self.events: list[tuple[str, dict[str, Any]]] = []

    def emit(self, kind: str, /, **fields: Any) -> None:
        self.events.append((kind, fields))

    def of(self, kind: str) -> list[dict[str, Any]]:
        return [fields for name, fields in self.events if name == kind]


class Replica:
    """One driver with everything around it."""

    def __init__(self, cluster: DriverCluster, name: str, disk: HangingDisk) -> None:
        self.name = name
        self.disk = disk
        self.machine = Memory()
        self.observer = Recorder()
        self.sent: list[tuple[str, Message]] = []
        self.store = LogStore.open(
            disk,
            node_id=name,
            cluster_name="test",
            dice=SeededDice(f"{name}/{disk.operations}"),
            segment_bytes=SEGMENT_BYTES,
        )
        config = CoreConfig(id=name, store_id=self.store.store_id, peers=cluster.names, **cluster.config)
        self.driver = Driver(
            config=config,
            store=self.store,
            transport=_Transport(cluster, self),
            clock=SystemClock(),
            dice=SeededDice(f"core/{name}/{disk.operations}"),
            machine=self.machine,
            observer=self.observer,
        )
        self.running = asyncio.get_running_loop().create_task(self.driver.run())


class _Transport:
    def __init__(self, cluster: DriverCluster, replica: Replica) -> None:
        self._cluster = cluster
        self._replica = replica

    def send(self, to: str, message: Message) -> None:
        self._replica.sent.append((to, message))
        asyncio.get_running_loop().call_soon(self._cluster.deliver, self._replica.name, to, message)


class DriverCluster:
    """Use as an async context manager."""

    def __init__(self, *names: str, capacity_bytes: int | None = None, config: dict[str, int] | None = None) -> None:
        self.names = names or ("n1", "n2", "n3")
        self.config: dict[str, Any] = dict(config or {})
        self.cuts: set[tuple[str, str]] = set()
        self.disks = {
            name: HangingDisk(ForgettingDisk(Random(name), capacity_bytes=capacity_bytes)) for name in self.names
        }
        self.replicas: dict[str, Replica] = {}

    async def __aenter__(self) -> DriverCluster:
        for name in self.names:
            self.start(name)
        return self

    async def __aexit__(self, *_: object) -> None:
        for disk in self.disks.values():
            disk.gate.set()
        for replica in self.replicas.values():
            replica.machine.gate.set()
        for name in list(self.replicas):
            await self.stop(name)

    def start(self, name: str) -> Replica:
        self.replicas[name] = Replica(self, name, self.disks[name])
        return self.replicas[name]

    async def stop(self, name: str) -> None:
        replica = self.replicas.pop(name)
        await replica.driver.stop()
        await asyncio.gather(replica.running, return_exceptions=True)

    async def lose_power(self, name: str) -> None:
        """The power of one replica goes; `start` brings it back with what its disk kept."""
        replica = self.replicas.pop(name)
        replica.disk.crash()
        self.disks[name] = HangingDisk(replica.disk.disk.reopen())
        await replica.driver.stop()
        await asyncio.gather(replica.running, return_exceptions=True)

    def deliver(self, sender: str, to: str, message: Message) -> None:
        if (sender, to) not in self.cuts and to in self.replicas and sender in self.replicas:
            self.replicas[to].driver.receive(sender, message, self.replicas[sender].store.store_id)

    def isolate(self, name: str) -> None:
        for other in self.names:
            if other != name:
                self.cuts |= {(name, other), (other, name)}

    def heal(self) -> None:
        self.cuts.clear()

    async def until(self, condition: Callable[[], bool], what: str) -> None:
        """Wait until `condition` holds; a driver that ended meanwhile is an error."""
        async with asyncio.timeout(PATIENCE_S):
            while not condition():
                for replica in list(self.replicas.values()):
                    if replica.running.done():
                        replica.running.result()
                        raise AssertionError(f"{replica.name} ended while waiting for: {what}")
                await asyncio.sleep(0.002)

    def leading(self, *, among: Sequence[str] | None = None) -> Replica | None:
        """The leader of the highest term that has committed in it."""
        found = [
            replica
            for replica in self.replicas.values()
            if replica.driver.core.role is Role.LEADER and (among is None or replica.name in among)
        ]
        found = [
            one for one in found if one.driver.core.log.term_at(one.driver.core.commit_index) == one.driver.core.term
        ]
        return max(found, key=lambda one: one.driver.core.term, default=None)

    async def leader(self, *, among: Sequence[str] | None = None) -> Replica:
        await self.until(lambda: self.leading(among=among) is not None, "a leader")
        found = self.leading(among=among)
        assert found is not None
        return found

    def followers(self, leader: Replica) -> list[Replica]:
        return [replica for replica in self.replicas.values() if replica is not leader]
