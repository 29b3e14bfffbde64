"""What must hold in every step of a cluster of consensus cores (Figure 3 of the paper, and durability).

Sees everything at once: every core, what every disk really holds, and what clients were told.  Each check
names the invariant it protects; a broken one raises `Violation`.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

from raft.core import Core
from raft.effects import Role
from raft.messages import Append, AppendReply, Entry, HardState, Message, VoteReply, VoteRequest


class Violation(Exception):
    """An invariant does not hold."""

    def __init__(self, invariant: str, text: str) -> None:
        super().__init__(f"{invariant}: {text}")
        self.invariant = invariant


class DiskView:
    """What a replica's disk durably holds: the hard state and (term, prefix hash) by index."""

    def __init__(self) -> None:
        self.hard_state = HardState(0, None)
        self.terms: list[int] = [0]

    def written(self, hard_state: HardState | None, entries: Any) -> None:
        if hard_state is not None:
            self.hard_state = hard_state
        if entries:
            del self.terms[entries[0].index :]
            assert len(self.terms) == entries[0].index, "a gap on disk"
            self.terms += [entry.term for entry in entries]

    def content(self) -> tuple[HardState, list[int]]:
        return self.hard_state, list(self.terms)

    def replace(self, other: DiskView) -> None:
        self.hard_state, self.terms = other.hard_state, other.terms

    def holds(self, index: int, term: int) -> bool:
        return index < len(self.terms) and self.terms[index] == term


class Invariants:
    """Checks after every step, against the history of the whole run."""

    def __init__(self, sometimes: Counter[str]) -> None:
        self.sometimes = sometimes
        self.leaders: dict[int, str] = {}
        self.prefix: dict[tuple[int, int], int] = {}
        self.committed: dict[int, tuple[int, int]] = {}
        self.commit_max = 0
        self.commit_of: dict[int, int] = {}
        self.acked_max = 0
        self.promises: dict[tuple[str, int], str] = {}
        self._office: dict[str, tuple[int, int, int]] = {}
        self._commit_index: dict[str, int] = {}
        self._applied: dict[str, int] = {}
        self._term: dict[str, int] = {}

    def restarted(self, node: str, core: Core) -> None:
        """A process began: what it recovered must not be behind what it promised."""
        if core.term < self._term.get(node, 0):
            raise Violation("term-persistence", f"{node} spoke of term {self._term[node]}, recovered {core.term}")
        self._office.pop(node, None)
        self._commit_index[node] = 0
        self._applied[node] = 0

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
        if core.last_index < last or core.log.hash_at(last) != self.committed[last][1]:
            raise Violation("leader-completeness", f"{node} leads term {core.term} without committed entry {last}")

    def entered(self, node: str, core: Core, entries: tuple[Entry, ...]) -> None:
        """Log Matching, on every entry that entered a log, by prefix hash."""
        for entry in entries:
            key = (entry.term, entry.index)
            prefix = core.log.hash_at(entry.index)
            if self.prefix.setdefault(key, prefix) != prefix:
                raise Violation("log-matching", f"{node}: ({entry.term}, {entry.index}) has two prefixes")

    def commit_rose(
        self, node: str, core: Core, first: int, last: int, cores: dict[str, Core], disks: dict[str, DiskView]
    ) -> None:
        if first != self._commit_index[node] + 1:
            raise Violation("commit-monotonic", f"{node} committed {first} after {self._commit_index[node]}")
        self._commit_index[node] = last
        for index in range(first, last + 1):
            told = (core.log.term_at(index), core.log.hash_at(index))
            if self.committed.setdefault(index, told) != told:
                raise Violation("state-machine-safety", f"{node} committed another entry {index}")
        if last <= self.commit_max:
            return
        self.commit_max = self.commit_of[core.term] = last
        term = core.log.term_at(last)
        if core.role is Role.LEADER and term != core.term:
            raise Violation("commit-own-term", f"{node} counted entry {last} of term {term} in term {core.term}")
        holders = [peer for peer in disks if disks[peer].holds(last, term)]
        if 2 * len(holders) <= len(disks):
            raise Violation("commit-by-quorum", f"{node} committed {last}@{term}, durable only on {holders}")
        if node not in holders:
            self.sometimes["committed before the leader's own disk had it"] += 1
        for peer, other in cores.items():
            if other.role is Role.LEADER and other.term > core.term:
                self._complete(peer, other)

    def applied(self, node: str, entries: tuple[Entry, ...]) -> None:
        if entries[0].index != self._applied[node] + 1:
            raise Violation("apply-order", f"{node} applied {entries[0].index} after {self._applied[node]}")
        self._applied[node] = entries[-1].index

    def released(self, node: str, to: str, message: Message, core: Core, disk: DiskView) -> None:
        """A message leaves: whatever it promises must be on disk by now."""
        if not isinstance(message, Append | AppendReply | VoteReply | VoteRequest):
            return
        promised_term = message.term
        if isinstance(message, VoteRequest | VoteReply) and message.pre:
            promised_term = 0
        if promised_term > disk.hard_state.term:
            raise Violation("term-persistence", f"{node} speaks of term {promised_term}, on disk is {disk.hard_state}")
        self._term[node] = max(self._term.get(node, 0), promised_term)
        if isinstance(message, AppendReply) and message.accepted:
            known = message.term == core.term and core.last_index >= message.match_index
            term = core.log.term_at(message.match_index) if known else None
            if message.match_index >= len(disk.terms) or (known and not disk.holds(message.match_index, term or 0)):
                raise Violation(
                    "acknowledged-durably", f"{node} acknowledged {message.match_index} before it was on disk"
                )
        if isinstance(message, VoteReply) and message.granted and not message.pre:
            self._promise(node, message.term, to, disk)
        if isinstance(message, VoteRequest) and not message.pre:
            self._promise(node, message.term, node, disk)

    def _promise(self, node: str, term: int, candidate: str, disk: DiskView) -> None:
        if self.promises.setdefault((node, term), candidate) != candidate:
            raise Violation("one-vote", f"{node} votes twice in term {term}")
        if disk.hard_state.term == term and disk.hard_state.voted_for != candidate:
            raise Violation("vote-persistence", f"{node} grants a vote that is not on disk: {disk.hard_state}")

    # -- per step ------------------------------------------------------------------------------

    def stepped(self, node: str, core: Core) -> None:
        """Leader Append-Only, and a commit index that agrees with what was announced."""
        if core.commit_index != self._commit_index[node]:
            raise Violation("commit-monotonic", f"{node}: {core.commit_index} after {self._commit_index[node]}")
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
            if index > core.last_index or core.log.entry(index).data != data:
                raise Violation("acknowledged-never-lost", f"{node} lost acknowledged entry {index}")
