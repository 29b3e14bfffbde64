"""Snapshots in a schedule: a tiny state machine, and a replica's production `Snapshotter` in virtual time.

Part of `raft_schedule.World`: jobs run when their time has come, one a lane, or are cut off in their middle.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from random import Random
from typing import Any
from zlib import crc32

import msgspec

from raft.core import CoreConfig
from raft.counters import Counters
from raft.effects import Restore, Send, TakeChunk
from raft.errors import StoreError
from raft.events import ApplyDone, Event
from raft.lanes import Job, LaneName
from raft.messages import Entry, Message, Snapshot, SnapshotReply
from raft.snapshotter import Snapshotter
from tests.support.raft_faults import MS, Node
from tests.support.raft_invariants import Invariants, Violation


class Ledger:
    """A state machine whose whole state is one number, which every applied entry changes."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.index = 0
        self.digest = 0

    def apply(self, entries: Sequence[Entry]) -> list[None]:
        for entry in entries:
            assert entry.index == self.index + 1, "entries come in order"
            self.index, self.digest = (
                entry.index,
                crc32(b"%d %d %b" % (entry.term, entry.kind, entry.data), self.digest),
            )
        return [None] * len(entries)

    def freeze(self) -> FrozenLedger:
        return FrozenLedger(self.name, self.index, self.digest)

    def restore(self, index: int, term: int, chunks: Iterable[bytes]) -> None:
        _, self.index, self.digest, _ = msgspec.msgpack.decode(b"".join(chunks), type=tuple[str, int, int, bytes])
        assert self.index == index, "a snapshot of another index"


class FrozenLedger:
    """Different bytes on every replica, of a length that depends on the state."""

    def __init__(self, name: str, index: int, digest: int) -> None:
        self._digest = digest
        self._data = msgspec.msgpack.encode((name, index, digest, name.encode() * (digest % 400)))

    def chunks(self) -> Iterator[bytes]:
        for start in range(0, len(self._data), 33):
            yield self._data[start : start + 33]

    def digest(self) -> str:
        return f"0:{self._digest:08x}"

    def release(self) -> None:
        pass


class Applied:
    """The part of `raft.apply.Applier` that a `Snapshotter` uses."""

    def __init__(self) -> None:
        self.index = 0

    def restored(self, index: int) -> None:
        self.index = index


class Office:
    """Transport, report and clock of one replica's snapshotter."""

    def __init__(self, world: Snapshots, node: Node) -> None:
        self._world = world
        self._node = node

    def send(self, to: str, message: Message) -> None:
        self._world._transmit(self._node, Send(to, message, False))

    def now_ns(self) -> int:
        return self._world.now

    def note(self, text: str) -> None:
        raise Violation("snapshot-intact", f"{self._node.name}: {text}, though nothing was damaged")

    def snapshot(self, operation: str, snapshot: Snapshot, took_ns: int) -> None:
        self._world.sometimes[operation] += 1

    def installed(self, effect: object) -> None:
        pass


class Snapshots:
    """What a world does with snapshots."""

    random: Random
    sometimes: Counter[str]
    invariants: Invariants
    now: int
    chaotic: bool
    _at: Callable[..., None]
    _step: Callable[[Node, Event], None]
    _transmit: Callable[[Node, Send], None]

    def _snapshot_shape(self) -> dict[str, int]:
        random = self.random
        return {
            "snapshot_log_bytes": random.choice((500, 1 << 20)),
            "snapshot_chunk_bytes": random.choice((40, 150, 1 << 16)),
            "keep_tail_entries": random.choice((0, 3, 20)),
        }

    def _start_snapshots(self, node: Node, config: CoreConfig) -> None:
        node.machine, node.applied = Ledger(node.name), Applied()
        office: Any = Office(self, node)
        node.snapshots = Snapshotter(
            core=node.core,
            config=config,
            store=node.store,
            transport=office,
            clock=office,
            machine=node.machine,
            applier=node.applied,  # type: ignore[arg-type]  the part of it that is used
            counters=Counters(),
            report=office,
            step=lambda event: self._step(node, event),
        )
        node.lanes = {name: deque() for name in LaneName}
        node.snapshots.recover()
        snapshot = node.core.snapshot
        if snapshot is not None:
            self.sometimes["restart through a snapshot"] += 1
            self._restored(node, snapshot)

    def _restored(self, node: Node, snapshot: Snapshot) -> None:
        self.invariants.stands_for(node.name, node.core, snapshot)
        self.invariants.state_is(node.name, node.machine.index, node.machine.digest)

    def _apply_to_machine(self, node: Node, entries: Sequence[Entry]) -> None:
        for entry in entries:
            node.machine.apply((entry,))
            self.invariants.state_is(node.name, entry.index, node.machine.digest)
        node.applied.index = node.machine.index

    def _restore_effect(self, node: Node, effect: Restore) -> None:
        self.invariants.installing(node.name, effect.snapshot, node.view)
        node.snapshots.restore(effect)
        self._restored(node, effect.snapshot)
        node.waiting = {where: data for where, data in node.waiting.items() if where[1] > effect.snapshot.index}
        self.sometimes["snapshot installed"] += 1

    def _take_chunk(self, node: Node, effect: TakeChunk) -> None:
        if self.chaotic and effect.chunk.offset and self.random.random() < 0.1:
            self.sometimes["receiver crashed between two pieces"] += 1
            node.crashes = self.random.choice(("kill", "kill", "power"))
            self._at(self.random.randrange(4 * MS), "crash", node, node.life)
        node.snapshots.take_chunk(effect)

    def _chunk_left(self, node: Node, effect: Send) -> None:
        """Pieces come again more often than other messages: soon, or in another term."""
        if self.chaotic and self.random.random() < 0.2:
            delay = self.random.choice((25, 25, 500)) * MS
            late = self.random.randrange(delay)
            self._at(late, "message", node.name, node.store.store_id, effect.to, effect.message)

    def _snapshot_reply(self, node: Node, sender: str, reply: SnapshotReply) -> None:
        progress = node.core.progress.get(sender)
        if progress is None or progress.snapshot != reply.snapshot or progress.chunk_offset is not None:
            return
        if 0 < reply.offset < reply.snapshot.size_bytes:
            self.sometimes["snapshot transfer went on where it was"] += 1

    def _after_step(self, node: Node) -> None:
        """As `Turns.settle` does: tell the core what is applied, perhaps take a snapshot, start jobs."""
        core = node.core
        if node.applied.index > core.applied_index and self.random.random() < 0.5:
            self._step(node, ApplyDone(self.now, node.applied.index))
            return
        if node.applied.index == core.applied_index:
            node.snapshots.consider()
        if core.log.base_index > node.base_seen:
            node.base_seen = core.log.base_index
            self.sometimes["log compacted"] += 1
        self._start_jobs(node)

    def _start_jobs(self, node: Node) -> None:
        for job in node.snapshots.jobs():
            lane = node.lanes[job.lane]
            lane.append(job)
            if len(lane) == 1:
                self._begin_job(node, job)

    def _begin_job(self, node: Node, job: Job) -> None:
        slow = 10 if self.now < node.slow_until else 1
        delay = slow * self.random.randrange(50_000, 6 * MS)
        self._at(delay, "job", node, node.life, job.lane)
        if self.chaotic and self.random.random() < 0.01:
            node.crashes = "in a job"
            self._at(self.random.randrange(delay), "crash", node, node.life)

    def _on_job(self, node: Node, life: int, name: LaneName) -> None:
        if node.life != life or not node.up:
            return
        if node.paused_until > self.now:
            self._at(node.paused_until - self.now, "job", node, life, name)
            return
        lane = node.lanes[name]
        job = lane[0]
        resumed = node.store.snapshots.resumed
        job.run(node.disk_clock)
        if node.store.snapshots.resumed > resumed:
            self.sometimes["receiver found a part after its restart"] += 1
        if job.result == (0, None) and node.store.snapshots._incoming is None:
            raise Violation("snapshot-intact", f"{node.name} put a snapshot together that does not fit")
        node.snapshots.done(job)
        lane.popleft()
        if lane:
            self._begin_job(node, lane[0])
        self._start_jobs(node)

    def _crash_in_a_job(self, node: Node) -> None:
        """The power goes in the middle of what a snapshot thread does."""
        working = [lane[0] for lane in node.lanes.values() if lane]
        if not working:
            return
        job = self.random.choice(working)
        node.disk.crash_at(self.random.randrange(1, 8))
        job.run(node.disk_clock)
        if isinstance(job.error, OSError | StoreError):
            what = "writing an own snapshot" if job.lane is LaneName.OWN else "work with a peer's snapshot"
            self.sometimes[f"crash in the middle of {what}"] += 1
