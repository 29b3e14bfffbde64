"""What must hold in every step of a cluster of consensus cores (Figure 3 of the paper, and durability).

Sees everything at once: every core, what every disk really holds, and what clients were told.  Each check
names the invariant it protects; a broken one raises `Violation`.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

from raft.core import Core
from raft.effects import Committed, Role
from raft.log import WHOLE
from raft.messages import (
    CONFIGURATION,
    Append,
    AppendReply,
    Base,
    Configuration,
    Entry,
    HardState,
    Message,
    Snapshot,
    SnapshotChunk,
    SnapshotReply,
    VoteReply,
    VoteRequest,
    decode_configuration,
)


class Violation(Exception):
    """An invariant does not hold."""

    def __init__(self, invariant: str, text: str) -> None:
        super().__init__(f"{invariant}: {text}")
        self.invariant = invariant


class DiskView:
    """What a replica's disk durably holds: the hard state, and the terms from `base` (0: the whole log) on."""

    def __init__(self) -> None:
        self.hard_state = HardState(0, None)
        self.base = 0
        self.terms: list[int] = [0]

    @property
    def last_index(self) -> int:
        return self.base + len(self.terms) - 1

    def written(self, hard_state: HardState | None, entries: Any, base: Base | None = None) -> None:
        if hard_state is not None:
            self.hard_state = hard_state
        if base is not None:
            self.base, self.terms = base.index, [base.term]
        if entries:
            offset = entries[0].index - self.base
            assert 0 < offset <= len(self.terms), "a gap on disk"
            del self.terms[offset:]
            self.terms += [entry.term for entry in entries]

    def content(self) -> tuple[HardState, int, list[int]]:
        return self.hard_state, self.base, list(self.terms)

    def copy(self) -> DiskView:
        twin = DiskView()
        twin.hard_state, twin.base, twin.terms = self.content()
        return twin

    def replace(self, other: DiskView) -> None:
        self.hard_state, self.base, self.terms = other.hard_state, other.base, other.terms

    def is_part_of(self, other: DiskView) -> bool:
        """The same but for entries at the front."""
        if self.hard_state != other.hard_state or self.base < other.base:
            return False
        return self.terms == other.terms[self.base - other.base :] and self.last_index == other.last_index

    def is_only(self, snapshot: Snapshot, other: DiskView) -> bool:
        """Nothing but a snapshot that `other` does not hold."""
        raised = HardState(snapshot.term, None) if other.hard_state.term < snapshot.term else other.hard_state
        return self.content() == (raised, snapshot.index, [snapshot.term]) and not other.holds(
            snapshot.index, snapshot.term
        )

    def holds(self, index: int, term: int) -> bool:
        """Whether the entry, or a snapshot that stands for it, is on this disk."""
        return index < self.base or (index <= self.last_index and self.terms[index - self.base] == term)


class Invariants:
    """Checks after every step, against the history of the whole run."""

    def __init__(self, sometimes: Counter[str]) -> None:
        self.sometimes = sometimes
        self.leaders: dict[int, str] = {}
        self.prefix: dict[tuple[int, int], int] = {}
        self.committed: dict[int, tuple[int, int]] = {}
        self.configuration: Configuration | None = None
        self.commit_max = 0
        self.commit_of: dict[int, int] = {}
        self.acked_max = 0
        self.promises: dict[tuple[str, int], str] = {}
        self.configurations: dict[int, bytes] = {}
        self.states: dict[int, int] = {0: 0}
        self._office: dict[str, tuple[int, int, int]] = {}
        self._commit_index: dict[str, int] = {}
        self._applied: dict[str, int] = {}
        self._term: dict[str, int] = {}

    def restarted(self, node: str, store: str, core: Core) -> None:
        """A process began: what it recovered must not be behind what its store promised."""
        if core.term < self._term.get(store, 0):
            raise Violation("term-persistence", f"{node} spoke of term {self._term[store]}, recovered {core.term}")
        self._office.pop(node, None)
        self._commit_index[node] = self._applied[node] = core.commit_index

    def nothing_was_founded(self) -> None:
        """Entry 1 is on no disk, and so was offered to nobody: another one may be written in its place."""
        self.prefix.pop((1, 1), None)

    # -- per effect ----------------------------------------------------------------------------

    def elected(self, node: str, term: int, cores: dict[str, Core]) -> None:
        first = self.leaders.setdefault(term, node)
        if first != node:
            raise Violation("election-safety", f"{first} and {node} both lead term {term}")
        self._complete(node, cores[node])

    def _complete(self, node: str, core: Core) -> None:
        last = max([index for term, index in self.commit_of.items() if term < core.term], default=0)
        if not last:
            return
        if core.last_index < last or (
            last >= core.log.base_index and core.log.hash_at(last) != self.committed[last][1]
        ):
            raise Violation("leader-completeness", f"{node} leads term {core.term} without committed entry {last}")

    def entered(self, node: str, core: Core, entries: tuple[Entry, ...]) -> None:
        """Log Matching, on every entry that entered a log, by prefix hash."""
        for entry in entries:
            key = (entry.term, entry.index)
            prefix = core.log.hash_at(entry.index)
            if self.prefix.setdefault(key, prefix) != prefix:
                raise Violation("log-matching", f"{node}: ({entry.term}, {entry.index}) has two prefixes")

    def commit_rose(
        self, node: str, core: Core, rise: Committed, upto: int, cores: dict[str, Core], disks: dict[str, DiskView]
    ) -> None:
        """`upto` is where the log ended when it was decided: a later entry of the same step had no say."""
        first, last = rise.first, rise.last
        if first != self._commit_index[node] + 1:
            raise Violation("commit-monotonic", f"{node} committed {first} after {self._commit_index[node]}")
        self._commit_index[node] = last
        for index in range(first, last + 1):
            if core.log.entry(index).kind == CONFIGURATION:
                self.configurations[index] = core.log.entry(index).data
            told = (core.log.term_at(index), core.log.hash_at(index))
            if self.committed.setdefault(index, told) != told:
                raise Violation("state-machine-safety", f"{node} committed another entry {index}")
        if last <= self.commit_max:
            return
        self.commit_max = self.commit_of[core.term] = last
        term = core.log.term_at(last)
        self.configuration = self._latest(core, last) or self.configuration
        if core.role is Role.LEADER and term != core.term:
            raise Violation("commit-own-term", f"{node} counted entry {last} of term {term} in term {core.term}")
        self._by_quorum(node, core, upto, last, disks)
        for peer, other in cores.items():
            if other.role is Role.LEADER and other.term > core.term:
                self._complete(peer, other)

    def configured(self, node: str, core: Core) -> None:
        """The configuration that counts is the latest one in the log, committed or not (§6)."""
        if core.configuration != self._latest(core, core.last_index):
            raise Violation("configuration-of-the-log", f"{node} goes by {core.configuration}, which its log has not")

    def _by_quorum(self, node: str, core: Core, upto: int, last: int, disks: dict[str, DiskView]) -> None:
        """A majority of the voters has it on disk; while joint, one of the old voters too (§6), counted one by one."""
        configuration, term = self._latest(core, upto), core.log.term_at(last)
        if core.role is not Role.LEADER or configuration is None:
            return  # a follower is told, and may have heard of a newer configuration since
        for voters in (configuration.voters, configuration.outgoing):
            holders = [name for name, store in voters.items() if store in disks and disks[store].holds(last, term)]
            if voters and 2 * len(holders) <= len(voters):
                raise Violation(
                    "commit-by-quorum", f"{node} committed {last}@{term}, durable only on {holders} of {list(voters)}"
                )
            if node not in holders:
                self.sometimes["committed before the leader's own disk had it"] += 1
        if configuration.outgoing:
            self.sometimes["committed by a joint configuration"] += 1

    def applied(self, node: str, entries: tuple[Entry, ...]) -> None:
        if entries[0].index != self._applied[node] + 1:
            raise Violation("apply-order", f"{node} applied {entries[0].index} after {self._applied[node]}")
        self._applied[node] = entries[-1].index

    def released(self, node: str, store: str, to: str, message: Message, core: Core, disk: DiskView) -> None:
        """A message leaves: whatever it promises must be on disk by now."""
        if not isinstance(message, Append | AppendReply | VoteReply | VoteRequest | SnapshotChunk | SnapshotReply):
            return
        promised_term = message.term
        if isinstance(message, VoteRequest | VoteReply) and message.pre:
            promised_term = 0
        if promised_term > disk.hard_state.term:
            raise Violation("term-persistence", f"{node} speaks of term {promised_term}, on disk is {disk.hard_state}")
        self._term[store] = max(self._term.get(store, 0), promised_term)
        if isinstance(message, AppendReply) and message.accepted:
            known = message.term == core.term and core.log.base_index <= message.match_index <= core.last_index
            term = core.log.term_at(message.match_index) if known else None
            # Of an earlier term than the disk's: an elected leader has overwritten it, in the write that it waited for.
            missing = message.term >= disk.hard_state.term and message.match_index > disk.last_index
            if missing or (known and not disk.holds(message.match_index, term or 0)):
                raise Violation(
                    "acknowledged-durably", f"{node} acknowledged {message.match_index} before it was on disk"
                )
        if isinstance(message, VoteReply) and message.granted and not message.pre:
            self._promise(node, store, message.term, to, disk)
        if isinstance(message, VoteRequest) and not message.pre:
            self._promise(node, store, message.term, node, disk)
        if isinstance(message, VoteRequest) or (isinstance(message, VoteReply) and message.granted):
            self._may_vote(node, store, core)

    def _may_vote(self, node: str, store: str, core: Core) -> None:
        """A disk that was lost has forgotten its votes: who has it votes only as a voter under its new id."""
        configuration = self._latest(core, core.last_index)
        named = configuration and store in (*configuration.voters.values(), *configuration.outgoing.values())
        if not named:
            raise Violation("voter-eligibility", f"{node} votes with store {store}, which is no voter")

    def _promise(self, node: str, store: str, term: int, candidate: str, disk: DiskView) -> None:
        if self.promises.setdefault((store, term), candidate) != candidate:
            raise Violation("one-vote", f"{node} votes twice in term {term}")
        if disk.hard_state.term == term and disk.hard_state.voted_for != candidate:
            raise Violation("vote-persistence", f"{node} grants a vote that is not on disk: {disk.hard_state}")

    # -- snapshots -----------------------------------------------------------------------------

    def stands_for(self, node: str, core: Core, snapshot: Snapshot) -> None:
        """A snapshot is used: it is of what was committed, to the bit, and says who voted there."""
        base = snapshot.header.base
        if self.committed.get(base.index) != (base.term, base.prefix_hash):
            raise Violation("snapshot-prefix", f"{node} uses {base}, not {self.committed.get(base.index)}")
        index = max(each for each in self.configurations if each <= base.index)
        told = (snapshot.header.configuration_index, snapshot.header.configuration)
        if told != (index, self.configurations[index]):
            raise Violation("snapshot-configuration", f"{node} uses a snapshot whose configuration is {told}")
        if core.log.base != WHOLE and core.log.base_index > base.index:
            raise Violation("snapshot-prefix", f"{node} has neither log nor snapshot of {base.index}")

    def installing(self, node: str, snapshot: Snapshot, disk: DiskView) -> None:
        """A log is given up: nothing committed beyond the snapshot may go with it, nor may time go back."""
        if snapshot.index <= self._commit_index[node]:
            raise Violation("commit-monotonic", f"{node} goes back from {self._commit_index[node]} to {snapshot.index}")
        for index in range(snapshot.index, disk.last_index + 1):
            if index > disk.base and index in self.committed and disk.holds(index, self.committed[index][0]):
                raise Violation("committed-kept", f"{node} gives committed entry {index} up for {snapshot.index}")
        self._commit_index[node] = self._applied[node] = snapshot.index

    def state_is(self, node: str, index: int, digest: int) -> None:
        """Applied or restored, the state at an index is the same everywhere."""
        if self.states.setdefault(index, digest) != digest:
            raise Violation("state-machine-safety", f"{node} has another state at {index}")

    def _latest(self, core: Core, upto: int) -> Configuration | None:
        """The last configuration up to `upto`, looked for in the log itself, and in what was committed before it."""
        log = core.log
        for index in range(upto, log.base_index, -1):
            entry = log.entry(index)
            if entry.kind == CONFIGURATION:
                return decode_configuration(entry.data)
        before = [index for index in self.configurations if index <= log.base_index]
        return decode_configuration(self.configurations[max(before)]) if before else None

    # -- per step ------------------------------------------------------------------------------

    def stepped(self, node: str, core: Core) -> None:
        """Leader Append-Only, and a commit index that agrees with what was announced."""
        if core.commit_index != self._commit_index[node]:
            raise Violation("commit-monotonic", f"{node}: {core.commit_index} after {self._commit_index[node]}")
        if core.leader is not None and self.leaders.get(core.term, core.leader) != core.leader:
            raise Violation("election-safety", f"{node} follows {core.leader} in the term of {self.leaders[core.term]}")
        if core.role is not Role.LEADER:
            self._office.pop(node, None)
            return
        term, last, prefix = self._office.get(node, (core.term, 0, 0))
        if last and term == core.term and (core.last_index < last or core.log.hash_at(last) != prefix):
            raise Violation("leader-append-only", f"{node} changed its log up to {last} in term {term}")
        self._office[node] = (core.term, core.last_index, core.log.hash_at(core.last_index))

    # -- clients -------------------------------------------------------------------------------

    def acknowledged(self, index: int) -> None:
        self.acked_max = max(self.acked_max, index)

    def read(self, node: str, index: int, acked_before: int) -> None:
        if index < acked_before:
            raise Violation("read-linearizable", f"{node} read at {index}, {acked_before} was acknowledged before")

    def survived(self, node: str, core: Core, acked: dict[int, bytes]) -> None:
        """At the end: every acknowledged entry is in this log."""
        for index, data in acked.items():
            if index <= core.log.base_index:
                continue  # its state is compared with that of who applied it
            if index > core.last_index or core.log.entry(index).data != data:
                raise Violation("acknowledged-never-lost", f"{node} lost acknowledged entry {index}")
