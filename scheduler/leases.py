"""Which nodes hold a lease, and from when on one may be declared lost: the leader's own table.

Owns: the arithmetic of DESIGN.md §6, which renewals count, and the storm pause.
Must not know: sessions, the log, or a clock; times come in as nanoseconds of the leader's CLOCK_BOOTTIME.

A node counts its deadline from the *send* of a renewal that was confirmed; the table counts from
the *receipt*, which is later.  A renewal is noted before the round that confirms it begins, and
one that was not noted is never confirmed.  So for every lease that this leader granted

    deadline on the node ≤ (noted here + lease), as the node's clock counts,

and a former leader's grants are older than this one's election, since the majority that confirmed
them voted afterwards.  With clocks that differ in rate by at most ρ, and a node that ends its `stop`
workloads within their grace and δ after the deadline, nothing of them runs at `lost_at_ns` any more.

This is volatile: another leader begins with an empty table, at its own election.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Final

from msgspec import Struct

MS_NS: Final = 1_000_000
STORM_WINDOW_NS: Final = 60_000 * MS_NS
STORM_NODES: Final = 3
STORM_PERCENT: Final = 20
PAUSED_LOOK_NS: Final = 1_000 * MS_NS
"""Look again this often while declaring is paused."""


class Rules(Struct, frozen=True, kw_only=True):
    """The terms of every lease, in nanoseconds and parts per million."""

    lease_ns: int
    reconnect_ns: int
    """What an election gives nodes to find the new leader; at least `lease_ns` is given anyway."""
    drift_ppm: int
    delta_ns: int

    def horizon_ns(self, lasting_ns: int, grace_ns: int) -> int:
        """How long after a sign of life nothing of a node's `stop` workloads is left.

        The node's clock may be slow by ρ for as long as it counts, its grace included.
        """
        counted = lasting_ns + grace_ns
        return counted + -(-counted * self.drift_ppm // 1_000_000) + self.delta_ns


class Registered(Struct, frozen=True):
    """A node as it is committed; `registration` is the index of its last registration."""

    node: str
    incarnation: str
    registration: int


class Overdue(Struct, frozen=True):
    """A node that may be declared lost."""

    node: str
    incarnation: str
    registration: int
    number: int
    """Of its last renewal; 0 = none came to this leader."""
    silent_ns: int


class Verdict(Struct, frozen=True):
    """What the table says at one moment.

    `lost`: to be declared now.  `paused`: why none is, or "".  `next_ns`: when to ask again, at the latest.
    """

    lost: tuple[Overdue, ...]
    paused: str
    next_ns: int | None


class _Entry:
    """One node: what is committed of it, and its last sign of life."""

    __slots__ = ("former_ns", "known", "lasting_ns", "number", "seen_ns")

    def __init__(self, known: Registered, seen_ns: int, lasting_ns: int, former_ns: int) -> None:
        self.known = known
        self.seen_ns = seen_ns
        self.lasting_ns = lasting_ns
        self.number = 0
        self.former_ns = former_ns
        """Last sign of life of the incarnation before."""


class LeaseTable:
    """The leases of one reign.

    Args:
        rules: the terms.
        elected_ns: when this leader was elected; renewals before it were another's to confirm.

    Invariant: `_entries` is in order of `seen_ns`, oldest first, so that looking at the silent ones
    costs only as many.
    """

    def __init__(self, rules: Rules, elected_ns: int) -> None:
        self.rules = rules
        self._elected_ns = elected_ns
        self._entries: OrderedDict[str, _Entry] = OrderedDict()
        self._proposed: dict[str, int] = {}
        """Nodes whose loss was proposed and is not decided → the registration it was proposed for."""
        self._declared: dict[str, int] = {}
        """Nodes whose loss was proposed within the last minute → when, oldest first."""

    def __len__(self) -> int:
        return len(self._entries)

    # -- what is committed -------------------------------------------------------------------------

    def found(self, known: Registered) -> None:
        """A node that was registered before this reign: it counts from the election."""
        lasting_ns = max(self.rules.lease_ns, self.rules.reconnect_ns)
        self._entries[known.node] = _Entry(known, self._elected_ns, lasting_ns, self._elected_ns)

    def registered(self, known: Registered, now_ns: int) -> None:
        """A node is registered as `known`: anew if that differs from what is in the table.

        A loss that was proposed for an earlier registration is decided by then: it came before, or is refused.
        """
        if self._proposed.get(known.node, known.registration) != known.registration:
            self._proposed.pop(known.node)
        entry = self._entries.get(known.node)
        if entry is None:
            self._entries[known.node] = _Entry(known, now_ns, self.rules.lease_ns, self._elected_ns)
        elif entry.known != known:
            if entry.known.incarnation != known.incarnation:
                entry.former_ns, entry.number = entry.seen_ns, 0
            entry.known = known
            self._seen(entry, now_ns)

    def gone(self, node: str) -> None:
        """The node is lost or not registered: it has no lease until it registers again."""
        self._entries.pop(node, None)
        self._proposed.pop(node, None)

    # -- renewals ----------------------------------------------------------------------------------

    def receive(self, node: str, incarnation: str, number: int, now_ns: int) -> bool:
        """Note a renewal before its round begins; False if it must not be confirmed.

        Only the registered incarnation renews, and nobody whose loss is proposed.
        """
        entry = self._entries.get(node)
        if entry is None or entry.known.incarnation != incarnation or node in self._proposed:
            return False
        entry.number = max(entry.number, number)
        self._seen(entry, now_ns)
        return True

    def confirms(self, node: str, incarnation: str) -> Registered | None:
        """After the round of a noted renewal: the registration it is confirmed for, or None.

        None also while the node's loss is proposed: what is in flight is withheld until that is decided.
        """
        entry = self._entries.get(node)
        if entry is None or entry.known.incarnation != incarnation or node in self._proposed:
            return None
        return entry.known

    def _seen(self, entry: _Entry, now_ns: int) -> None:
        entry.seen_ns = max(entry.seen_ns, now_ns)
        entry.lasting_ns = self.rules.lease_ns
        self._entries.move_to_end(entry.known.node)

    # -- losses ------------------------------------------------------------------------------------

    def lost_at_ns(self, node: str, grace_ns: int) -> int:
        """When `node`, whose largest stop grace is `grace_ns`, may be declared lost; it must be in the table."""
        entry = self._entries[node]
        # An election's allowance is at least what a lease of the time before it may still last.
        return entry.seen_ns + self.rules.horizon_ns(entry.lasting_ns, grace_ns)

    def settled_at_ns(self, node: str, grace_ns: int) -> int:
        """When the lease of the incarnation before `node`'s present one has run out for certain."""
        former_ns = self._entries[node].former_ns
        lasting_ns = self.rules.lease_ns
        if former_ns == self._elected_ns:
            lasting_ns = max(lasting_ns, self.rules.reconnect_ns)
        return former_ns + self.rules.horizon_ns(lasting_ns, grace_ns)

    def judge(self, now_ns: int, grace_ns: Callable[[str], int]) -> Verdict:
        """Who is lost at `now_ns`; `grace_ns` gives a node's largest stop grace."""
        due: list[Overdue] = []
        silent = 0
        next_ns: int | None = None
        for node, entry in self._entries.items():
            silent_ns = now_ns - entry.seen_ns
            if silent_ns < self.rules.lease_ns // 2:
                wake_ns = entry.seen_ns + self.rules.lease_ns // 2
                next_ns = wake_ns if next_ns is None else min(next_ns, wake_ns)
                break
            if node in self._proposed:
                continue
            at_ns = self.lost_at_ns(node, grace_ns(node))
            if at_ns > now_ns - STORM_WINDOW_NS:
                silent += 1
            if at_ns <= now_ns:
                due.append(Overdue(node, entry.known.incarnation, entry.known.registration, entry.number, silent_ns))
            else:
                next_ns = at_ns if next_ns is None else min(next_ns, at_ns)
        paused = self._storm(silent, now_ns)
        if due and paused:
            return Verdict((), paused, now_ns + PAUSED_LOOK_NS)
        return Verdict(tuple(due), "", next_ns)

    def propose(self, overdue: Overdue, now_ns: int) -> None:
        """Its loss is about to be proposed: from now on the node's renewals are refused."""
        self._proposed[overdue.node] = overdue.registration
        self._declared.pop(overdue.node, None)
        self._declared[overdue.node] = now_ns

    def decided(self, node: str) -> None:
        """The proposal is refused or was never taken: the node's renewals count again."""
        self._proposed.pop(node, None)
        self._declared.pop(node, None)

    def is_proposed(self, node: str) -> bool:
        """Whether the node's loss is proposed and undecided."""
        return node in self._proposed

    def _storm(self, silent: int, now_ns: int) -> str:
        """Why declaring pauses: too much falls silent at once to be the nodes' own fault."""
        for node in [node for node, at_ns in self._declared.items() if at_ns <= now_ns - STORM_WINDOW_NS]:
            del self._declared[node]
        losing = silent + len(self._declared)
        total = len(self._entries) + sum(1 for node in self._declared if node not in self._entries)
        if losing <= STORM_NODES or losing * 100 <= STORM_PERCENT * total:
            return ""
        return f"{losing} of {total} nodes would be lost within a minute"
