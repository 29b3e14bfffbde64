"""Invariants of a run, each a named pure function over its merged events."""

from chaos.trace.checkers.acknowledged import no_acknowledged_placement_lost, one_effect_per_request
from chaos.trace.checkers.base import Checker, Finding
from chaos.trace.checkers.completeness import own_invariants, trace_complete, weaknesses
from chaos.trace.checkers.elections import election_safety, terms_rise, vote_once
from chaos.trace.checkers.links import link_cut_silent
from chaos.trace.checkers.logs import commit_by_quorum, commit_contiguous, committed_kept, log_matching
from chaos.trace.checkers.placements import applied_alike, capacity, one_bind_per_attempt, run_was_placed
from chaos.trace.checkers.runs import absence_never_stops, at_most_one_process, fencing

CHECKERS: dict[str, Checker] = {
    "election-safety": election_safety,
    "vote-once": vote_once,
    "terms-rise": terms_rise,
    "log-matching": log_matching,
    "commit-by-quorum": commit_by_quorum,
    "commit-contiguous": commit_contiguous,
    "committed-kept": committed_kept,
    "no-acknowledged-placement-lost": no_acknowledged_placement_lost,
    "one-effect-per-request": one_effect_per_request,
    "capacity": capacity,
    "one-bind-per-attempt": one_bind_per_attempt,
    "applied-alike": applied_alike,
    "run-was-placed": run_was_placed,
    "at-most-one-process": at_most_one_process,
    "absence-never-stops": absence_never_stops,
    "fencing": fencing,
    "link-cut-silent": link_cut_silent,
    "own-invariants": own_invariants,
    "trace-complete": trace_complete,
}

__all__ = ["CHECKERS", "Checker", "Finding", "weaknesses"]
