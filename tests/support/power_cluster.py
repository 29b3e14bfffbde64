"""Three replicas, from turns to segment files, whose power goes at a chosen disk operation.

Virtual time, seeded chance, no threads and no event loop: `raft.turns` is driven as the driver drives it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from heapq import heappop, heappush
from random import Random
from zlib import crc32

import msgspec

from chaos.disk import ForgettingDisk
from chaos.platter import PowerLost
from cluster.dice import SeededDice
from raft.calls import Outcome, unknown
from raft.core import Core, CoreConfig
from raft.effects import Role
from raft.errors import SkerryError, StoreError
from raft.events import Proposal
from raft.lanes import Job
from raft.messages import Entry, Message
from raft.store.log_store import LogStore
from raft.turns import Turns
from raft.writer import Batch, Written

MS = 1_000_000
NAMES = ("n1", "n2", "n3")
SEGMENT_BYTES = 8192


class LostWrite(AssertionError):
    """An acknowledged write is gone."""


class Stuck(AssertionError):
    """What should have happened did not."""


class Answer:
    """A proposal's waiter: tells the cluster what was acknowledged."""

    def __init__(self, cluster: PowerCluster, data: bytes) -> None:
        self.cluster = cluster
        self.data = data

    def done(self) -> bool:
        return False

    def set_result(self, result: Outcome, /) -> None:
        self.cluster.acknowledged[result.index] = self.data

    def set_exception(self, exception: BaseException, /) -> None:
        assert isinstance(exception, SkerryError), "a proposal fails in a way that was foreseen"


class Silent:
    def emit(self, kind: str, /, **fields: object) -> None:
        pass


class Replica:
    """One replica over its disk; `incarnation` grows with every start, what is scheduled for an older one is void."""

    def __init__(self, cluster: PowerCluster, name: str, disk: ForgettingDisk) -> None:
        self.cluster = cluster
        self.name = name
        self.disk = disk
        self.incarnation = 0
        self.up = False
        self.applied: list[Entry] = []

    @property
    def core(self) -> Core:
        return self.turns.core

    def start(self) -> None:
        self.incarnation += 1
        dice = self.cluster.dice.fork(f"{self.name}/{self.incarnation}")
        self.applied = []
        try:
            self.store = LogStore.open(
                self.disk, node_id=self.name, cluster_name="sim", dice=dice, segment_bytes=SEGMENT_BYTES
            )
            self.turns = self._turns(dice)
        except (StoreError, PowerLost):
            if self.cluster.outage or self.disk.operations < self.cluster.power_fails_at:
                raise  # the power is back, the store itself is at fault
            self.cluster.power_went(self)  # while the store was opened
            return
        self.up = True
        self.do(self.turns.tick)
        self.beat()

    def _turns(self, dice: SeededDice) -> Turns:
        return Turns(
            config=CoreConfig(
                id=self.name,
                store_id=self.store.store_id,
                peers=NAMES,
                snapshot_entries=25,
                keep_tail_entries=5,
                digest_every=self.cluster.digest_every,
            ),
            store=self.store,
            transport=self,
            clock=self.cluster,
            dice=dice,
            machine=self,
            observer=Silent(),
        )

    def start_later(self, delay_ns: int) -> None:
        self.incarnation += 1
        incarnation = self.incarnation
        self.cluster.at(delay_ns, lambda: self.start() if self.incarnation == incarnation else None)

    def later(self, delay_ns: int, work: Callable[[], None]) -> None:
        incarnation = self.incarnation
        self.cluster.at(delay_ns, lambda: work() if self.up and self.incarnation == incarnation else None)

    def beat(self) -> None:
        if self.cluster.time_ns >= self.turns.deadline_ns:
            self.do(self.turns.tick)
        self.later(max(1, min(10 * MS, self.turns.deadline_ns - self.cluster.time_ns)), self.beat)

    def do(self, work: Callable[[], None]) -> None:
        """One turn, as the driver gives it; the write it leads to takes up to 3 ms."""
        try:
            work()
            self.turns.settle(self.cluster.time_ns)
        except PowerLost:  # while a snapshot was read back
            self.cluster.power_went(self)
            return
        batch = self.turns.next_batch()
        if batch is not None:
            self.later(self.cluster.random.randrange(1, 3 * MS), lambda: self.write(batch))
        for job in self.turns.jobs():
            self.later(self.cluster.random.randrange(1, 3 * MS), partial(self.carry, job))

    def carry(self, job: Job) -> None:
        """What a snapshot thread does, at one moment."""
        job.run(self.cluster)
        if isinstance(job.error, PowerLost):
            self.cluster.power_went(self)
            return
        self.do(lambda: self.turns.job_done(job))

    def write(self, batch: Batch) -> None:
        try:
            size = self.store.append(batch.hard_state, batch.entries, batch.base)
        except StoreError:
            self.cluster.power_went(self)
            return
        written = Written(batch.write, self.store.last_term, self.store.last_index, size, 0, None)
        self.do(lambda: self.turns.written(written))

    def propose(self, data: bytes) -> None:
        call_id = self.turns.calls.add(Answer(self.cluster, data), 1 << 62, unknown)
        self.turns.take_proposal(Proposal(call_id, data))

    def send(self, to: str, message: Message) -> None:
        self.cluster.send(self.name, to, message)

    def apply(self, entries: Sequence[Entry]) -> list[None]:
        self.applied.extend(entries)
        return [None] * len(entries)

    def freeze(self) -> Frozen:
        return Frozen(list(self.applied))

    def restore(self, index: int, term: int, chunks: Iterable[bytes]) -> None:
        self.applied = msgspec.msgpack.decode(b"".join(chunks), type=list[Entry])
        assert len(self.applied) == index, "the state is the one of that index"
        self.cluster.restored += 1


class Frozen:
    """All that was applied."""

    def __init__(self, applied: list[Entry]) -> None:
        self._applied = applied

    def chunks(self) -> Iterator[bytes]:
        yield msgspec.msgpack.encode(self._applied)

    def digest(self) -> str:
        return f"0:{crc32(msgspec.msgpack.encode(self._applied)):08x}"

    def release(self) -> None:
        pass


class PowerCluster:
    """The cluster, its network and its client."""

    def __init__(self, seed: int, *, torn: bool, digest_every: int = 4096) -> None:
        self.digest_every = digest_every
        self.random = Random(seed)
        self.dice = SeededDice(seed)
        self.time_ns = MS
        self.acknowledged: dict[int, bytes] = {}
        self.power_fails_at = 1 << 62
        self.outage = False
        self.restored = 0
        self.loaded = True
        self._agenda: list[tuple[int, int, Callable[[], None]]] = []
        self._order = 0
        self.replicas = {name: Replica(self, name, ForgettingDisk(self.random, torn=torn)) for name in NAMES}
        for replica in self.replicas.values():
            replica.start()
        self._load()

    def at(self, delay_ns: int, work: Callable[[], None]) -> None:
        self._order += 1
        heappush(self._agenda, (self.time_ns + delay_ns, self._order, work))

    def now_ns(self) -> int:
        return self.time_ns

    def send(self, sender: str, to: str, message: Message) -> None:
        if self.random.randrange(50):  # the others are lost
            self.at(self.random.randrange(1, 2 * MS), lambda: self._deliver(sender, to, message))

    def run(self, until: Callable[[], bool], what: str, *, limit_ms: int = 20_000) -> None:
        limit_ns = self.time_ns + limit_ms * MS
        while not until():
            if self.time_ns >= limit_ns:
                raise Stuck(f"{what} did not happen in {limit_ms} ms")
            self.time_ns, _, work = heappop(self._agenda)
            work()

    def lose_power_after(self, name: str, operations: int, *, everywhere: bool) -> None:
        """The power of one replica goes in the middle of its n-th disk operation from now."""
        replica = self.replicas[name]
        self.power_fails_at = replica.disk.operations + operations
        self.everywhere = everywhere
        self.outage, self.loaded = False, True
        replica.disk.crash_at(operations)

    def power_went(self, struck: Replica) -> None:
        self.outage = True
        for replica in self.replicas.values():
            if replica is struck or self.everywhere:
                replica.up = False
                if replica is not struck:
                    replica.disk.crash()
                replica.disk = replica.disk.reopen()
                replica.start_later(self.random.randrange(1, 300) * MS)

    def settled(self) -> bool:
        """The load has ended and all have applied everything their leader has, of its own term too."""
        self.loaded = False
        replicas = list(self.replicas.values())
        leaders = [replica for replica in replicas if replica.up and replica.core.role is Role.LEADER]
        if len(leaders) != 1 or not all(replica.up for replica in replicas):
            return False
        core = leaders[0].core
        return core.log.last_term == core.term and all(len(one.applied) == core.last_index for one in replicas)

    def check(self) -> None:
        """Raises LostWrite unless every replica has applied every acknowledged write at its index."""
        for replica in self.replicas.values():
            for index, data in self.acknowledged.items():
                if index > len(replica.applied) or replica.applied[index - 1].data != data:
                    raise LostWrite(f"{replica.name} has not what was acknowledged at index {index}")

    def _deliver(self, sender: str, to: str, message: Message) -> None:
        replica = self.replicas[to]
        if replica.up:
            replica.turns.take_message(sender, self.replicas[sender].store.store_id, message)
            replica.do(replica.turns.turn)

    def _load(self) -> None:
        """Every 0–4 ms a batch of 1–4 writes to whoever leads."""
        for replica in self.replicas.values():
            if self.loaded and replica.up and replica.core.role is Role.LEADER:
                for _ in range(self.random.randrange(1, 5)):
                    replica.propose(self.random.randbytes(self.random.randrange(8, 200)))
                replica.do(replica.turns.turn)
        self.at(self.random.randrange(4 * MS), self._load)
