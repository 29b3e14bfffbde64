"""The replicated log: matching prefixes, commits by a quorum, commits without holes or losses.

Owns: Raft's promises about entries (§5.3, §5.4).  Must not know: what entries mean.

Every `append`, `commit` and `apply` carries rolling hashes of the log's prefix (`marks`): equal
hashes at an index mean equal logs up to it.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator

from chaos.trace.checkers.base import Finding, Verdict
from chaos.trace.checkers.snapshots import INSTALL, WRITE, snapshot_events
from chaos.trace.events import FLUSH_MS, Event, Trace


def marks(event: Event) -> Iterator[tuple[int, str]]:
    """The (index, prefix hash) pairs of an event, its end included."""
    found = event.f.get("marks")
    end = (event.number("index"), event.text("ph"))
    seen_end = False
    for pair in found if isinstance(found, list) else ():
        if isinstance(pair, list | tuple) and len(pair) == 2 and isinstance(pair[0], int):
            seen_end = seen_end or pair[0] == end[0]
            yield pair[0], str(pair[1])
    if not seen_end and end[0] > 0 and end[1]:
        yield end


def committed_chain(trace: Trace) -> dict[int, tuple[str, Event]]:
    """Index → (prefix hash, first event) of what was committed."""
    chain: dict[int, tuple[str, Event]] = {}
    for event in trace.kind("commit"):
        for index, ph in marks(event):
            chain.setdefault(index, (ph, event))
    return chain


def log_matching(trace: Trace) -> Finding:
    """One (index, term) has one prefix everywhere, and one committed or applied index has one prefix."""
    verdict = Verdict("log-matching")
    by_term: dict[tuple[int, int], tuple[str, Event]] = {}
    for event in trace.kind("append", "commit"):
        key = (event.number("index"), event.number("last_term"))
        if key[0] < 1 or key[1] < 1 or not event.text("ph"):
            continue
        ph, first = by_term.setdefault(key, (event.text("ph"), event))
        verdict.checked += first is not event
        if ph != event.text("ph"):
            verdict.violated(
                f"{first.n} and {event.n} hold different logs up to index {key[0]} of term {key[1]}", first, event
            )
    chain = committed_chain(trace)
    for event in trace.kind("commit", "apply"):
        for index, ph in marks(event):
            known, first = chain.get(index, (ph, event))
            verdict.checked += first is not event
            if known != ph:
                verdict.violated(
                    f"index {index} is committed with different logs on {first.n} and {event.n}", first, event
                )
    for event in snapshot_events(trace, INSTALL, WRITE):
        known, first = chain.get(event.number("index"), ("", event))
        verdict.checked += first is not event
        if first is not event and known != event.text("ph"):
            verdict.violated(f"{event.n} has a snapshot of another log at index {event.number('index')}", first, event)
    return verdict.finding("no index was seen twice")


class _Durable:
    """What one replica had on its disk, over time, as far as its trace tells."""

    def __init__(self, events: list[Event]) -> None:
        self.events = events
        self.times = [event.ms for event in events]

    def evidence(self, index: int, ph: str, since_ms: int, until_ms: int) -> bool:
        """Whether the log up to `index` with hash `ph` was durable at some time in the span."""
        start, end = bisect_right(self.times, since_ms), bisect_right(self.times, until_ms)
        if not any(event.number("index") >= index for event in self.events[max(0, start - 1) : end]):
            return False
        for position in range(end - 1, -1, -1):
            event = self.events[position]
            if event.number("first") <= index <= event.number("index") or index <= event.number("snapshot"):
                known = dict(marks(event)).get(index)
                return known is None or known == ph
        return False


def commit_by_quorum(trace: Trace) -> Finding:
    """What commits was durable on a majority before (§5.3, §5.4.2).

    A replica tells its append before its acknowledgement leaves, so the order holds; clocks that
    differ are allowed `FLUSH_MS`.
    """
    verdict = Verdict("commit-by-quorum")
    appends: dict[str, list[Event]] = {voter: [] for voter in trace.voters}
    for event in trace.kind("append"):
        appends[event.n].append(event)
    durable = {voter: _Durable(events) for voter, events in appends.items()}
    highest = 0
    for commit in trace.kind("commit"):
        index = commit.number("index")
        if index <= highest:
            continue
        highest = index
        verdict.checked += 1
        sure = [
            voter
            for voter in trace.voters
            if durable[voter].evidence(index, commit.text("ph"), commit.ms, commit.ms + FLUSH_MS)
        ]
        if len(sure) >= trace.majority:
            continue
        maybe = [v for v in trace.voters if v not in sure and trace.may_be_missing(v, commit.hlc)]
        text = f"index {index} was committed by {commit.n} while durable on {', '.join(sure) or 'nobody'}"
        if len(sure) + len(maybe) >= trace.majority:
            verdict.unknown(f"{text}; the trace of {', '.join(maybe)} may miss its end")
        else:
            latest = [appends[v][-1] for v in sure if appends[v]]
            verdict.violated(f"{text}: no majority of {len(trace.voters)}", commit, *latest)
    return verdict.finding("no commit in the trace")


def commit_contiguous(trace: Trace) -> Finding:
    """A life commits and applies every index once, in order, from 1 or its snapshot: nothing committed disappears."""
    verdict = Verdict("commit-contiguous")
    for kind in ("commit", "apply"):
        last: dict[tuple[str, str], Event] = {}
        told = [*trace.kind(kind), *snapshot_events(trace, INSTALL)]
        for event in sorted(told, key=lambda e: (e.n, e.inc, e.i)):
            life = (event.n, event.inc)
            before = last.get(life)
            if event.k == "disk":
                _check_install(verdict, kind, before, event)
                last[life] = event
                continue
            expected = before.number("index") + 1 if before is not None else 1
            last[life] = event
            verdict.checked += 1
            if event.number("first") == expected and event.number("index") >= event.number("first"):
                continue
            if trace.lives[life].dropped:
                verdict.unknown(f"{event.n} dropped events of its trace")
                continue
            witnesses = (event,) if before is None else (before, event)
            missing = f"{expected}..{event.number('first') - 1}"
            verdict.violated(f"{event.n} never told the {kind} of {missing}", *witnesses)
    _check_applied_is_committed(verdict, trace)
    return verdict.finding("no commit in the trace")


def _check_install(verdict: Verdict, kind: str, before: Event | None, event: Event) -> None:
    if before is not None and event.number("index") <= before.number("index"):
        verdict.violated(f"{event.n} went back from {kind} {before.number('index')} to a snapshot", before, event)


def _check_applied_is_committed(verdict: Verdict, trace: Trace) -> None:
    committed: dict[tuple[str, str], int] = {}
    told = [*trace.kind("commit", "apply"), *snapshot_events(trace, INSTALL)]
    for event in sorted(told, key=lambda e: (e.n, e.inc, e.i)):
        life = (event.n, event.inc)
        if event.k != "apply":
            committed[life] = max(committed.get(life, 0), event.number("index"))
        elif event.number("index") > committed.get(life, 0) and not trace.lives[life].gap:
            verdict.violated(
                f"{event.n} applied up to {event.number('index')} but committed only up to {committed.get(life, 0)}",
                event,
            )


def committed_kept(trace: Trace) -> Finding:
    """A replica that held a committed entry durably never overwrites it and finds it after a restart.

    An entry of its own at a committed index proves nothing: a leader cut off keeps what it appended
    alone until the new leader replaces it (§5.3).
    """
    verdict = Verdict("committed-kept")
    committed: dict[int, tuple[str, Event]] = {}
    held: dict[str, list[tuple[int, str, Event]]] = {}
    for event in trace.kind("append", "commit"):
        if event.k == "commit":
            for index, ph in marks(event):
                committed.setdefault(index, (ph, event))
            continue
        mine, now = held.setdefault(event.n, []), dict(marks(event))
        while mine and mine[-1][0] >= event.number("first"):
            index, ph, before = mine.pop()
            if index not in committed or committed[index][0] != ph:
                continue
            verdict.checked += 1
            if index > event.number("index") or now.get(index, ph) != ph:
                how = "came back without" if event.f.get("recovered") else "replaced"
                verdict.violated(f"{event.n} {how} the committed entry {index}", before, committed[index][1], event)
        mine += [(index, ph, event) for index, ph in sorted(now.items())]
    for voter, kept in held.items():
        verdict.checked += sum(1 for index, ph, _ in kept if index in committed and committed[index][0] == ph)
        assert kept == sorted(kept, key=lambda mark: mark[0]), f"the marks of {voter} are in order"
    return verdict.finding("no committed entry was held")
