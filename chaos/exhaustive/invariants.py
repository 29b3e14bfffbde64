"""What must hold in every state of the whole cluster (Figure 3 of the paper).

Owns: the comparisons between members.  Must not know: cores, or how a state was reached.
"""

from __future__ import annotations

from itertools import permutations

from msgspec import Struct

from chaos.exhaustive.member import Member, Violated, durable_hashes
from raft.effects import Role
from raft.quorum import majority


class View(Struct, frozen=True):
    """What the invariants look at of one member.

    Attributes:
        led: terms it was ever elected in.
        leads: the term it leads now, 0 if none.
        log: (term, prefix hash) by index from 1, in memory.
        disk: prefix hashes by index from 1, durable.
        committed: prefix hashes of what it ever took for committed.
        counted: what it committed as a leader, for each term the last: (term, index, prefix hash).
    """

    led: tuple[int, ...]
    leads: int
    log: tuple[tuple[int, int], ...]
    disk: tuple[int, ...]
    committed: tuple[int, ...]
    counted: tuple[tuple[int, int, int], ...]


def view_of(member: Member) -> View:
    """A member as the invariants see it."""
    core, remembered = member.core, member.remembered
    log = tuple([(core.log.term_at(index), core.log.hash_at(index)) for index in range(1, core.last_index + 1)])
    leads = core.term if core.role is Role.LEADER else 0
    return View(remembered.led, leads, log, durable_hashes(member), remembered.committed, remembered.counted)


def check(views: tuple[View, ...]) -> None:
    """Raise Violated for the first invariant that does not hold."""
    for one, other in permutations(views, 2):
        election_safety(one, other)
        log_matching(one, other)
        state_machine_safety(one, other)
    for leader in views:
        for committer in views:
            leader_completeness(leader, committer)
    commit_kept(views)


def election_safety(one: View, other: View) -> None:
    """§5.2: at most one leader a term, over the whole history."""
    if both := [term for term in one.led if term in other.led]:
        raise Violated("election-safety", f"two members were elected in term {both[0]}")


def log_matching(one: View, other: View) -> None:
    """§5.3: the same term at the same index means the same log up to there."""
    for index, (mine, theirs) in enumerate(zip(one.log, other.log, strict=False), 1):
        if mine[0] == theirs[0] and mine[1] != theirs[1]:
            raise Violated("log-matching", f"({mine[0]}, {index}) has two prefixes")


def state_machine_safety(one: View, other: View) -> None:
    """§5.4.3: nobody ever took another entry for committed at the same index."""
    length = min(len(one.committed), len(other.committed))
    if one.committed[:length] != other.committed[:length]:
        raise Violated("state-machine-safety", "two members committed different entries at one index")


def leader_completeness(leader: View, committer: View) -> None:
    """§5.4: a leader has every entry that was committed in an earlier term."""
    for term, index, prefix in committer.counted:
        if term < leader.leads and (len(leader.log) < index or leader.log[index - 1][1] != prefix):
            raise Violated("leader-completeness", f"the leader of term {leader.leads} lacks {index} of term {term}")


def commit_kept(views: tuple[View, ...]) -> None:
    """§5.4.2: what a leader committed is on the disks of a majority, for ever."""
    for view in views:
        for term, index, prefix in view.counted:
            holders = sum([len(each.disk) >= index and each.disk[index - 1] == prefix for each in views])
            if holders < majority(len(views)):
                raise Violated("commit-kept", f"entry {index}, committed in term {term}, is on {holders} disks")
