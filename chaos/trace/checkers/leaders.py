"""What a leader's log promises, and what a candidate owes to whoever leads.

Owns: Leader Append-Only and Leader Completeness (Raft §5.3, §5.4), and that nobody begins a term that no majority
wants (pre-vote and stickiness; dissertation §9.6, §4.2.3).  Must not know: votes, or what entries mean.
"""

from __future__ import annotations

from collections import deque

from chaos.trace.checkers.base import Rule
from chaos.trace.checkers.marks import HeldLogs
from chaos.trace.checkers.members import Rosters
from chaos.trace.events import Event, Life, Trace


class LeaderAppendOnly(Rule):
    """A leader adds to its log and never overwrites or removes an entry of it (§5.3)."""

    name = "leader-append-only"
    nothing = "no leader appended twice"

    def __init__(self) -> None:
        super().__init__()
        self._leads: dict[Life, Event] = {}
        self._last: dict[Life, Event] = {}

    def on_role(self, event: Event) -> None:
        """A leader's time begins or ends."""
        life = (event.n, event.inc)
        self._last.pop(life, None)
        if event.f.get("role") == "leader":
            self._leads[life] = event
        else:
            self._leads.pop(life, None)

    def on_append(self, event: Event) -> None:
        """Entries are durable.  The first ones of a leader's time may still be what it took as a follower."""
        life = (event.n, event.inc)
        if life not in self._leads:
            return
        before = self._last.get(life)
        self._last[life] = event
        if before is None:
            return
        self.verdict.checked += 1
        if event.number("first") <= before.number("index"):
            self.verdict.violated(
                f"{event.n} leads term {self._leads[life].number('term')} and replaced its own entries from "
                f"{event.number('first')} on",
                self._leads[life],
                before,
                event,
            )


class LeaderCompleteness(Rule):
    """What was committed in a term is in the log of every leader of a later term (§5.4.3)."""

    name = "leader-completeness"
    nothing = "nobody was elected after a commit"

    def __init__(self) -> None:
        super().__init__()
        self._logs = HeldLogs()
        self._chain: dict[int, tuple[str, Event]] = {}
        self._highest: dict[int, Event] = {}
        """Term → its commit with the highest index."""
        self._elected: dict[Life, tuple[Event, Event]] = {}
        """Life → (its election, the highest commit of the terms before), not compared yet."""
        self._compared: set[tuple[str, int]] = set()

    def on_store(self, event: Event) -> None:
        """A life begins, perhaps on an empty disk."""
        self._logs.store(event)

    def on_commit(self, event: Event) -> None:
        """Something is committed."""
        for index, ph in event.marks:
            self._chain.setdefault(index, (ph, event))
        term = event.number("term")
        known = self._highest.get(term)
        if known is None or event.number("index") > known.number("index"):
            self._highest[term] = event

    def on_role(self, event: Event) -> None:
        """Somebody is elected: its log counts as it is told next, for it may still be on its way to the disk."""
        life = (event.n, event.inc)
        self._compare(life)
        if event.f.get("role") != "leader":
            return
        before = [commit for term, commit in self._highest.items() if term < event.number("term")]
        if before:
            self._elected[life] = (event, max(before, key=lambda commit: commit.number("index")))

    def on_append(self, event: Event) -> None:
        """A log grows, or its end is replaced."""
        self._logs.append(event)
        if self._elected:
            self._compare((event.n, event.inc))

    def finish(self, trace: Trace) -> None:
        """Those who told nothing more after their election."""
        for life in list(self._elected):
            leader, commit = self._elected[life]
            if self._logs.last(leader) >= commit.number("index") or not trace.may_be_missing(leader.n, leader.hlc):
                self._compare(life)
            else:
                self.verdict.unknown(f"the log with which {leader.n} was elected is not told")

    def _compare(self, life: Life) -> None:
        if life not in self._elected:
            return
        leader, commit = self._elected.pop(life)
        index, last = commit.number("index"), self._logs.last(leader)
        self.verdict.checked += 1
        text = f"{leader.n} was elected in term {leader.number('term')}"
        if last < index:
            self.verdict.violated(f"{text} with a log up to {last}, and {index} was committed", commit, leader)
            return
        for at, ph in self._logs.down_from(leader, index):
            known = self._chain.get(at)
            if known is not None:
                if known[0] != ph:
                    self.verdict.violated(f"{text} with another entry than the committed {at}", known[1], leader)
                return


class PreVoteQuorum(Rule):
    """A term begins only when a majority would vote for its candidate, or a leader hands over (§9.6, §3.10).

    So nobody who returns deposes a leader that its majority hears.  Sections are of the dissertation.
    """

    name = "no-healthy-leader-deposed"
    nothing = "nobody stood for election"
    types = {"recv": ("vote-reply", "timeout-now")}  # noqa: RUF012

    def __init__(self) -> None:
        super().__init__()
        self._rosters = Rosters()
        self._granted: dict[tuple[Life, int], dict[str, Event]] = {}
        self._handed: dict[Life, Event] = {}
        self._short: list[tuple[Event, str]] = []
        self._numbered = False

    def on_note(self, event: Event) -> None:
        """Perhaps a configuration."""
        self._rosters.note(event)

    def on_recv(self, event: Event) -> None:
        """A granted trial vote, or a leader's word to stand in for it."""
        kind = event.f.get("type")
        if kind == "vote-reply":
            if event.f.get("pre") is True and event.f.get("granted") is True:
                key = ((event.n, event.inc), event.number("term"))
                self._granted.setdefault(key, {})[event.text("fr")] = event
        elif kind == "timeout-now":
            self._handed[event.n, event.inc] = event

    def on_role(self, event: Event) -> None:
        """Perhaps a candidate."""
        roster = self._rosters.of(event)
        if event.f.get("role") != "candidate" or roster is None:
            return
        self.verdict.checked += 1
        life, term = (event.n, event.inc), event.number("term")
        if self._handed.pop(life, event) is not event:
            return
        willing = {event.n, *self._granted.get((life, term), ())}
        if not any(each.majority_of(willing) for each in self._rosters.recent(event)):
            self._short.append((event, f"{event.n} began term {term}, wanted by {', '.join(sorted(willing))} alone"))

    def finish(self, trace: Trace) -> None:
        """Without the candidate's whole trace the answers may have come and be missing."""
        for candidate, text in self._short:
            if trace.lives[candidate.n, candidate.inc].gap:
                self.verdict.unknown(f"{text}; its trace has gaps")
            else:
                self.verdict.violated(f"{text}, of {len(trace.voters)} replicas", candidate)


class StickyVoters(Rule):
    """Who heard a leader within the shortest election timeout helps nobody to depose it (dissertation §4.2.3).

    An answer may have waited for the disk, and so be older than what was heard meanwhile: one of a term that the voter
    is in already is, and while a slow write was under way nothing can be said.
    """

    name = "sticky-voters"
    nothing = "nobody who tells its election timeout would have voted for another"
    types = {"recv": ("append",), "send": ("vote-reply",)}  # noqa: RUF012
    MARGIN = 0.5
    """Of the timeout: the replica's clock may run fast."""
    TAKEN_S = 0.02
    """A message is told when it comes in; this much later it was certainly taken."""

    def __init__(self) -> None:
        super().__init__()
        self._timeout_s: dict[Life, float] = {}
        self._heard: dict[Life, deque[Event]] = {}
        self._role: dict[Life, Event] = {}
        self._slow: dict[Life, list[tuple[float, float]]] = {}
        self._helped: list[tuple[Event, Event]] = []

    def on_disk(self, event: Event) -> None:
        """A write was slow, and is over."""
        if event.f.get("op") == "append":
            span = (event.t - event.number("us") / 1e6, event.t)
            self._slow.setdefault((event.n, event.inc), []).append(span)

    def on_store(self, event: Event) -> None:
        """A life begins, and says how patient it is."""
        self._timeout_s[event.n, event.inc] = event.number("election_ms") / 1000

    def on_role(self, event: Event) -> None:
        """Whom it follows from now on."""
        self._role[event.n, event.inc] = event

    def on_recv(self, event: Event) -> None:
        """A leader is heard."""
        self._heard.setdefault((event.n, event.inc), deque(maxlen=16)).append(event)

    def on_send(self, event: Event) -> None:
        """Perhaps a trial vote is granted; a granted vote looks the same, but its term is the candidate's already."""
        if not (event.f.get("granted") is event.f.get("pre") is True):
            return
        life = (event.n, event.inc)
        patience_s, role = self._timeout_s.get(life, 0.0), self._role.get(life)
        if patience_s <= 0 or role is None or event.number("term") <= role.number("term"):
            return
        self.verdict.checked += 1
        for heard in reversed(self._heard.get(life, ())):
            age_s = event.t - heard.t
            if age_s > self.MARGIN * patience_s:
                return
            follows = (heard.text("fr"), heard.number("term")) == (role.text("leader"), role.number("term"))
            if follows and role.hlc < heard.hlc and age_s > self.TAKEN_S:
                self._helped.append((heard, event))
                return

    def finish(self, trace: Trace) -> None:
        """What waited for a slow write is told when that is over."""
        for heard, event in self._helped:
            slow = self._slow.get((event.n, event.inc), ())
            if any(start_s <= heard.t <= end_s for start_s, end_s in slow):
                self.verdict.unknown(f"{event.n} answered {event.text('to')} when a slow write was over")
                continue
            self.verdict.violated(
                f"{event.n} would vote for {event.text('to')} in term {event.number('term')}, "
                f"{1000 * (event.t - heard.t):.0f} ms after it heard {heard.text('fr')}, whom it follows",
                heard,
                event,
            )
