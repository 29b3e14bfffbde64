"""What a schedule does to a cluster of cores: clients' calls, and faults of processes, links and disks.

Parts of `raft_schedule.World`; everything is drawn from the world's one `Random`.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable
from random import Random
from typing import Any

from chaos.disk import ForgettingDisk
from raft.core import Core
from raft.effects import Persist, Role, Send
from raft.events import Event, HandOver, Proposal, Proposed, ReadRequested, Tick
from raft.store.log_store import LogStore
from raft.writer import Batch
from tests.support.raft_invariants import DiskView, Invariants

MS = 1_000_000
FAULTS = (
    *("crash", "crash", "split", "isolate", "one-way", "heal", "heal"),
    *("slow", "slow", "pause", "wipe", "needless", "hand-over", "hand-over"),
)


class SeededDice:
    """`spread` 1 is uniform; a smaller one makes election time-outs nearly equal, so that votes are contested."""

    def __init__(self, random: Random, spread: float = 1.0) -> None:
        self._random = random
        self.spread = spread

    def below(self, bound: int) -> int:
        return self._random.randrange(max(1, int(bound * self.spread)))

    def token(self, size_bytes: int) -> bytes:
        return self._random.randbytes(size_bytes)


class StoppedClock:
    """Nothing is measured."""

    def now_ns(self) -> int:
        return 0


class Node:
    """One replica: its disk outlives it, everything else ends with the process."""

    def __init__(self, name: str, disk: ForgettingDisk) -> None:
        self.name = name
        self.disk = disk
        self.view = DiskView()
        self.cut_short: Batch | None = None
        self.life = 0
        self.up = False
        self.paused_until = 0
        self.slow_until = 0
        self.tick_at = 0
        self.doomed = False
        self.lost = False
        self.learned = False
        self.configured_index = self.configured_upto = 0
        self.base_seen = 0
        self.snapshot_entries = 1

    def start(self, store: LogStore, core: Core) -> None:
        self.store, self.core = store, core
        self.life += 1
        self.up, self.doomed, self.lost = True, False, False
        self.paused_until = self.tick_at = 0
        self.persists: list[Persist] = []
        self.batch: Batch | None = None
        self.issued = self.durable = 0
        self.held: deque[tuple[int, Send]] = deque()
        self.proposals: dict[int, bytes] = {}
        self.waiting: dict[tuple[int, int], bytes] = {}
        self.reads: dict[int, int] = {}
        self.crashes = self.why = ""
        self.base_seen = core.log.base_index
        self.disk_clock = StoppedClock()
        self.machine: Any = None
        self.applied: Any = None
        self.snapshots: Any = None
        self.lanes: dict[Any, deque[Any]] = {}


class _Parts:
    """What the parts use of the world."""

    random: Random
    sometimes: Counter[str]
    invariants: Invariants
    now: int
    chaotic: bool
    names: tuple[str, ...]
    nodes: dict[str, Node]
    _cut: dict[tuple[str, str], bool]
    _calls: int
    _at: Callable[..., None]
    _step: Callable[[Node, Event], None]
    _start: Callable[[Node], None]
    _on_crash: Callable[[Node, int], None]
    _crash: Callable[[Node], None]


class Clients(_Parts):
    """Proposals and reads, mostly at whoever believes to lead."""

    def _on_client(self) -> None:
        random = self.random
        self._at(random.randrange(1, 30) * MS, "client")
        leaders = [node for node in self.nodes.values() if node.up and node.core.role is Role.LEADER]
        if random.random() < 0.03:
            leaders = [node for node in self.nodes.values() if node.up]
        if not leaders:
            return
        if len(leaders) > 1:  # one of them may have been deposed without knowing it
            for node in leaders:
                if node.up and node.paused_until <= self.now:
                    self._read(node)
        node = random.choice(leaders)
        if node.paused_until > self.now:
            return
        if random.random() < 0.2:
            self._read(node)
            return
        proposals = []
        for _ in range(random.choice((1, 1, 2, 5))):
            self._calls += 1
            data = b"%d" % self._calls * random.choice((1, 8, 30))
            node.proposals[self._calls] = data
            proposals.append(Proposal(self._calls, data))
        self._step(node, Proposed(self.now, tuple(proposals)))

    def _read(self, node: Node) -> None:
        self._calls += 1
        node.reads[self._calls] = self.invariants.acked_max
        self._step(node, ReadRequested(self.now, (self._calls,)))


class Faults(_Parts):
    """Crashes, partitions, one-way cuts, slow disks and pauses, more often of the leader than of others."""

    def _on_nemesis(self) -> None:
        if not self.chaotic:
            return
        random = self.random
        self._at(random.randrange(20, 300) * MS, "nemesis")
        node = self.nodes[random.choice(self.names)]
        leading = [each for each in self.nodes.values() if each.up and each.core.role is Role.LEADER]
        if leading and random.random() < 0.5:
            node = random.choice(leading)
        fault = random.choice(FAULTS)
        getattr(self, f"_{fault.replace('-', '_')}_fault")(node)

    def _crash_fault(self, node: Node) -> None:
        if self.random.random() < 0.6:
            node.doomed = True  # dies during its next write
        elif node.up:
            self._on_crash(node, node.life)

    def _on_restart(self, node: Node) -> None:
        if not node.up:
            self._start(node)
            if self.chaotic and self.random.random() < 0.3:
                self._needless_fault(node)

    def _wipe_fault(self, node: Node) -> None:
        """A disk is lost, or rots in the middle of its log, or is back empty before anybody noticed.

        Only while the others are voters with the stores they have: a second one of three would be more than the
        cluster promises to survive.
        """
        if self._missing() >= (len(self.names) - 1) // 2:
            return
        if node.up:
            self._crash(node)
        node.lost, random = True, self.random
        segments = [name for name in node.disk.names() if name.startswith("log-")]
        if random.random() < 0.4 and node.store.frames > 4:
            node.disk.rot(segments[0], random.randrange(520, 560), 0xFF)
            self.sometimes["log rotted in the middle"] += 1
        else:
            node.disk = ForgettingDisk(random, torn=node.disk.torn)
            node.view, node.cut_short = DiskView(), None
            self.sometimes["disk lost"] += 1
        self._at(random.choice((1, 50, 400)) * MS, "restart", node)

    def _missing(self) -> int:
        """How many replicas have lost their store, and are no voters again in what is committed."""
        configuration = self.invariants.configuration
        if configuration is None or configuration.outgoing:
            return len(self.names)
        voters = configuration.voters
        return sum(node.lost or voters.get(name) != node.store.store_id for name, node in self.nodes.items())

    def _split_fault(self, _: Node) -> None:
        side = {name: self.random.random() < 0.5 for name in self.names}
        self._cut = {(a, b): True for a in self.names for b in self.names if side[a] != side[b]}

    def _isolate_fault(self, node: Node) -> None:
        for name in self.names:
            self._cut[name, node.name] = self._cut[node.name, name] = True

    def _one_way_fault(self, node: Node) -> None:
        self._cut[node.name, self.random.choice(self.names)] = True

    def _heal_fault(self, _: Node) -> None:
        self._cut.clear()

    def _needless_fault(self, node: Node) -> None:
        """A leader may send a snapshot whenever it likes: also to a follower that has the log, or just restarted."""
        for leader in self.nodes.values():
            if leader.up and leader.core.snapshot is not None and node.name in leader.core.progress:
                leader.core._replication.transfers.begin(node.name, leader.core.progress[node.name])
                self._step(leader, Tick(self.now))

    def _hand_over_fault(self, node: Node) -> None:
        """An operator, or an order to stop, makes a replica hand its leadership over, if it has any."""
        if node.up and node.paused_until <= self.now:
            self._calls += 1
            to = self.random.choice((None, None, *self.names))
            self._step(node, HandOver(self.now, self._calls, to))

    def _slow_fault(self, node: Node) -> None:
        node.slow_until = self.now + self.random.randrange(50, 600) * MS

    def _pause_fault(self, node: Node) -> None:
        node.paused_until = self.now + self.random.randrange(20, 900) * MS
        self._at(node.paused_until - self.now, "resumed", node, node.life)

    def _on_resumed(self, node: Node, life: int) -> None:
        """A question comes first, before all the messages that would tell an old leader what it missed."""
        if node.up and node.life == life and node.paused_until <= self.now:
            self.sometimes["process resumed after a pause"] += 1
            if node.core.role is Role.LEADER:
                self._read(node)
