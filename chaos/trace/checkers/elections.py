"""Elections: one leader a term, one durable vote a store and term, won by a majority of those who vote.

Owns: what may never happen between leaders and voters (Raft §5.2, §5.4, Figure 3).  Must not know: the log.

A vote belongs to a *store*, not to a replica's name: one whose disk was lost comes back under its id with another
store, which knows nothing and does not vote until the configuration names it (DESIGN.md §3).
"""

from __future__ import annotations

from chaos.trace.checkers.base import Rule
from chaos.trace.checkers.members import Rosters
from chaos.trace.events import FLUSH_MS, Event, Life, Trace


class ElectionSafety(Rule):
    """At most one leader in a term; a life that ended never leads the same term again."""

    name = "election-safety"
    nothing = "no leader in the trace"

    def __init__(self) -> None:
        super().__init__()
        self._leaders: dict[int, Event] = {}
        self._followed: dict[int, list[Event]] = {}

    def on_role(self, event: Event) -> None:
        """Somebody leads, or says whom it follows."""
        term = event.number("term")
        if event.f.get("role") == "leader":
            self._leads(term, event)
        if event.text("leader"):
            self._follows(term, event)

    def _leads(self, term: int, event: Event) -> None:
        first = self._leaders.setdefault(term, event)
        if first is event:
            self.verdict.checked += 1
            for follower in self._followed.get(term, ()):
                self._compare(first, follower)
        elif (first.n, first.inc) != (event.n, event.inc):
            whom = f"{first.n} and {event.n}" if first.n != event.n else f"two lives of {event.n}"
            self.verdict.violated(f"term {term} has two leaders: {whom}", first, event)

    def _follows(self, term: int, event: Event) -> None:
        known = self._leaders.get(term)
        if known is None:
            self._followed.setdefault(term, []).append(event)
        else:
            self._compare(known, event)

    def _compare(self, leader: Event, follower: Event) -> None:
        if follower.text("leader") != leader.n:
            self.verdict.violated(
                f"in term {leader.number('term')} {leader.n} leads, but {follower.n} follows {follower.text('leader')}",
                leader,
                follower,
            )


class VoteOnce(Rule):
    """A store votes for one candidate a term, also across restarts (§5.2: votes are durable)."""

    name = "vote-once"
    nothing = "no vote in the trace"

    def __init__(self) -> None:
        super().__init__()
        self._rosters = Rosters()
        self._votes: dict[tuple[tuple[str, str], int], Event] = {}

    def on_store(self, event: Event) -> None:
        """Which store votes from now on."""
        self._rosters.store(event)

    def on_vote(self, event: Event) -> None:
        """A vote is durable."""
        self.verdict.checked += 1
        key = (self._rosters.holder(event), event.number("term"))
        first = self._votes.setdefault(key, event)
        if first.f.get("candidate") != event.f.get("candidate"):
            self.verdict.violated(
                f"{event.n} voted twice in term {key[1]}: for {first.f.get('candidate')} "
                f"and for {event.f.get('candidate')}",
                first,
                event,
            )


class VotesKept(Rule):
    """A store finds at every start the newest term and vote that it ever told (Figure 2, persistent state)."""

    name = "votes-kept"
    nothing = "no store that had voted was opened again"

    def __init__(self) -> None:
        super().__init__()
        self._rosters = Rosters()
        self._newest: dict[tuple[str, str], Event] = {}

    def on_vote(self, event: Event) -> None:
        """A vote is durable."""
        holder = self._rosters.holder(event)
        known = self._newest.get(holder)
        if known is None or event.number("term") > known.number("term"):
            self._newest[holder] = event

    def on_store(self, event: Event) -> None:
        """A life begins with what its store holds."""
        self._rosters.store(event)
        voted = self._newest.get(self._rosters.holder(event))
        if voted is None:
            return
        self.verdict.checked += 1
        term, kept = voted.number("term"), event.number("term")
        same = kept > term or (kept == term and event.f.get("candidate") == voted.f.get("candidate"))
        if not same:
            self.verdict.violated(
                f"{event.n} voted for {voted.f.get('candidate')} in term {term}, and came back with term {kept} "
                f"and its vote for {event.f.get('candidate')}",
                voted,
                event,
            )


class VotersVote(Rule):
    """Nobody votes but a store that its own configuration names as a voter; an empty one never does (DESIGN.md §3)."""

    name = "voters-vote"
    nothing = "no vote of a store whose configuration is told"

    def __init__(self) -> None:
        super().__init__()
        self._rosters = Rosters()
        self._told = False

    def on_store(self, event: Event) -> None:
        """Which store a life runs on."""
        self._rosters.store(event)

    def on_note(self, event: Event) -> None:
        """Perhaps a configuration."""
        self._told = self._rosters.note(event) is not None or self._told

    def on_vote(self, event: Event) -> None:
        """Somebody voted."""
        node, store = self._rosters.holder(event)
        if not store or not self._told:
            return
        self.verdict.checked += 1
        known = self._rosters.recent(event)
        if not any(roster.may_vote(node, store) for roster in known):
            names = f"configuration {known[0].index} does not name" if known else "it knows no configuration that names"
            told = [known[0].told] if known else []
            self.verdict.violated(
                f"{node} voted in term {event.number('term')}, but {names} its store as a voter", event, *told
            )


class TermsRise(Rule):
    """A life's term never falls, and no life begins below a term its store voted in (votes are durable)."""

    name = "terms-rise"
    nothing = "no replica changed its role twice"

    def __init__(self) -> None:
        super().__init__()
        self._rosters = Rosters()
        self._last: dict[Life, Event] = {}
        self._voted: dict[tuple[str, str], Event] = {}

    def on_store(self, event: Event) -> None:
        """Which store a life runs on."""
        self._rosters.store(event)

    def on_role(self, event: Event) -> None:
        """A role in a term."""
        self._take(event)

    def on_vote(self, event: Event) -> None:
        """A vote in a term."""
        self._take(event)
        holder = self._rosters.holder(event)
        if holder not in self._voted or event.number("term") > self._voted[holder].number("term"):
            self._voted[holder] = event

    def _take(self, event: Event) -> None:
        term = event.number("term")
        for before in (self._last.get((event.n, event.inc)), self._voted.get(self._rosters.holder(event))):
            if before is None:
                continue
            self.verdict.checked += 1
            if term < before.number("term"):
                self.verdict.violated(
                    f"the term of {event.n} fell from {before.number('term')} to {term}", before, event
                )
        self._last[event.n, event.inc] = event


class ElectedByQuorum(Rule):
    """Who leads a term has the durable votes of a majority in it, told before it leads (§5.2)."""

    name = "elected-by-quorum"
    nothing = "no leader whose configuration is told"

    def __init__(self) -> None:
        super().__init__()
        self._rosters = Rosters()
        self._votes: dict[tuple[int, str], dict[str, Event]] = {}
        self._short: list[tuple[Event, set[str], list[str]]] = []
        """(leader, who had voted for it by then, the electorate) where that was no majority."""

    def on_note(self, event: Event) -> None:
        """Perhaps a configuration."""
        self._rosters.note(event)

    def on_vote(self, event: Event) -> None:
        """A vote is durable."""
        self._votes.setdefault((event.number("term"), event.text("candidate")), {}).setdefault(event.n, event)

    def on_role(self, event: Event) -> None:
        """Perhaps a leader."""
        roster = self._rosters.of(event)
        if event.f.get("role") != "leader" or roster is None:
            return
        self.verdict.checked += 1
        given = self._votes.get((event.number("term"), event.n), {})
        if not any(each.majority_of(given) for each in self._rosters.recent(event)):
            self._short.append((event, set(given), roster.electorate))

    def finish(self, trace: Trace) -> None:
        """Without the others' whole traces their votes may have been told and lost, or told by another clock."""
        for leader, given, electorate in self._short:
            term = leader.number("term")
            votes = self._votes.get((term, leader.n), {})
            late = [v for v in electorate if v in votes and v not in given and votes[v].ms <= leader.ms + FLUSH_MS]
            late = [v for v in late if not trace.is_whole(v)]
            blind = [v for v in electorate if v not in votes and trace.may_be_missing(v, leader.hlc)]
            text = f"{leader.n} leads term {term} with the durable votes of {', '.join(sorted(given)) or 'nobody'}"
            if 2 * len(given | set(late) | set(blind)) > len(electorate):
                self.verdict.unknown(f"{text}; the traces of {', '.join(late + blind)} may miss theirs")
            else:
                self.verdict.violated(f"{text}, of {len(electorate)} voters", leader, *votes.values())
