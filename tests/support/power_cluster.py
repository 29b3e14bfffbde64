"""Three replicas, cores and log stores, whose power goes at a chosen disk operation.

Virtual time, seeded chance, no threads.  A replica does what the driver and its writer thread do: one write in
flight, later ones merged, what promises durability held back until then.
"""

from __future__ import annotations

from collections.abc import Callable
from heapq import heappop, heappush
from random import Random

from chaos.disk import ForgettingDisk
from cluster.dice import SeededDice
from raft.core import Core, CoreConfig, Recovered
from raft.effects import Apply, Effect, Persist, ProposalAppended, Role, Send
from raft.errors import StoreError
from raft.events import ApplyDone, Event, Persisted, Proposal, Proposed, Received, Tick
from raft.messages import COMMAND, Entry
from raft.store.log_store import LogStore
from raft.writer import merge

MS = 1_000_000
NAMES = ("n1", "n2", "n3")
SEGMENT_BYTES = 8192


class LostWrite(AssertionError):
    """An acknowledged write is gone."""


class Replica:
    """One replica over its disk; `incarnation` grows with every start, what is scheduled for an older one is void."""

    def __init__(self, cluster: PowerCluster, name: str, disk: ForgettingDisk) -> None:
        self.cluster = cluster
        self.name = name
        self.disk = disk
        self.incarnation = 0
        self.up = False
        self.applied: list[Entry] = []

    def start(self) -> None:
        self.incarnation += 1
        dice = self.cluster.dice.fork(f"{self.name}/{self.incarnation}")
        try:
            self.store = LogStore.open(
                self.disk, node_id=self.name, cluster_name="sim", dice=dice, segment_bytes=SEGMENT_BYTES
            )
        except StoreError:
            if self.cluster.outage or self.disk.operations < self.cluster.power_fails_at:
                raise  # the power is back, the store itself is at fault
            self.cluster.power_went(self)  # while the store was opened
            return
        recovered = Recovered(self.store.recovered.hard_state, self.store.recovered.entries)
        config = CoreConfig(id=self.name, store_id=self.store.store_id, peers=NAMES)
        self.core = Core(config, recovered, dice, self.cluster.now_ns)
        self.up = True
        self.applied = []
        self.persists: list[Persist] = []
        self.issued = self.durable = 0
        self.writing = False
        self.held: list[tuple[int, Send]] = []
        self.own: dict[tuple[int, int], bytes] = {}
        self.proposed: dict[int, bytes] = {}
        self.tick()

    def start_later(self, delay_ns: int) -> None:
        self.incarnation += 1
        incarnation = self.incarnation
        self.cluster.at(delay_ns, lambda: self.start() if self.incarnation == incarnation else None)

    def later(self, delay_ns: int, work: Callable[[], None]) -> None:
        incarnation = self.incarnation
        self.cluster.at(delay_ns, lambda: work() if self.up and self.incarnation == incarnation else None)

    def tick(self) -> None:
        if self.cluster.now_ns >= self.core.next_deadline_ns():
            self.step(Tick(self.cluster.now_ns))
        if self.up:
            self.later(min(10 * MS, max(1, self.core.next_deadline_ns() - self.cluster.now_ns)), self.tick)

    def step(self, event: Event) -> None:
        for effect in self.core.step(event):
            self.carry_out(effect)
        if self.persists and not self.writing:
            self.writing = True
            self.later(self.cluster.random.randrange(1, 3 * MS), self.write)

    def carry_out(self, effect: Effect) -> None:
        match effect:
            case Persist():
                self.persists.append(effect)
                self.issued = effect.write
            case Send() if effect.after_persist and self.durable < self.issued:
                self.held.append((self.issued, effect))
            case Send():
                self.cluster.send(self.name, effect)
            case Apply():
                self.apply(effect.entries)
            case ProposalAppended():
                self.own[effect.term, effect.index] = self.proposed[effect.id]
            case _:
                pass

    def write(self) -> None:
        batch, self.persists = merge(self.persists), []
        try:
            self.store.append(batch.hard_state, batch.entries)
        except StoreError:
            self.cluster.power_went(self)
            return
        self.writing, self.durable = False, batch.write
        now_ns = self.cluster.now_ns
        self.step(Persisted(now_ns, batch.write, self.store.last_term, self.store.last_index))
        ready = [send for number, send in self.held if number <= self.durable]
        self.held = [(number, send) for number, send in self.held if number > self.durable]
        for send in ready:
            self.cluster.send(self.name, send)

    def apply(self, entries: tuple[Entry, ...]) -> None:
        self.applied.extend(entries)
        for entry in entries:
            if self.own.get((entry.term, entry.index)) == entry.data and entry.kind == COMMAND:
                self.cluster.acknowledged[entry.index] = entry.data
        self.step(ApplyDone(self.cluster.now_ns, entries[-1].index))


class PowerCluster:
    """The cluster, its network and its client."""

    def __init__(self, seed: int, *, torn: bool) -> None:
        self.random = Random(seed)
        self.dice = SeededDice(seed)
        self.now_ns = MS
        self.acknowledged: dict[int, bytes] = {}
        self.power_fails_at = 1 << 62
        self.outage = False
        self.loaded = True
        self._agenda: list[tuple[int, int, Callable[[], None]]] = []
        self._order = 0
        self._proposals = 0
        self.replicas = {name: Replica(self, name, ForgettingDisk(self.random, torn=torn)) for name in NAMES}
        for replica in self.replicas.values():
            replica.start()
        self._load()

    def at(self, delay_ns: int, work: Callable[[], None]) -> None:
        self._order += 1
        heappush(self._agenda, (self.now_ns + delay_ns, self._order, work))

    def send(self, sender: str, send: Send) -> None:
        if self.random.randrange(50):  # the others are lost
            self.at(self.random.randrange(1, 2 * MS), lambda: self._deliver(sender, send))

    def run(self, until: Callable[[], bool], what: str, *, limit_ms: int = 20_000) -> None:
        limit_ns = self.now_ns + limit_ms * MS
        while not until():
            assert self.now_ns < limit_ns, f"{what} did not happen in {limit_ms} ms"
            self.now_ns, _, work = heappop(self._agenda)
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

    def _deliver(self, sender: str, send: Send) -> None:
        replica = self.replicas[send.to]
        if replica.up:
            replica.step(Received(self.now_ns, sender, send.message))

    def _load(self) -> None:
        """Every 0–4 ms a batch of 1–4 writes to whoever leads."""
        for replica in self.replicas.values():
            if self.loaded and replica.up and replica.core.role is Role.LEADER:
                batch = []
                for _ in range(self.random.randrange(1, 5)):
                    self._proposals += 1
                    replica.proposed[self._proposals] = self.random.randbytes(self.random.randrange(8, 200))
                    batch.append(Proposal(self._proposals, replica.proposed[self._proposals]))
                replica.step(Proposed(self.now_ns, tuple(batch)))
        self.at(self.random.randrange(4 * MS), self._load)
