"""One seeded schedule: consensus cores and real segment logs over a network and disks that misbehave.

Virtual time, one `Random` for everything, no threads: the same seed gives the same run.  A replica's
disk work is what the driver and its writer thread do: one write in flight, later ones merged, what
promises durability held until then, `Persisted` before what was held.
"""

from __future__ import annotations

from collections import Counter
from heapq import heappop, heappush
from random import Random
from zlib import crc32

from chaos.disk import ForgettingDisk
from raft.core import Core, CoreConfig, Recovered
from raft.effects import (
    Apply,
    Committed,
    Effect,
    HandedOver,
    HandOverRefused,
    Persist,
    ProposalAppended,
    ProposalRefused,
    ReadReady,
    ReadRefused,
    Reconfigured,
    Restore,
    Role,
    RoleChanged,
    Send,
    SendChunk,
    TakeChunk,
)
from raft.errors import StoreCorrupt, StoreError
from raft.events import Event, Persisted, Received, Tick
from raft.messages import Append, AppendReply, Message, SnapshotChunk, SnapshotReply, VoteReply, VoteRequest
from raft.store.log_store import LogStore
from raft.writer import merge
from tests.support.raft_faults import MS, Clients, Faults, Node, SeededDice
from tests.support.raft_invariants import DiskView, Invariants, Violation
from tests.support.raft_snapshots import Snapshots

T_NS = 150 * MS
SEGMENT_BYTES = 6 << 10


class World(Clients, Faults, Snapshots):
    """A cluster under one seed.  `run` raises `Violation`, and returns a checksum of all that happened."""

    def __init__(self, seed: int, sometimes: Counter[str] | None = None) -> None:
        self.random = random = Random(seed)
        self.sometimes = Counter() if sometimes is None else sometimes
        self.invariants = Invariants(self.sometimes)
        self.now = 0
        self.steps = 0
        self.checksum = 0
        self._queue: list[tuple[int, int, str, tuple[object, ...]]] = []
        self._order = 0
        self._calls = 0
        self.acked: dict[int, bytes] = {}
        voters = random.choices((1, 3, 5), (3, 77, 20))[0]
        self.names = tuple(f"n{number}" for number in range(1, voters + 1))
        self._shape = {
            "max_inflight_messages": random.choice((1, 2, 8)),
            "max_message_bytes": random.choice((1, 150, 1 << 20)),
            "max_inflight_bytes": random.choice((100, 1 << 20)),
            "uncommitted_bytes_max": random.choice((300, 1 << 20, 1 << 20)),
            **self._snapshot_shape(),
        }
        self.chaotic = True
        self._dice = SeededDice(random, random.choice((1.0, 1.0, 0.02)))
        self._crashing_voters = random.choice((0.0, 0.3))
        self._loss = random.choice((0.0, 0.02, 0.1, 0.25))
        self._twice = random.choice((0.0, 0.05, 0.2))
        self._late = random.choice((0.0, 0.05, 0.2))
        self._cut: dict[tuple[str, str], bool] = {}
        self.nodes = {name: Node(name, ForgettingDisk(random, torn=random.random() < 0.7)) for name in self.names}
        self.cores: dict[str, Core] = {}
        self.disks: dict[str, DiskView] = {}
        usual = random.choice((6, 30, 90))
        for node in self.nodes.values():
            node.snapshot_entries = usual + random.choice((0, 0, usual // 2))
            self._start(node)

    # -- running -------------------------------------------------------------------------------

    def run(self, chaos_ns: int = 3_000 * MS) -> int:
        self._at(self.random.randrange(40, 300) * MS, "nemesis")
        self._at(20 * MS, "client")
        self._run_until(lambda: self.now >= chaos_ns, 2 * chaos_ns)
        self._heal_everything()
        self._run_until(self._settled, self.now + 30_000 * MS)
        if not self._settled():
            roles = {name: (str(core.role), core.term, core.commit_index) for name, core in self.cores.items()}
            raise Violation("liveness", f"healed, and not settled after 30 s: {roles}")
        for name, core in self.cores.items():
            self.invariants.survived(name, core, self.acked)
            self.invariants.state_is(name, core.commit_index, self.nodes[name].machine.digest)
        return self.checksum

    def _run_until(self, done: object, deadline: int) -> None:
        assert callable(done)
        queue = self._queue
        while queue and queue[0][0] <= deadline and not done():
            self.now, _, kind, arguments = heappop(queue)
            getattr(self, f"_on_{kind}")(*arguments)

    def _at(self, delay: int, kind: str, *arguments: object) -> None:
        self._order += 1
        heappush(self._queue, (self.now + delay, self._order, kind, arguments))

    def _settled(self) -> bool:
        """Everyone is up, formed, and has applied the same log to its end, newest acknowledgement included."""
        ends = [(core.commit_index, core.last_index, core.log.hash_at(core.last_index)) for core in self.cores.values()]
        commit, last, _ = ends[0]
        voters = all(core.votes and core.configuration == core.committed_configuration for core in self.cores.values())
        return commit == last > self._goal and voters and all(end == ends[0] for end in ends)

    def _heal_everything(self) -> None:
        self.chaotic = False
        self._dice.spread = 1.0
        self._cut.clear()
        self._loss = self._twice = self._late = 0.0
        self._goal = self.invariants.commit_max
        for node in self.nodes.values():
            node.slow_until, node.doomed = 0, False
            node.paused_until = min(node.paused_until, self.now)
            if not node.up:
                self._start(node)

    # -- a replica's life ----------------------------------------------------------------------

    def _start(self, node: Node) -> None:
        dice = self._dice
        try:
            store = LogStore.open(
                node.disk,
                node_id=node.name,
                cluster_name="c",
                dice=dice,
                segment_bytes=SEGMENT_BYTES,
                retire_damaged=node.lost,
            )
        except StoreCorrupt as error:
            raise Violation("disk-durability", f"{node.name}: {error}, though nothing was damaged") from error
        if store.retired:
            self.sometimes["damaged store retired"] += 1
            node.view, node.cut_short = DiskView(), None
        self.disks[store.store_id] = node.view
        if store.torn_bytes:
            self.sometimes["torn frame cut at start"] += 1
        found = store.recovered
        recovered = Recovered(found.hard_state, found.entries, found.base, found.snapshot)
        self._recover_view(node, recovered)
        config = CoreConfig(
            id=node.name,
            store_id=store.store_id,
            peers=self.names,
            founds=not store.replaces,
            election_timeout_ns=T_NS,
            snapshot_entries=node.snapshot_entries,
            **self._shape,
        )
        core = Core(config, recovered, dice, self.now)
        node.start(store, core)
        self.cores[node.name] = core
        self.invariants.restarted(node.name, store.store_id, core)
        if not any(each.view.last_index or each.cut_short for each in self.nodes.values()):
            self.invariants.nothing_was_founded()
        self._start_snapshots(node, config)
        self._arm(node)

    def _recover_view(self, node: Node, recovered: Recovered) -> None:
        """Exactly what was durable must be there; a frame that was cut short may be there whole, or not at all."""
        found, allowed = DiskView(), [node.view]
        found.written(recovered.hard_state, recovered.entries, recovered.base)
        if node.cut_short is not None:
            perhaps = node.view.copy()
            perhaps.written(node.cut_short.hard_state, node.cut_short.entries, node.cut_short.base)
            allowed.append(perhaps)
            node.cut_short = None
        snapshot = recovered.snapshot
        if not any(found.is_part_of(view) for view in allowed):
            if snapshot is None or not any(found.is_only(snapshot, view) for view in allowed):
                told = [view.content() for view in allowed]
                raise Violation("disk-durability", f"{node.name} recovered {found.content()}, not one of {told}")
            self.sometimes["crash between a received snapshot and the log's new beginning"] += 1
        node.view.replace(found)

    def _crash(self, node: Node) -> None:
        """The process ends: power lost before, in the middle of or after the write in flight, or a mere kill."""
        node.up = False
        del self.cores[node.name]
        how = node.crashes or self.random.choice(("power", "middle", "after", "kill"))
        batch = node.batch
        if batch is not None and how in ("middle", "after"):
            if how == "middle":
                node.disk.crash_at(self.random.randrange(1, 4))
            try:
                node.store.append(batch.hard_state, batch.entries, batch.base)
                node.view.written(batch.hard_state, batch.entries, batch.base)
                self.sometimes["crash after a write, before its completion was seen"] += 1
            except StoreError:
                node.cut_short = batch
                self.sometimes["crash in the middle of a write"] += 1
        elif batch is not None:
            self.sometimes["crash before a write reached the disk"] += 1
        if how == "in a job":
            self._crash_in_a_job(node)
        if how == "kill":
            node.disk.kill()
        else:
            node.disk.crash()
        node.disk = node.disk.reopen()

    # -- steps ---------------------------------------------------------------------------------

    def _step(self, node: Node, event: Event) -> None:
        core, name = node.core, node.name
        end_before = node.configured_upto = core.last_index
        effects = core.step(event)
        self.steps += 1
        for effect in effects:
            self._carry_out(node, effect, end_before)
        self.invariants.stepped(name, core)
        if node.batch is None and node.persists:
            self._begin_write(node)
        self._after_step(node)
        self._arm(node)
        self.checksum = crc32(b"%d %d %d %d" % (self.now, core.term, core.last_index, core.commit_index), self.checksum)

    def _carry_out(self, node: Node, effect: Effect, end_before: int) -> None:
        invariants, name, core = self.invariants, node.name, node.core
        match effect:
            case Send():
                if effect.after_persist and node.durable < node.issued:
                    node.held.append((node.issued, effect))
                else:
                    self._transmit(node, effect)
            case Persist():
                node.issued = effect.write
                node.persists.append(effect)
                invariants.entered(name, core, effect.entries)
                if effect.entries and effect.base is None and effect.entries[0].index <= end_before:
                    self.sometimes["entries overwritten"] += 1
                    invariants.configured(name, core)
                    if node.batch is not None and node.batch.entries:
                        self.sometimes["entries overwritten with a write in flight"] += 1
            case Committed():
                invariants.commit_rose(name, core, effect, node.configured_upto, self.cores, self.disks)
            case Apply():
                self._apply(node, effect)
            case ProposalAppended():
                node.waiting[effect.term, effect.index] = node.proposals.pop(effect.id)
            case ProposalRefused():
                node.proposals.pop(effect.id)
                self.sometimes[f"proposal refused: {effect.code}"] += 1
            case ReadReady():
                invariants.read(name, effect.index, node.reads.pop(effect.id))
                self.sometimes["read answered"] += 1
            case ReadRefused():
                node.reads.pop(effect.id)
                self.sometimes[f"read refused: {effect.code}"] += 1
            case HandedOver():
                self.sometimes["leadership handed over"] += 1
            case HandOverRefused():
                self.sometimes[f"hand-over refused: {effect.code}"] += 1
            case SendChunk():
                node.snapshots.send_chunk(effect)
            case TakeChunk():
                self._take_chunk(node, effect)
            case Restore():
                self._restore_effect(node, effect)
            case RoleChanged():
                self._role_changed(node, effect)
            case Reconfigured():
                self._reconfigured(node, effect)
            case _:
                pass

    def _role_changed(self, node: Node, effect: RoleChanged) -> None:
        if effect.role is Role.LEADER:
            self.invariants.elected(node.name, effect.term, self.cores)
            self.sometimes["leader elected"] += 1
            if self._cut:
                self.sometimes["leader elected during a partition"] += 1
            if "hands its leadership over" in node.why:
                self.sometimes["leader elected because another handed over"] += 1
            if sum(core.role is Role.LEADER for core in self.cores.values()) > 1:
                self.sometimes["an old leader still believes it leads"] += 1
        elif effect.role is Role.CANDIDATE:
            node.why = effect.why
        elif "check-quorum" in effect.why:
            self.sometimes["leader stepped down without a quorum"] += 1
        elif "hangs" in effect.why:
            self.sometimes["leader stepped down for its slow disk"] += 1

    def _reconfigured(self, node: Node, effect: Reconfigured) -> None:
        """Where the cluster is on a replica's way back, and whether it fell back."""
        node.configured_upto = effect.index
        configuration, store = effect.configuration, node.store.store_id
        if configuration is None:
            return
        if node.core.role is Role.LEADER:
            what = "out" if configuration.learners else "in" if configuration.outgoing else "done"
            self.sometimes[f"configuration changed: {'joint ' if configuration.outgoing else ''}{what}"] += 1
            if self.chaotic and self.random.random() < 0.6:
                self.sometimes["leader cut off right after it changed the configuration"] += 1
                self._isolate_fault(node)
        if effect.index < node.configured_index:
            self.sometimes["configuration fell back"] += 1
        node.configured_index = effect.index
        if node.learned and configuration.voters.get(node.name) == store:
            self.sometimes["wiped replica became a voter again"] += 1
        node.learned = configuration.learners.get(node.name) == store

    def _apply(self, node: Node, effect: Apply) -> None:
        self.invariants.applied(node.name, effect.entries)
        self._apply_to_machine(node, effect.entries)
        for entry in effect.entries:
            data = node.waiting.pop((entry.term, entry.index), None)
            if data is not None:
                assert data == entry.data, "a proposal was acknowledged for another's entry"
                self.acked[entry.index] = data
                self.invariants.acknowledged(entry.index)
                self.sometimes["write acknowledged"] += 1

    # -- disk ----------------------------------------------------------------------------------

    def _begin_write(self, node: Node) -> None:
        node.batch, node.persists = merge(node.persists), []
        if self.now < node.slow_until:
            delay = self.random.randrange(10, 400) * MS
        else:
            delay = self.random.randrange(100_000, 3 * MS)
        self._at(delay, "written", node, node.life)
        if node.doomed:
            self._at(self.random.randrange(delay), "crash", node, node.life)

    def _on_written(self, node: Node, life: int) -> None:
        if node.life != life or not node.up:
            return
        if node.paused_until > self.now:
            self._at(node.paused_until - self.now, "written", node, life)
            return
        batch, node.batch = node.batch, None
        assert batch is not None, "one write in flight"
        node.store.append(batch.hard_state, batch.entries, batch.base)
        node.view.written(batch.hard_state, batch.entries, batch.base)
        node.durable = batch.write
        self._step(node, Persisted(self.now, batch.write, node.store.last_term, node.store.last_index))
        while node.held and node.held[0][0] <= node.durable:
            self._transmit(node, node.held.popleft()[1])
        if node.batch is None and node.persists:
            self._begin_write(node)

    # -- network -------------------------------------------------------------------------------

    def _transmit(self, node: Node, effect: Send) -> None:
        self.invariants.released(node.name, node.store.store_id, effect.to, effect.message, node.core, node.view)
        random = self.random
        if isinstance(effect.message, VoteReply | VoteRequest) and not effect.message.pre:
            self._vote_left(node)
        if (node.name, effect.to) in self._cut or random.random() < self._loss:
            self.sometimes["message lost"] += 1
            return
        if isinstance(effect.message, SnapshotChunk):
            self._chunk_left(node, effect)
        copies = 1
        if random.random() < self._twice:
            copies = 2
            self.sometimes["message repeated"] += 1
        for _ in range(copies):
            delay = random.randrange(300_000, 4 * MS)
            if random.random() < self._late:
                delay += random.randrange(250 * MS)
                self.sometimes["message late"] += 1
            self._at(delay, "message", node.name, node.store.store_id, effect.to, effect.message)

    def _vote_left(self, voter: Node) -> None:
        """The moment at which a forgotten vote would be worst: the voter dies and is back at once."""
        if self.chaotic and self.random.random() < self._crashing_voters:
            self.sometimes["voter crashed right after its vote"] += 1
            self._at(0, "crash", voter, voter.life)
            self._at(self.random.randrange(50_000, 2 * MS), "restart", voter)

    def _on_crash(self, node: Node, life: int) -> None:
        if self.chaotic and node.up and node.life == life:
            self._crash(node)
            self._at(self.random.randrange(50_000, 300 * MS), "restart", node)

    def _on_message(self, sender: str, store: str, to: str, message: Message) -> None:
        node = self.nodes[to]
        if not node.up:
            return
        if node.paused_until > self.now:
            self._at(node.paused_until - self.now, "message", sender, store, to, message)
            return
        if isinstance(message, AppendReply) and not message.accepted and message.hint_term:
            self.sometimes["conflicting logs backed up"] += 1
        if isinstance(message, VoteReply) and message.pre and not message.granted:
            self.sometimes["pre-vote refused"] += 1
        if isinstance(message, VoteRequest) and not message.pre and node.core.voted_for not in (None, sender):
            self.sometimes["second candidate of a term"] += message.term == node.core.term
        if isinstance(message, Append) and message.term < node.core.term:
            self.sometimes["message of a deposed leader"] += 1
        if isinstance(message, SnapshotReply):
            self._snapshot_reply(node, sender, message)
        self._step(node, Received(self.now, sender, message, store))

    # -- time ----------------------------------------------------------------------------------

    def _arm(self, node: Node) -> None:
        deadline = max(node.core.next_deadline_ns(), self.now)
        if node.tick_at <= self.now or deadline < node.tick_at:
            node.tick_at = deadline
            if deadline < self.now + 60_000 * MS:
                self._at(deadline - self.now, "tick", node, node.life)

    def _on_tick(self, node: Node, life: int) -> None:
        if node.life != life or not node.up or self.now < node.tick_at:
            return
        if node.paused_until > self.now:
            node.tick_at = node.paused_until
            self._at(node.paused_until - self.now, "tick", node, life)
            return
        if self.now >= node.core.next_deadline_ns():
            self._step(node, Tick(self.now))
        else:
            self._arm(node)
