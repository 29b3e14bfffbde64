"""What a replica tells about itself when asked.

Owns: the shape of a driver's status.  Must not know: HTTP or the command line.
"""

from __future__ import annotations

from enum import StrEnum

from msgspec import Struct

from raft.core import Core
from raft.effects import Role

LEARNER = "learner"
"""The role, for people, of a follower without a vote."""


class Standing(StrEnum):
    """What the comparison of states says of this replica's (see `raft.digests`).

    DIVERGED: it is wrong, and is being replaced.  SPLIT: voters differ and no majority agrees: nothing is written.
    """

    OK = "ok"
    DIVERGED = "diverged"
    SPLIT = "split"


class FollowerStatus(Struct, frozen=True):
    """One follower as its leader sees it.  `pace`: probe or replicate; `heard_ns` on the leader's clock."""

    id: str
    pace: str
    match_index: int
    next_index: int
    inflight_messages: int
    heard_ns: int


class DriverStatus(Struct, frozen=True):
    """One replica.  `cluster_id` is empty and `voters` too until entry 1 exists here; `progress` only on a leader.

    `role` is ``learner`` for a follower whose store has no vote (yet); `outgoing` are the old voters while a
    configuration is joint.
    """

    id: str
    role: str
    term: int
    leader: str | None
    commit_index: int
    applied_index: int
    last_index: int
    durable_index: int
    cluster_id: str
    generation: int
    voters: tuple[str, ...]
    learners: tuple[str, ...]
    outgoing: tuple[str, ...]
    disk_full: bool
    progress: tuple[FollowerStatus, ...]


def status_of(core: Core, applied_index: int, *, disk_full: bool) -> DriverStatus:
    """The status of a core whose state machine has applied `applied_index`."""
    configuration = core.configuration
    return DriverStatus(
        id=core.id,
        role=LEARNER if core.learns and core.role is Role.FOLLOWER else core.role.value,
        term=core.term,
        leader=core.leader,
        commit_index=core.commit_index,
        applied_index=applied_index,
        last_index=core.last_index,
        durable_index=core.durable_index,
        cluster_id=configuration.cluster_id if configuration else "",
        generation=configuration.generation if configuration else 0,
        voters=tuple(sorted(configuration.voters)) if configuration else (),
        learners=tuple(sorted(configuration.learners)) if configuration else (),
        outgoing=tuple(sorted(configuration.outgoing)) if configuration else (),
        disk_full=disk_full,
        progress=tuple(
            FollowerStatus(
                id=peer,
                pace=progress.pace.value,
                match_index=progress.match,
                next_index=progress.next,
                inflight_messages=progress.inflight_messages,
                heard_ns=progress.heard_ns,
            )
            for peer, progress in sorted(core.progress.items())
        ),
    )
