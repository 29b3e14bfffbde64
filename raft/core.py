"""The consensus core: `step(event) -> effects`, and nothing else (Raft, extended version; dissertation).

Owns: which rule answers which event.  Must not know: the rules themselves (one file each), clocks,
sockets or disks; time comes with events, chance from `Dice`.

Same events, same dice, same effects: a run can be repeated exactly.  Effects are carried out in order;
a step's `Persist` comes first, and what promises durability waits for it (see `effects`).
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from raft.configuration import Standing, standing
from raft.digests import Digests
from raft.effects import Effect, Role
from raft.election import Elections
from raft.events import (
    ApplyDone,
    ChunkTaken,
    Digested,
    Event,
    HandOver,
    Persisted,
    Proposed,
    ReadRequested,
    Received,
    SnapshotLost,
    SnapshotReceived,
    SnapshotTaken,
    StateDropped,
    Tick,
)
from raft.follower import check, on_append
from raft.founding import Foundings
from raft.install import check as check_chunk
from raft.install import on_chunk, on_chunk_taken, on_received
from raft.log import Log
from raft.membership import Membership
from raft.messages import (
    Admission,
    Append,
    AppendReply,
    Configuration,
    DigestReport,
    Founding,
    FoundingAnswer,
    FoundingQuestion,
    JoinRequest,
    RefetchRequest,
    Snapshot,
    SnapshotChunk,
    SnapshotHeader,
    SnapshotId,
    SnapshotReply,
    TimeoutNow,
    VoteReply,
    VoteRequest,
)
from raft.progress import Progress
from raft.protocols import Dice
from raft.reads import Reads
from raft.refetch import Refetch
from raft.replication import Replication
from raft.snapshots import describe, in_transfer, on_taken
from raft.state import CoreConfig, Recovered, State
from raft.transfer import Transfer

Consensus = Append | AppendReply | VoteRequest | VoteReply | SnapshotChunk | SnapshotReply | TimeoutNow | RefetchRequest

__all__ = ["Core", "CoreConfig", "Recovered"]


class Core:
    """One replica's consensus state, driven by events."""

    def __init__(self, config: CoreConfig, recovered: Recovered, dice: Dice, now_ns: int) -> None:
        """Start from what the store holds; a store that its own log does not name asks to be taken in."""
        self._state = State(config, recovered, dice, now_ns)
        self._foundings = Foundings(self._state)
        self._elections = Elections(self._state)
        self._replication = Replication(self._state)
        self._membership = Membership(self._state, self._replication)
        self._reads = Reads(self._state, self._replication)
        self._transfer = Transfer(self._state)
        self._refetch = Refetch(self._state, self._replication)
        self._digests = Digests(self._state, self._transfer)

    def step(self, event: Event) -> list[Effect]:
        """Take in one event; return what must be done, in order.

        Raises ProtocolViolation when a peer sent what no correct peer sends: the log is as before, the core goes
        on, and effects that the step had already decided on come with the next step's.
        """
        state = self._state
        if event.now_ns > state.now_ns:
            state.now_ns = event.now_ns
        if state.role is Role.LEADER and not isinstance(event, Persisted):
            self._replication.check_disk()
        match event:
            case Received():
                self._on_received(event)
            case Proposed():
                self._replication.propose(event.proposals, self._refuses)
            case HandOver():
                self._transfer.request(event)
            case Persisted():
                self._on_persisted(event)
            case ReadRequested():
                self._reads.request(event.ids)
            case ApplyDone():
                assert state.applied_index <= event.index <= state.commit_index, "applied what is not committed"
                state.applied_index = event.index
            case Tick():
                self._on_tick()
            case SnapshotTaken():
                on_taken(state, event)
            case ChunkTaken():
                on_chunk_taken(state, event)
            case SnapshotReceived():
                if on_received(state, event):
                    self._digests.restored()
            case SnapshotLost():
                self._replication.transfers.lost(event.snapshot)
            case Digested():
                self._digests.on_digested(event)
            case StateDropped():
                self._refetch.begin()
        if state.role is Role.LEADER and not self._transfer.closes_log:
            self._membership.advance()
        self._digests.advance()
        self._transfer.advance()
        self._refetch.advance()
        self._reads.advance()
        return state.finish_step()

    def next_deadline_ns(self) -> int:
        """When the next Tick is due, on the clock that the events carry."""
        state = self._state
        waits = (self._transfer.deadline_ns, self._digests.ask_deadline_ns, self._refetch.ask_deadline_ns)
        if state.role is Role.LEADER:
            return min(self._replication.deadline_ns, *waits)
        return min(self._foundings.ask_deadline_ns, state.election_deadline_ns, *waits)

    @property
    def _refuses(self) -> str:
        """Why a leader takes no proposals now, by code; "" while it does."""
        return "handing-over" if self._transfer.closes_log else self._digests.refuses

    # -- time ----------------------------------------------------------------------------------

    def _on_tick(self) -> None:
        state, replication = self._state, self._replication
        if state.now_ns >= self._digests.ask_deadline_ns:
            self._digests.ask_again()
        if state.role is not Role.LEADER:
            if state.now_ns >= self._foundings.ask_deadline_ns:
                self._foundings.ask()
            if state.now_ns >= state.election_deadline_ns:
                self._elections.timeout()
        else:
            replication.check_office()
            if state.role is Role.LEADER and state.now_ns >= replication.beat_deadline_ns:
                replication.beat()
            if state.role is Role.LEADER and state.now_ns >= replication.commit_deadline_ns:
                replication.announce_commit()

    # -- disk ----------------------------------------------------------------------------------

    def _on_persisted(self, event: Persisted) -> None:
        state = self._state
        state.durability.completed(event.write, event.last_term, event.last_index, state.log)
        state.announce_durable()
        if state.role is Role.LEADER:
            self._replication.advance_commit()
        elif self._elections.own_vote_durable():
            self._lead()
        elif state.configuration is not None and self._foundings.on_holder(state.config.store_id):
            self._elections.timeout()

    def _lead(self) -> None:
        self._elections.lead()
        self._membership.start()
        self._replication.start()

    # -- messages ------------------------------------------------------------------------------

    def _on_received(self, event: Received) -> None:
        state, sender, message = self._state, event.sender, event.message
        if sender not in state.peers:
            return  # nobody of this cluster; the transport's hello says so to the sender
        if isinstance(message, FoundingQuestion | JoinRequest):
            if message.store_id == event.store and self._foundings.on_question(sender, message):
                self._membership.asked(sender, event.store)
        elif isinstance(message, Admission):
            self._foundings.on_admission(message)
        elif isinstance(message, DigestReport):
            self._digests.on_report(sender, event.store, message)
        elif isinstance(message, FoundingAnswer):
            self._foundings.on_answer(sender, message)
        elif isinstance(message, Founding):
            self._foundings.on_offer(sender, message)
        elif state.admitted:  # an empty replica takes no log unless its store is named
            self._on_consensus(sender, event.store, message)

    def _on_consensus(self, sender: str, store: str, message: Consensus) -> None:
        """Requests are answered whoever sends them, since the sender may know a newer configuration than we (§6).

        Answers count only from the stores that our configuration names.
        """
        state = self._state
        if isinstance(message, VoteRequest):
            if not state.votes:
                return  # a wiped disk has forgotten its votes
            if message.pre:
                self._elections.answer_pre_vote(sender, message)
            else:
                self._elections.answer_vote(sender, message)
            return
        if isinstance(message, AppendReply | VoteReply | SnapshotReply) and not self._counts(sender, store):
            return
        if isinstance(message, Append):
            check(message)
        elif isinstance(message, SnapshotChunk):
            check_chunk(message)
        if message.term > state.term and not (isinstance(message, VoteReply) and message.pre and message.granted):
            state.become(Role.FOLLOWER, None, f"{sender} is in a newer term", term=message.term)
        if isinstance(message, Append):
            on_append(state, sender, message)
        elif isinstance(message, SnapshotChunk):
            on_chunk(state, sender, message)
        elif isinstance(message, SnapshotReply):
            self._replication.on_snapshot_reply(sender, message)
        elif isinstance(message, VoteReply):
            if self._elections.count_reply(store, message):
                self._lead()
        elif isinstance(message, TimeoutNow):
            self._elections.stand_in(sender, message)
        elif isinstance(message, RefetchRequest):
            self._refetch.on_request(sender, message)
        else:
            self._replication.on_reply(sender, message)
            if message.accepted and self._foundings.on_holder(store):
                self._elections.timeout()

    def _counts(self, sender: str, store: str) -> bool:
        """Whether `store` is what the configuration names for `sender`; a leader sends to the newest one alone."""
        state = self._state
        if state.role is Role.LEADER:
            progress = state.progress.get(sender)
            return progress is not None and progress.store == store
        return standing(state.configuration, sender, store) in (Standing.VOTER, Standing.LEARNER)

    # -- views ---------------------------------------------------------------------------------

    @property
    def id(self) -> str:
        """This replica."""
        return self._state.id

    @property
    def role(self) -> Role:
        """Follower, pre-candidate, candidate or leader."""
        return self._state.role

    @property
    def term(self) -> int:
        """The current term."""
        return self._state.term

    @property
    def leader(self) -> str | None:
        """Who leads the current term, as far as is known here."""
        return self._state.leader

    @property
    def voted_for(self) -> str | None:
        """Who has this replica's vote of the current term."""
        return self._state.voted_for

    @property
    def commit_index(self) -> int:
        """Highest index known to be committed."""
        return self._state.commit_index

    @property
    def applied_index(self) -> int:
        """Highest index the driver said is applied."""
        return self._state.applied_index

    @property
    def last_index(self) -> int:
        """Index of the last entry of the log."""
        return self._state.log.last_index

    @property
    def durable_index(self) -> int:
        """Highest index on the own disk exactly as in memory."""
        return self._state.durability.index

    @property
    def log(self) -> Log:
        """The log; to be read only."""
        return self._state.log

    @property
    def snapshot(self) -> Snapshot | None:
        """The newest snapshot; the log begins at or before it."""
        return self._state.snapshot

    @property
    def digest(self) -> tuple[int, str]:
        """Index and digest of the own state when it was last worked out; (0, "") before."""
        return self._digests.newest

    @property
    def diverged(self) -> bool:
        """Whether the own state is known to be wrong, or was given up, and is not replaced yet."""
        return self._state.diverged

    @property
    def split(self) -> bool:
        """Whether voters' states differ and no majority agrees: no leader takes proposals."""
        return self._digests.split

    def describe_snapshot(self, index: int) -> SnapshotHeader:
        """What a snapshot of the state at `index`, applied here, says of itself."""
        return describe(self._state, index)

    def is_sending(self, snapshot: SnapshotId) -> bool:
        """Whether a follower is being sent this snapshot: its file must stay."""
        return in_transfer(self._state, snapshot)

    @property
    def config(self) -> CoreConfig:
        """What this replica was started with."""
        return self._state.config

    @property
    def configuration_index(self) -> int:
        """The entry that brought `configuration`; 0 before entry 1."""
        return self._state.configurations.index

    @property
    def configuration(self) -> Configuration | None:
        """The voters and the cluster's identity, as the log's latest entry says; None before entry 1."""
        return self._state.configuration

    @property
    def committed_configuration(self) -> Configuration | None:
        """The latest configuration that is committed; None until one is known to be."""
        found = self._state.configurations.at(self._state.commit_index)
        return found[1] if found else None

    @property
    def votes(self) -> bool:
        """Whether this replica's store is a voter."""
        return self._state.votes

    @property
    def learns(self) -> bool:
        """Whether this replica only follows, or waits to be taken in by a cluster that exists."""
        return self._state.standing is Standing.LEARNER or self._foundings.joining

    @property
    def progress(self) -> Mapping[str, Progress]:
        """What the leader knows of each follower; empty elsewhere.  To be read only."""
        return MappingProxyType(self._state.progress)
