"""The list of deliberate bugs: what each replaces, what it teaches, and the invariant that must find it.

Owns: the list.  Must not know: how a break is put in force (`chaos.breaks`), or how an invariant is checked.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from msgspec import Struct

from chaos.breaks import elections, leases, nodes, replication, state


class Break(Struct, frozen=True):
    """One deliberate bug.

    `role`: the kind of process it lives in.  `function`: in `module`, a class's as `Class.method`.
    `checker`: the invariant that must find it.
    """

    name: str
    lesson: str
    role: str
    module: str
    function: str
    replacement: Callable[..., Any]
    checker: str


_REPLICA, _AGENT, _SANDBOXER = "replica", "agent", "sandboxer"

ALL = (
    Break(
        "double-vote",
        "a voter that votes twice in a term lets two majorities meet in it, and each elects its own leader",
        _REPLICA, "raft.election", "Elections.answer_vote", elections.answer_vote, "election-safety",
    ),
    Break(
        "vote-not-persisted",
        "a vote that a crash forgets can be given again to another candidate of the same term",
        _REPLICA, "raft.store.log_store", "LogStore._append_frame", elections.append_frame, "votes-kept",
    ),
    Break(
        "no-pre-vote",
        "a replica that returns with a higher term deposes a leader that did nothing wrong",
        _REPLICA, "raft.election", "Elections.timeout", elections.timeout, "no-healthy-leader-deposed",
    ),
    Break(
        "no-check-quorum",
        "a leader that nobody hears keeps its callers waiting for commits that cannot come",
        _REPLICA, "raft.replication", "Replication.check_office", elections.check_office, "cut-off-leader-steps-down",
    ),
    Break(
        "wiped-replica-votes",
        "a lost disk has forgotten its votes and its acknowledgements: under its old id it breaks both promises",
        _REPLICA, "raft.store.log_store", "new_identity", elections.identity_of_the_node, "votes-kept",
    ),
    Break(
        "commit-earlier-term-by-count",
        "an entry of an earlier term on a majority can still be overwritten by a later leader (Figure 8)",
        _REPLICA, "raft.replication", "Replication.advance_commit", replication.advance_commit, "commits-own-term",
    ),
    Break(
        "ack-before-sync",
        "what is acknowledged before it is on disk counts towards a majority that a power cut dissolves",
        _REPLICA, "raft.state", "State.send", replication.send, "commit-by-quorum",
    ),
    Break(
        "truncate-committed",
        "an entry may be committed though a replica has not heard so; only a leader's conflicting one removes it",
        _REPLICA, "raft.election", "Elections.lead", elections.lead_from_the_known, "leader-completeness",
    ),
    Break(
        "lost-conflict-hint",
        "without the conflicting term a leader asks once an entry, and who was cut off for long returns late",
        _REPLICA, "raft.follower", "_conflict", replication.conflict_without_hint, "bounded-catch-up",
    ),
    Break(
        "snapshot-without-configuration",
        "the entries that said who votes are compacted away; a snapshot that does not say it leaves nobody to ask",
        _REPLICA, "raft.core", "Core.describe_snapshot", replication.describe_without_voters, "configuration-kept",
    ),
    Break(
        "apply-twice",
        "an entry takes effect once; a second time it meets its own effects",
        _REPLICA, "scheduler.state.state", "State._apply", state.apply_twice, "applied-once",
    ),
    Break(
        "nondeterministic-apply",
        "what decides and is not in the replicated state makes different states of the same log",
        _REPLICA, "scheduler.state.books", "Books.note_started", state.note_every_other_start, "equal-digests",
    ),
    Break(
        "plan-not-rechecked",
        "plans are made on an older state; only the check at commit keeps nodes from being overfilled",
        _REPLICA, "scheduler.state.planning", "_node_fault", state.node_fault_unchecked, "capacity",
    ),
    Break(
        "stale-owner-accepted",
        "a decider that lost a node's arc meanwhile must not place on it any more",
        _REPLICA, "scheduler.state.planning", "_owner_fault", state.owner_fault_unchecked, "no-stale-owner",
    ),
    Break(
        "capacity-freed-at-stop",
        "a workload that was told to stop still uses what it has, until its node says that it ended",
        _REPLICA, "scheduler.state.books", "Books.order_stop_rows", state.capacity_freed_at_once, "capacity",
    ),
    Break(
        "status-out-of-order",
        "reports are repeated and overtake each other; an old one must not undo a newer one",
        _REPLICA, "scheduler.state.reporting", "is_news", state.always_news, "status-in-order",
    ),
    Break(
        "ring-moves-foreign-keys",
        "with consistent hashing a change of owners moves keys from and to the one that changed, and no others",
        _REPLICA, "cluster.ring", "Ring.owner", state.owner_by_remainder, "ring-moves-little",
    ),
    Break(
        "no-grace-after-election",
        "a new leader has heard of no renewal yet; nodes need time to find it before their silence means anything",
        _REPLICA, "scheduler.leases", "LeaseTable.found", leases.found_without_grace, "no-early-loss",
    ),
    Break(
        "renewal-without-quorum-round",
        "a deposed leader that grants leases by itself keeps alive what its successor has declared lost",
        _REPLICA, "scheduler.lease_keeper", "LeaseKeeper.renew", leases.renew_without_round, "lease-by-quorum",
    ),
    Break(
        "no-fencing",
        "the sandboxer's deadline never comes, so a workload runs on after its lease",
        _AGENT, "agents.lease", "deadline_ns", leases.far_deadline_ns, "at-most-one-process",
    ),
    Break(
        "deadline-from-receipt",
        "a confirmation may be long on its way; the leader's patience began when it got the renewal",
        _AGENT, "agents.agent", "Agent.confirmed", leases.confirmed_now, "lease-from-send",
    ),
    Break(
        "lease-on-wall-clock",
        "people and time servers set the wall clock, and with it they would move the end of a lease",
        _AGENT, "agents.lease", "now_ns", leases.wall_ns, "lease-from-send",
    ),
    Break(
        "absence-stops",
        "what a desired set does not name is stopped, as if absence were an order",
        _AGENT, "agents.reconcile", "stops_of", nodes.stops_of, "absence-never-stops",
    ),
    Break(
        "late-start-past-deadline",
        "a start that was allowed while the lease lasted must not happen after it is over",
        _SANDBOXER, "agents.sandboxer.fence", "may_run", leases.may_run_without_looking, "fencing",
    ),
    Break(
        "pid-reuse",
        "a number names a process only as long as it lives; afterwards somebody else's may have it",
        _SANDBOXER, "agents.sandboxer.adoption", "judged", nodes.judged_by_number, "harms-nobody",
    ),
    Break(
        "invented-exit-status",
        "an end that nobody saw is unknown; called a success, the job is never run again",
        _SANDBOXER, "agents.sandboxer.attempt", "exit_fields", nodes.exit_as_success, "exits-happened",
    ),
)  # fmt: skip
