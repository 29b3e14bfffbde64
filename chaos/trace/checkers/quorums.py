"""What takes a majority: committing, and going on as leader.

Owns: commits against what the voters of the committing leader's configuration had on their disks, and how long a
leader may lead without them.  Must not know: how votes are won, or what entries mean.
"""

from __future__ import annotations

from collections.abc import Collection

from chaos.trace.checkers.base import Finding, Rule, Verdict
from chaos.trace.checkers.members import Roster, Rosters
from chaos.trace.events import FLUSH_MS, Event, Life, Trace
from chaos.trace.faults import STILL, Affliction, afflictions


class _Durable:
    """What one replica ever had on its disk, and said so."""

    def __init__(self) -> None:
        self.top = 0
        self.latest: Event | None = None
        self._pairs: set[tuple[int, str]] = set()
        self._known: set[int] = set()
        self._untold: list[tuple[int, int]] = []
        """Ranges that no append told: an event of them is missing."""

    def take(self, event: Event) -> None:
        """It appended, or installed a snapshot."""
        found = event.marks
        self._pairs.update(found)
        self._known.update([index for index, _ in found])
        if event.number("first") > self.top + 1 and event.number("snapshot") < 0:
            self._untold.append((self.top + 1, event.number("first") - 1))
        self.top = max(self.top, event.number("index"))
        self.latest = event

    def has(self, index: int, ph: str) -> bool:
        """Whether the log up to `index` with that prefix was durable; of an index without a mark only that it was."""
        if (index, ph) in self._pairs:
            return True
        if index in self._known or index > self.top:
            return False
        return not any(first <= index <= last for first, last in self._untold)


class CommitByQuorum(Rule):
    """What commits was durable on a majority of the voters before (§5.3, §5.4.2).

    A replica tells its append before its acknowledgement leaves, so the order of hybrid clocks holds; where a
    trace may have lost its end, and clocks that differ, are allowed `FLUSH_MS`.
    """

    name = "commit-by-quorum"
    nothing = "no commit in the trace"

    def __init__(self) -> None:
        super().__init__()
        self._rosters = Rosters()
        self._durable: dict[str, _Durable] = {}
        self._highest = 0
        self._short: list[tuple[Event, Roster | None, frozenset[str]]] = []
        self._replicas: set[str] = set()

    def on_note(self, event: Event) -> None:
        """Perhaps a configuration."""
        self._rosters.note(event)

    def on_role(self, event: Event) -> None:
        """Whoever has a role is a replica."""
        self._replicas.add(event.n)

    def on_append(self, event: Event) -> None:
        """Entries are durable."""
        durable = self._durable.get(event.n)
        if durable is None:
            durable = self._durable[event.n] = _Durable()
        durable.take(event)

    def on_commit(self, event: Event) -> None:
        """The first to tell a higher commit is whoever decided it, or learned of it."""
        index = event.number("index")
        if index <= self._highest:
            return
        self._highest = index
        self.verdict.checked += 1
        sure = self._holders(event)
        rosters = self._rosters.recent(event)
        if not rosters or not any(roster.majority_of(sure) for roster in rosters):
            self._short.append((event, rosters[0] if rosters else None, frozenset(sure)))

    def _holders(self, commit: Event) -> list[str]:
        index, ph = commit.number("index"), commit.text("ph")
        return [node for node, durable in self._durable.items() if durable.has(index, ph)]

    def finish(self, trace: Trace) -> None:
        """Those without a majority so far: later appends count where an earlier one may be missing."""
        late = _LateAppends(trace) if self._short else None
        for commit, roster, sure in self._short:
            assert late is not None, "there is something to decide"
            voters = roster.electorate if roster is not None else list(trace.voters)
            soon = [v for v in voters if v not in sure and late.had(v, commit)]
            blind = [v for v in voters if v not in {*sure, *soon} and trace.may_be_missing(v, commit.hlc)]
            if _enough(roster, voters, {*sure, *soon}):
                continue
            shown = ", ".join(sorted(sure & {*voters})) or "nobody"
            text = f"index {commit.number('index')} was committed by {commit.n} while durable on {shown}"
            if _enough(roster, voters, {*sure, *soon, *blind}):
                self.verdict.unknown(f"{text}; the trace of {', '.join(blind)} may miss its end")
            else:
                latest = [d.latest for v, d in self._durable.items() if v in sure and d.latest is not None]
                told = [roster.told] if roster is not None else []
                self.verdict.violated(f"{text}: no majority of {len(voters)}", commit, *told, *latest)


class _LateAppends:
    """Appends that are told after the commit they were for: only where traces are not whole."""

    def __init__(self, trace: Trace) -> None:
        self._of: dict[str, list[Event]] = {}
        for event in trace.kind("append"):
            if not trace.is_whole(event.n):
                self._of.setdefault(event.n, []).append(event)

    def had(self, voter: str, commit: Event) -> bool:
        """Whether the voter tells, soon after, that it held what was committed."""
        index, ph = commit.number("index"), commit.text("ph")
        durable = _Durable()
        for event in self._of.get(voter, ()):
            if event.ms > commit.ms + FLUSH_MS:
                break
            durable.take(event)
        return durable.has(index, ph)


def _enough(roster: Roster | None, voters: list[str], nodes: Collection[str]) -> bool:
    if roster is not None:
        return roster.majority_of(nodes)
    return 2 * sum(voter in nodes for voter in voters) > len(voters)


PATIENCE = 3.0
"""Election timeouts within which a leader that no majority answers gives up; its clock may run slow."""
TOLD_S = 0.1


def cut_off_leader_steps_down(trace: Trace) -> Finding:
    """A leader that a fault parts from every majority does not lead for longer than a few election timeouts.

    It can renew nobody's lease and answer no read, so whoever talks to it waits for nothing (DESIGN.md §3).
    """
    verdict = Verdict("cut-off-leader-steps-down")
    found = trace.derive(afflictions)
    patience_s = {(e.n, e.inc): e.number("election_ms") * PATIENCE / 1000 + TOLD_S for e in trace.kind("store")}
    rosters = Rosters()
    terms: dict[Life, tuple[Event, Roster]] = {}
    spans: list[tuple[Event, Roster, float]] = []
    for event in trace.kind("note", "role"):
        if event.k == "note":
            rosters.note(event)
            continue
        life = (event.n, event.inc)
        led = terms.pop(life, None)
        if led is not None:
            spans.append((*led, event.t))
        roster = rosters.of(event)
        if event.f.get("role") == "leader" and roster is not None:
            terms[life] = (event, roster)
    for life, (event, roster) in terms.items():
        spans.append((event, roster, (trace.lives[life].last_hlc >> 16) / 1000))  # it lives for as long as it tells
    for leader, roster, end_s in spans:
        patience = patience_s.get((leader.n, leader.inc), 0.0)
        if patience > TOLD_S:
            _check_reign(verdict, found, leader, roster, end_s, patience)
    return verdict.finding("no leader was parted from its majority for long")


def _check_reign(
    verdict: Verdict, found: tuple[Affliction, ...], leader: Event, roster: Roster, end_s: float, patience_s: float
) -> None:
    """Compare one leader's time with every fault that parts it from others, together with those in force by then."""
    for each in found:
        start_s = max(each.since_s, leader.t)
        if not each.overlaps(leader.t, end_s) or each.kind in STILL:
            continue
        until_s = min(each.until_s, start_s + patience_s)
        if until_s - start_s < patience_s:
            continue
        still = [f for f in found if f.kind in STILL and f.touches(leader.n)]
        if any(f.overlaps(start_s, until_s) for f in still):
            continue
        apart = [f for f in found if f.lasts_through(start_s, until_s)]
        reached = {v for v in roster.electorate if v == leader.n or not any(f.parts(leader.n, v) for f in apart)}
        if roster.majority_of(reached):
            continue
        verdict.checked += 1
        if end_s > until_s:
            verdict.violated(
                f"{leader.n} led term {leader.number('term')} on, {1000 * (until_s - start_s):.0f} ms after a "
                f"{each.kind} had parted it from every majority",
                each.fault,
                leader,
            )


class CommitsOwnTerm(Rule):
    """A leader counts replicas only for entries of its own term; those of earlier terms follow with them (§5.4.2)."""

    name = "commits-own-term"
    nothing = "no leader committed anything"

    def __init__(self) -> None:
        super().__init__()
        self._leads: dict[Life, Event] = {}

    def on_role(self, event: Event) -> None:
        """A leader's time begins or ends."""
        if event.f.get("role") == "leader":
            self._leads[event.n, event.inc] = event
        else:
            self._leads.pop((event.n, event.inc), None)

    def on_commit(self, event: Event) -> None:
        """A commit; a follower's may end with an entry of an earlier term."""
        leads = self._leads.get((event.n, event.inc))
        if leads is None:
            return
        self.verdict.checked += 1
        if event.number("last_term") != leads.number("term"):
            self.verdict.violated(
                f"{event.n} leads term {leads.number('term')} and committed {event.number('index')}, an entry of term "
                f"{event.number('last_term')}",
                leads,
                event,
            )
