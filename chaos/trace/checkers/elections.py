"""Election safety, single votes, rising terms (Raft §5.2, §5.4, Figure 3).

Owns: what may never happen between leaders and voters.  Must not know: the log.
"""

from __future__ import annotations

from chaos.trace.checkers.base import Finding, Verdict
from chaos.trace.events import Event, Life, Trace


def election_safety(trace: Trace) -> Finding:
    """At most one leader in a term; a life that ended never leads the same term again."""
    verdict = Verdict("election-safety")
    leaders: dict[int, Event] = {}
    for event in trace.kind("role"):
        if event.f.get("role") != "leader":
            continue
        term = event.number("term")
        first = leaders.setdefault(term, event)
        if first is event:
            verdict.checked += 1
        elif (first.n, first.inc) != (event.n, event.inc):
            whom = f"{first.n} and {event.n}" if first.n != event.n else f"two lives of {event.n}"
            verdict.violated(f"term {term} has two leaders: {whom}", first, event)
    for event in trace.kind("role"):
        known, believed = leaders.get(event.number("term")), event.text("leader")
        if known is not None and believed and believed != known.n:
            verdict.violated(
                f"in term {event.number('term')} {known.n} leads, but {event.n} follows {believed}", known, event
            )
    return verdict.finding("no leader in the trace")


def vote_once(trace: Trace) -> Finding:
    """A replica votes for one candidate a term, also across restarts (§5.2: votes are durable)."""
    verdict = Verdict("vote-once")
    votes: dict[tuple[str, int], Event] = {}
    for event in trace.kind("vote"):
        verdict.checked += 1
        key = (event.n, event.number("term"))
        first = votes.setdefault(key, event)
        if first.f.get("candidate") != event.f.get("candidate"):
            verdict.violated(
                f"{event.n} voted twice in term {key[1]}: for {first.f.get('candidate')} "
                f"and for {event.f.get('candidate')}",
                first,
                event,
            )
    return verdict.finding("no vote in the trace")


def terms_rise(trace: Trace) -> Finding:
    """A life's term never falls, and no life begins below a term its node voted in (votes are durable)."""
    verdict = Verdict("terms-rise")
    last: dict[Life, Event] = {}
    voted: dict[str, Event] = {}
    own_order = sorted(trace.kind("role", "vote"), key=lambda e: (trace.lives[e.n, e.inc].first_hlc, e.inc, e.i))
    for event in own_order:
        term = event.number("term")
        for before in (last.get((event.n, event.inc)), voted.get(event.n)):
            if before is None:
                continue
            verdict.checked += 1
            if term < before.number("term"):
                verdict.violated(f"the term of {event.n} fell from {before.number('term')} to {term}", before, event)
        last[event.n, event.inc] = event
        if event.k == "vote" and (event.n not in voted or term > voted[event.n].number("term")):
            voted[event.n] = event
    return verdict.finding("no replica changed its role twice")
