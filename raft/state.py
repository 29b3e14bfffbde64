"""What a replica remembers, and the effects the current step has decided on.

Owns: the state that the rules share, the changes of role, and the order of effects within a step.
Must not know: when a role changes (election), what is sent (replication), or who drives it.

The rules are functions of `State`, one file a rule of the paper; `core.Core` calls them.
"""

from __future__ import annotations

from msgspec import Struct

from raft.configuration import Configurations, Standing, halves, members, standing
from raft.durability import Durability
from raft.effects import (
    Appended,
    Effect,
    Installed,
    Persist,
    Reconfigured,
    Restore,
    Role,
    RoleChanged,
    Send,
    VoteCast,
)
from raft.log import WHOLE, Log
from raft.messages import (
    SNAPSHOT_CHUNK_BYTES_MAX,
    Base,
    Configuration,
    Entry,
    HardState,
    Message,
    Snapshot,
    decode_configuration,
)
from raft.progress import Progress
from raft.protocols import Dice
from raft.quorum import Halves

NEVER_NS = 1 << 62
"""A deadline that does not come."""


class CoreConfig(Struct, frozen=True, kw_only=True):
    """What a replica is told once, when it starts.  Times in nanoseconds, sizes in bytes.

    Attributes:
        id: this replica.
        store_id: random identity of its store; binds `id` to one disk (DESIGN.md §3, Identity).
        peers: the initial voters, this replica included, sorted; the first of them founds.
        founds: whether this store may take part in founding; one that took a damaged store's place may only join.
        election_timeout_ns: T; a follower waits a random time in [T, 2T] for its leader (§5.2).
        heartbeat_ns: the leader's beat; 0 means T/4.
        max_inflight_messages: Appends with entries that may be unanswered by one follower.
        max_inflight_bytes: the same, in bytes of entries.
        max_message_bytes: bytes of entries in one Append (one entry may be larger).
        uncommitted_bytes_max: past it proposals are refused with `overloaded`.
        log_entries_max, log_bytes_max: past them proposals are refused with `log-full`; compaction keeps the log far
            below, unless no snapshot can be written.
        snapshot_log_bytes, snapshot_entries: a snapshot is taken when so much was applied since the last one.
        snapshot_chunk_bytes: largest piece of a snapshot in one message.
        keep_tail_entries: entries before a snapshot that stay, for followers a little behind.
        digest_every: at multiples of this index replicas compare their states; the same on all of them.
    """

    id: str
    store_id: str
    peers: tuple[str, ...]
    founds: bool = True
    election_timeout_ns: int = 150_000_000
    heartbeat_ns: int = 0
    max_inflight_messages: int = 8
    max_inflight_bytes: int = 8 << 20
    max_message_bytes: int = 1 << 20
    uncommitted_bytes_max: int = 64 << 20
    log_entries_max: int = 4_000_000
    log_bytes_max: int = 1 << 30
    snapshot_log_bytes: int = 64 << 20
    snapshot_entries: int = 50_000
    snapshot_chunk_bytes: int = 256 << 10
    keep_tail_entries: int = 10_000
    digest_every: int = 4096

    def __post_init__(self) -> None:
        assert self.id in self.peers, "a replica must be one of its peers"
        assert list(self.peers) == sorted(dict.fromkeys(self.peers)), "peers are sorted and named once"
        assert self.election_timeout_ns >= 8, "an election timeout below 8 ns cannot be divided"
        assert 1 <= self.snapshot_chunk_bytes <= SNAPSHOT_CHUNK_BYTES_MAX, "a piece fits into a message"
        assert min(self.snapshot_entries, self.digest_every) >= 1, "a snapshot stands for something"
        assert min(self.max_inflight_messages, self.max_inflight_bytes) >= 1, "a window must let one message pass"

    @property
    def beat_ns(self) -> int:
        """Time between two heartbeats, nanoseconds."""
        return self.heartbeat_ns or self.election_timeout_ns // 4


class Recovered(Struct, frozen=True):
    """What the store held when the process started: the log from `base` on, and the snapshot that stands for the rest.

    The snapshot lies between `base` and the log's end.
    """

    hard_state: HardState
    entries: tuple[Entry, ...]
    base: Base = WHOLE
    snapshot: Snapshot | None = None


class State:
    """Figure 2's state, plus what this process keeps about time, durability and its peers."""

    def __init__(self, config: CoreConfig, recovered: Recovered, dice: Dice, now_ns: int) -> None:
        entries, base, snapshot = recovered.entries, recovered.base, recovered.snapshot
        assert not entries or entries[0].index == base.index + 1, "the recovered log starts behind its base"
        assert base.index <= (snapshot.index if snapshot else 0) <= base.index + len(entries), "a hole in the log"
        assert not entries or recovered.hard_state.term >= entries[-1].term, "the recovered term is behind the log"
        self.config = config
        self.dice = dice
        self.now_ns = now_ns
        self.role = Role.FOLLOWER
        self.term = recovered.hard_state.term
        self.voted_for = recovered.hard_state.voted_for
        self.leader: str | None = None
        self.log = Log(entries, base)
        self.snapshot = snapshot
        self.commit_index = snapshot.index if snapshot else 0
        self.applied_index = self.commit_index
        self.durability = Durability(self.log.last_index)
        self.configurations = Configurations()
        self.standing = Standing.EMPTY
        self.halves: Halves = ()
        self.members: dict[str, str] = {}
        self.peers: tuple[str, ...] = tuple(peer for peer in config.peers if peer != config.id)
        self.invited = False
        self.diverged = False
        self.refetch_after: int | None = None
        self.leader_heard_ns = -NEVER_NS
        self.election_deadline_ns = NEVER_NS
        self.progress: dict[str, Progress] = {}
        self.effects: list[Effect] = []
        self._changed_from = NEVER_NS
        self._new_base: Base | None = None
        self._installing: Base | None = None
        self._hard_state_changed = False
        self._announced = self.log.last_index
        self._vote_announced = recovered.hard_state
        self.configurations.appended(entries)
        if snapshot is not None:
            self.rebase_configuration(snapshot)
        elif entries:
            self.configured()

    @property
    def id(self) -> str:
        """This replica."""
        return self.config.id

    # -- configuration -------------------------------------------------------------------------

    @property
    def configuration(self) -> Configuration | None:
        """The latest configuration in the log, committed or not (§6); None before entry 1."""
        return self.configurations.current

    @property
    def admitted(self) -> bool:
        """Whether this replica may take the log: it has a configuration, or one is known to name its store."""
        return self.invited or self.configurations.index > 0

    @property
    def votes(self) -> bool:
        """Whether this store is a voter.  An empty, learning or replaced one campaigns and votes never."""
        return self.standing is Standing.VOTER

    def configured(self) -> None:
        """Another configuration counts now: the log got one, lost one, or was replaced by a snapshot."""
        configuration, before = self.configurations.current, self.standing
        self.standing = standing(configuration, self.id, self.config.store_id)
        self.halves = halves(configuration) if configuration else ()
        self.members = members(configuration) if configuration else {}
        self.peers = tuple(peer for peer in self.members or self.config.peers if peer != self.id)
        if self.standing is before:
            return
        if before is Standing.EMPTY or self.votes:
            self.arm_election()
        if self.halves == ((self.config.store_id,),):
            self.election_deadline_ns = self.now_ns  # a single voter has no leader to wait for

    def rebase_configuration(self, snapshot: Snapshot) -> None:
        """The log begins with a snapshot: its configuration stands for all up to there."""
        header = snapshot.header
        self.configurations.rebase(header.configuration_index, decode_configuration(header.configuration))
        self.configured()

    # -- time ----------------------------------------------------------------------------------

    def arm_election(self) -> None:
        """Give the leader a fresh random time in [T, 2T] (§5.2: splits of the vote stay rare)."""
        timeout = self.config.election_timeout_ns
        self.election_deadline_ns = self.now_ns + timeout + self.dice.below(timeout + 1)

    def hears_leader(self) -> bool:
        """Whether a leader was heard within the shortest election timeout (§6: stickiness)."""
        return self.leader is not None and self.now_ns < self.leader_heard_ns + self.config.election_timeout_ns

    def disk_deadline_ns(self) -> int:
        """When the oldest own write in flight will have taken an election timeout; `NEVER_NS` when there is none."""
        oldest = self.durability.oldest_write_ns
        return NEVER_NS if oldest is None else oldest + self.config.election_timeout_ns

    def disk_stalls(self) -> bool:
        """Whether an own write has been in flight for an election timeout."""
        return self.now_ns >= self.disk_deadline_ns()

    # -- changes -------------------------------------------------------------------------------

    def become(
        self, role: Role, leader: str | None, why: str, *, term: int | None = None, vote: str | None = None
    ) -> None:
        """Change role, known leader or term; a new term starts with the vote given (Figure 2: all servers)."""
        before = (self.role, self.term, self.leader)
        if term is not None and term != self.term:
            assert term > self.term, "terms never go back"
            self.term, self.voted_for = term, vote
            self._hard_state_changed = True
        if self.role is Role.LEADER and role is not Role.LEADER:
            self.progress = {}
            self.arm_election()
        self.role, self.leader = role, leader
        if before != (role, self.term, leader):
            self.effects.append(RoleChanged(role, self.term, leader, why))

    def vote(self, candidate: str) -> None:
        """Give this term's vote; Election Safety rests on there being one, kept over crashes (§5.2)."""
        assert self.voted_for in (None, candidate), "a second vote in one term"
        if self.voted_for is None:
            self.voted_for = candidate
            self._hard_state_changed = True

    def append(self, entries: tuple[Entry, ...] | list[Entry], *, commands: bool = False) -> None:
        """Add entries at the log's end; they are written at the end of this step.

        A configuration among them counts at once (§6); with `commands` there certainly is none.
        """
        self._changed_from = min(self._changed_from, self.log.last_index + 1)
        self.log.extend(entries)
        if not commands and self.configurations.appended(entries):
            self._reconfigured()

    def truncate(self, from_index: int) -> None:
        """Remove a suffix that conflicts with the leader's log (§5.3); never a committed entry."""
        assert from_index > self.commit_index, "a committed entry would be overwritten"
        assert self.role is not Role.LEADER, "a leader never overwrites its own log (Leader Append-Only)"
        self.log.truncate(from_index)
        self.durability.overwritten(from_index)
        self._announced = min(self._announced, from_index - 1)
        self._changed_from = min(self._changed_from, from_index)
        if self.configurations.truncated(from_index):
            self._reconfigured()

    def replace_log(self, snapshot: Snapshot) -> None:
        """Give up the whole log and state for a snapshot (§7): what it stands for is committed."""
        base = snapshot.header.base
        assert base.index > self.commit_index, "a snapshot would take back what is committed"
        assert not self.log.matches(base.index, base.term), "a snapshot would take back entries that may be promised"
        self.log.reset(base)
        self.durability.overwritten(1)
        self.commit_index = self._announced = base.index
        self.restored(snapshot)
        self._new_base = self._installing = base
        self._changed_from = base.index + 1
        self.configurations.truncated(1)
        self.rebase_configuration(snapshot)
        self.effects.append(Reconfigured(self.configurations.index, self.configurations.current))
        self.effects.append(Restore(snapshot))

    def restored(self, snapshot: Snapshot) -> None:
        """The state machine's state is that of `snapshot` from now on, whatever it was before."""
        self.snapshot = snapshot
        self.applied_index = snapshot.index
        self.diverged, self.refetch_after = False, None

    def _reconfigured(self) -> None:
        self.configured()
        self.effects.append(Reconfigured(self.configurations.index, self.configurations.current))

    # -- effects -------------------------------------------------------------------------------

    def send(self, to: str, message: Message, *, after_persist: bool = False) -> None:
        """Send a message; whatever speaks of a term waits until that term is durable (§5.2, persistent state)."""
        waits = after_persist or self._hard_state_changed or not self.durability.hard_state_durable
        self.effects.append(Send(to, message, waits))

    def announce_durable(self) -> None:
        """Tell the trace what became durable: entries, and the vote of this term."""
        durable = self.durability.index
        if self._installing is not None and durable >= self._installing.index:
            self.effects.append(Installed(self.term, self._installing))
            self._installing = None
        if durable > self._announced:
            first, self._announced = self._announced + 1, durable
            self.effects.append(Appended(self.term, first, durable, self.log.marks(first, durable)))
        if self.voted_for is None or self._hard_state_changed or not self.durability.hard_state_durable:
            return
        cast = HardState(self.term, self.voted_for)
        if cast != self._vote_announced:
            self._vote_announced = cast
            why = "own candidacy" if self.voted_for == self.id else "its log is at least as up to date (§5.4.1)"
            self.effects.append(VoteCast(self.term, self.voted_for, why))

    def finish_step(self) -> list[Effect]:
        """The step's effects, its one write first: nothing that waits for it can come before it."""
        effects, self.effects = self.effects, []
        if self._hard_state_changed or self._changed_from != NEVER_NS:
            effects.insert(0, self._persist())
        return effects

    def _persist(self) -> Persist:
        last = self.log.last_index
        entries = self.log.slice(self._changed_from, last) if self._changed_from <= last else ()
        hard_state = HardState(self.term, self.voted_for) if self._hard_state_changed else None
        number = self.durability.begin(last, self._hard_state_changed, self.now_ns)
        base, self._new_base = self._new_base, None
        self._changed_from, self._hard_state_changed = NEVER_NS, False
        return Persist(number, hard_state, entries, base)
