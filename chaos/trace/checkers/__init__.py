"""Invariants of a run, each a named pure function over its merged events."""

from chaos.trace.checkers.acknowledged import no_acknowledged_placement_lost, one_effect_per_request
from chaos.trace.checkers.applied import AppliedOnce, NoSlotLeaked
from chaos.trace.checkers.base import Checker, Finding, RuleChecker
from chaos.trace.checkers.catchup import BoundedCatchUp
from chaos.trace.checkers.completeness import own_invariants, trace_complete, weaknesses
from chaos.trace.checkers.configurations import ConfigurationKept
from chaos.trace.checkers.elections import ElectedByQuorum, ElectionSafety, TermsRise, VoteOnce, VotersVote, VotesKept
from chaos.trace.checkers.fencing import Fencing
from chaos.trace.checkers.kernels import ExitsComeLast, HarmsNobody
from chaos.trace.checkers.leaders import LeaderAppendOnly, LeaderCompleteness, PreVoteQuorum, StickyVoters
from chaos.trace.checkers.leases import (
    LeaseFromSend,
    NoLeaseForTheLost,
    lease_by_quorum,
    no_early_loss,
    no_late_start,
)
from chaos.trace.checkers.linear import linearizable
from chaos.trace.checkers.links import link_cut_silent
from chaos.trace.checkers.logs import CommitContiguous, CommittedKept, EqualDigests, LogMatching, StateMachineSafety
from chaos.trace.checkers.owners import OneOwner, RingMoves, StaleOwner
from chaos.trace.checkers.placements import applied_alike, capacity, one_bind_per_attempt, run_was_placed
from chaos.trace.checkers.processes import capacity_on_nodes, freed_by_exit, no_orphan
from chaos.trace.checkers.quorums import CommitByQuorum, CommitsOwnTerm, cut_off_leader_steps_down
from chaos.trace.checkers.reads import no_stale_read
from chaos.trace.checkers.reports import ExitsHappened, OneEffect, StatusInOrder
from chaos.trace.checkers.runs import absence_never_stops, at_most_one_process

_RULES = (
    ElectionSafety,
    VoteOnce,
    VotesKept,
    VotersVote,
    TermsRise,
    ElectedByQuorum,
    LeaderAppendOnly,
    LeaderCompleteness,
    PreVoteQuorum,
    StickyVoters,
    LogMatching,
    CommitByQuorum,
    CommitsOwnTerm,
    ConfigurationKept,
    CommitContiguous,
    CommittedKept,
    StateMachineSafety,
    EqualDigests,
    BoundedCatchUp,
    OneOwner,
    RingMoves,
    StaleOwner,
    Fencing,
    LeaseFromSend,
    NoLeaseForTheLost,
    StatusInOrder,
    AppliedOnce,
    ExitsHappened,
    ExitsComeLast,
    HarmsNobody,
    OneEffect,
    NoSlotLeaked,
)

CHECKERS: dict[str, Checker] = {
    **{rule.name: RuleChecker(rule) for rule in _RULES},
    "cut-off-leader-steps-down": cut_off_leader_steps_down,
    "no-stale-read": no_stale_read,
    "linearizable": linearizable,
    "no-acknowledged-placement-lost": no_acknowledged_placement_lost,
    "one-effect-per-request": one_effect_per_request,
    "capacity": capacity,
    "capacity-on-nodes": capacity_on_nodes,
    "freed-only-by-exit": freed_by_exit,
    "one-bind-per-attempt": one_bind_per_attempt,
    "applied-alike": applied_alike,
    "run-was-placed": run_was_placed,
    "at-most-one-process": at_most_one_process,
    "absence-never-stops": absence_never_stops,
    "no-orphan": no_orphan,
    "lease-by-quorum": lease_by_quorum,
    "no-early-loss": no_early_loss,
    "no-late-start": no_late_start,
    "link-cut-silent": link_cut_silent,
    "own-invariants": own_invariants,
    "trace-complete": trace_complete,
}

__all__ = ["CHECKERS", "Checker", "Finding", "weaknesses"]
