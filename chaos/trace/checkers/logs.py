"""The replicated log: matching prefixes, commits without holes, nothing committed that is lost or replaced.

Owns: Raft's promises about entries (§5.3, §5.4).  Must not know: what entries mean, or majorities.

Every `append`, `commit` and `apply` carries rolling hashes of the log's prefix (`marks`): equal
hashes at an index mean equal logs up to it.
"""

from __future__ import annotations

from chaos.trace.checkers.base import Rule
from chaos.trace.checkers.marks import HeldLogs
from chaos.trace.checkers.snapshots import INSTALL, REFETCH, REPLACED, WRITE
from chaos.trace.events import Event, Life, Trace


class LogMatching(Rule):
    """One (index, term) has one prefix everywhere, and one committed index has one prefix (§5.3)."""

    name = "log-matching"
    nothing = "no index was seen twice"

    def __init__(self) -> None:
        super().__init__()
        self._by_term: dict[tuple[int, int], tuple[str, Event]] = {}
        self._chain: dict[int, tuple[str, Event]] = {}
        self._early: dict[int, list[tuple[str, Event]]] = {}
        """Applied or installed before a commit of it was told."""

    def on_append(self, event: Event) -> None:
        """A log's end is durable."""
        self._end(event)

    def on_commit(self, event: Event) -> None:
        """A log is committed up to there."""
        self._end(event)
        chain = self._chain
        for index, ph in event.marks:
            known = chain.get(index)
            if known is None:
                chain[index] = (ph, event)
                for early_ph, early in self._early.pop(index, ()):
                    self._compare(index, (ph, event), early_ph, early)
            else:
                self.verdict.checked += 1
                if known[0] != ph:
                    self._differ(index, known[1], event)

    def on_apply(self, event: Event) -> None:
        """What is applied is what was committed."""
        for index, ph in event.marks:
            self._committed(index, ph, event)

    def on_disk(self, event: Event) -> None:
        """A snapshot is of a committed log."""
        if event.f.get("op") in (*REPLACED, WRITE):
            self._committed(event.number("index"), event.text("ph"), event)

    def _end(self, event: Event) -> None:
        index, term, ph = event.number("index"), event.number("last_term"), event.text("ph")
        if index < 1 or term < 1 or not ph:
            return
        known, first = self._by_term.setdefault((index, term), (ph, event))
        self.verdict.checked += first is not event
        if known != ph:
            self.verdict.violated(
                f"{first.n} and {event.n} hold different logs up to index {index} of term {term}", first, event
            )

    def _committed(self, index: int, ph: str, event: Event) -> None:
        known = self._chain.get(index)
        if known is None:
            self._early.setdefault(index, []).append((ph, event))
        else:
            self._compare(index, known, ph, event)

    def _compare(self, index: int, known: tuple[str, Event], ph: str, event: Event) -> None:
        self.verdict.checked += 1
        if known[0] != ph:
            self._differ(index, known[1], event)

    def _differ(self, index: int, first: Event, event: Event) -> None:
        if event.k == "disk":
            self.verdict.violated(f"{event.n} has a snapshot of another log at index {index}", first, event)
        else:
            self.verdict.violated(
                f"index {index} is committed with different logs on {first.n} and {event.n}", first, event
            )


class CommitContiguous(Rule):
    """A life commits and applies every index once, in order, from 1 or its snapshot: nothing committed disappears."""

    name = "commit-contiguous"
    nothing = "no commit in the trace"

    def __init__(self) -> None:
        super().__init__()
        self._last: dict[tuple[str, Life], Event] = {}
        self._committed: dict[Life, int] = {}
        self._holes: list[tuple[str, Event, Event | None]] = []
        self._early: list[tuple[Event, int]] = []

    def on_commit(self, event: Event) -> None:
        """The commit index rises."""
        self._follows("commit", event)
        life = (event.n, event.inc)
        self._committed[life] = max(self._committed.get(life, 0), event.number("index"))

    def on_apply(self, event: Event) -> None:
        """The state has it."""
        self._follows("apply", event)
        committed = self._committed.get((event.n, event.inc), 0)
        if event.number("index") > committed:
            self._early.append((event, committed))

    def on_disk(self, event: Event) -> None:
        """Perhaps a snapshot, from which both go on."""
        life, index = (event.n, event.inc), event.number("index")
        if event.f.get("op") == REFETCH:
            self._last["apply", life] = event
        if event.f.get("op") != INSTALL:
            return
        self._committed[life] = max(self._committed.get(life, 0), index)
        for kind in ("commit", "apply"):
            before = self._last.get((kind, life))
            if before is not None and index <= before.number("index"):
                self.verdict.violated(
                    f"{event.n} went back from {kind} {before.number('index')} to a snapshot", before, event
                )
            self._last[kind, life] = event

    def _follows(self, kind: str, event: Event) -> None:
        key = (kind, (event.n, event.inc))
        before = self._last.get(key)
        self._last[key] = event
        self.verdict.checked += 1
        expected = before.number("index") + 1 if before is not None else 1
        if event.number("first") != expected or event.number("index") < expected:
            self._holes.append((kind, event, before))

    def finish(self, trace: Trace) -> None:
        """What a life dropped of its trace it may have told there."""
        for kind, event, before in self._holes:
            expected = before.number("index") + 1 if before is not None else 1
            if trace.lives[event.n, event.inc].dropped:
                self.verdict.unknown(f"{event.n} dropped events of its trace")
                continue
            witnesses = (event,) if before is None else (before, event)
            first = event.number("first")
            text = f"never told the {kind} of {expected}..{first - 1}" if first > expected else f"{kind}s {first} again"
            self.verdict.violated(f"{event.n} {text}", *witnesses)
        for event, committed in self._early:
            if not trace.lives[event.n, event.inc].gap:
                self.verdict.violated(
                    f"{event.n} applied up to {event.number('index')} but committed only up to {committed}", event
                )


class CommittedKept(Rule):
    """A store that held a committed entry durably never overwrites it and finds it after a restart.

    An entry of its own at a committed index proves nothing: a leader cut off keeps what it appended
    alone until the new leader replaces it (§5.3).
    """

    name = "committed-kept"
    nothing = "no committed entry was held"

    def __init__(self) -> None:
        super().__init__()
        self._logs = HeldLogs()
        self._committed: dict[int, tuple[str, Event]] = {}

    def on_commit(self, event: Event) -> None:
        """Something is committed."""
        for index, ph in event.marks:
            self._committed.setdefault(index, (ph, event))

    def on_store(self, event: Event) -> None:
        """A life begins with what its store holds."""
        self._gone(event, self._logs.store(event), {})

    def on_append(self, event: Event) -> None:
        """Entries are durable, and replace what stood there."""
        replaced = self._logs.append(event)
        if replaced:
            self._gone(event, replaced, dict(event.marks))

    def _gone(self, event: Event, replaced: list[tuple[int, str, Event]], now: dict[int, str]) -> None:
        for index, ph, before in replaced:
            committed = self._committed.get(index)
            if committed is None or committed[0] != ph:
                continue
            self.verdict.checked += 1
            if index > event.number("index") or now.get(index, ph) != ph:
                how = "came back without" if event.k == "store" or event.f.get("recovered") else "replaced"
                self.verdict.violated(f"{event.n} {how} the committed entry {index}", before, committed[1], event)

    def finish(self, trace: Trace) -> None:
        """What still stands at the end was kept."""
        committed = self._committed
        self.verdict.checked += sum(
            1 for index, ph, _ in self._logs.all() if index in committed and committed[index][0] == ph
        )


class StateMachineSafety(Rule):
    """At one index every replica applies one entry, and so stands on one log (§5.4.3)."""

    name = "state-machine-safety"
    nothing = "no index was applied twice"

    def __init__(self) -> None:
        super().__init__()
        self._applied: dict[int, tuple[str, Event]] = {}

    def on_apply(self, event: Event) -> None:
        """A replica has applied up to an index."""
        self._take(event)

    def on_disk(self, event: Event) -> None:
        """A snapshot takes the place of applying."""
        if event.f.get("op") in REPLACED:
            self._take(event)

    def _take(self, event: Event) -> None:
        index, ph = event.number("index"), event.text("ph")
        known, first = self._applied.setdefault(index, (ph, event))
        self.verdict.checked += first is not event
        if known != ph:
            self.verdict.violated(f"{first.n} and {event.n} applied different logs up to {index}", first, event)


class EqualDigests(Rule):
    """All replicas that report a digest of their state at an index report the same one (DESIGN.md §4)."""

    name = "equal-digests"
    nothing = "no digest was told twice"

    def __init__(self) -> None:
        super().__init__()
        self._digests: dict[int, Event] = {}

    def on_digest(self, event: Event) -> None:
        """A replica digested its state."""
        first = self._digests.setdefault(event.number("index"), event)
        self.verdict.checked += first is not event
        if first.text("digest") != event.text("digest"):
            self.verdict.violated(
                f"the states of {first.n} and {event.n} differ at index {event.number('index')}", first, event
            )
