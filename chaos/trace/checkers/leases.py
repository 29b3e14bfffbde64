"""Leases: confirmed by a majority, counted from the send, and never given up too early.

Owns: the arithmetic of DESIGN.md §6 against what agents and leaders tell.  Must not know: how either keeps its table.

Times are those of the trace (true in the simulator, one machine's clock elsewhere); the parties' own clocks
may differ from them in rate.  What a machine with an unbounded clock, or one that stood still, tells proves nothing.
"""

from __future__ import annotations

from msgspec import Struct

from chaos.trace.checkers.base import Finding, Rule, Verdict
from chaos.trace.checkers.members import Roster, Rosters
from chaos.trace.events import Event, Life, Trace
from chaos.trace.faults import afflictions, beyond_promise

SLACK = 0.01
"""Relative error of a clock within its bound, generously."""
TOLD_S = 0.005
"""An event is told at most this long after what it tells, and in whole milliseconds."""


def renewals(event: Event) -> list[tuple[str, int]]:
    """(node, number) of every renewal that a leader's round confirmed."""
    found = event.f.get("nodes")
    return [(str(pair[0]), int(pair[1])) for pair in found] if isinstance(found, list | tuple) else []


def received_s(confirm: Event) -> float:
    """When the leader had received what it confirms."""
    return confirm.t - confirm.number("waited_us") / 1e6


def lease_by_quorum(trace: Trace) -> Finding:
    """A lease is confirmed by a quorum round begun after its renewal came in: so not while a majority could not answer.

    A majority of the leader's voters must, between receipt and confirmation, have been within reach and not yet in a
    newer term: who is in one answers no round of an older.
    """
    verdict = Verdict("lease-by-quorum")
    found = trace.derive(afflictions)
    rosters, terms = Rosters(), dict[str, list[Event]]()
    confirms: list[tuple[Event, Roster]] = []
    for event in trace.kind("note", "role", "vote", "lease"):
        if event.k == "note":
            rosters.note(event)
        elif event.k == "lease":
            roster = rosters.of(event)
            if event.f.get("do") == "confirm" and roster is not None:
                confirms.append((event, roster))
        else:
            mine = terms.setdefault(event.n, [])
            if not mine or event.number("term") > mine[-1].number("term"):
                mine.append(event)
    for confirm, roster in confirms:
        since_s = received_s(confirm)
        apart = [each for each in found if each.lasts_through(since_s - TOLD_S, confirm.t)]
        able = {confirm.n}
        witnesses: list[Event] = []
        for voter in roster.electorate:
            gone = next((e for e in reversed(terms.get(voter, ())) if e.t < since_s - TOLD_S), None)
            cut = next((each for each in apart if each.parts(confirm.n, voter)), None) if voter != confirm.n else None
            if gone is not None and gone.number("term") > confirm.number("term"):
                witnesses.append(gone)
            elif cut is not None:
                witnesses.append(cut.fault)
            else:
                able.add(voter)
        if roster.majority_of(able & set(roster.electorate)):
            verdict.checked += 1
        elif beyond_promise(trace, [confirm.n], since_s - 1.0, confirm.t) is not None:
            verdict.unknown(f"{confirm.n} tells by a clock out of bounds how long it waited")
        else:
            verdict.checked += 1
            verdict.violated(
                f"{confirm.n} confirmed leases in term {confirm.number('term')} while "
                f"{', '.join(sorted(able))} alone could answer its round",
                confirm,
                *witnesses,
            )
    return verdict.finding("no confirmed lease in the trace")


class LeaseFromSend(Rule):
    """A node counts its lease from the send of the renewal that was confirmed (DESIGN.md §6).

    So it ends at most a lease after the leader received that.
    """

    name = "lease-from-send"
    nothing = "no lease was granted"

    def __init__(self) -> None:
        super().__init__()
        self._confirmed: dict[tuple[str, int], Event] = {}
        self._doubtful: list[tuple[str, Event, Event | None]] = []
        self._counting: dict[Life, Event] = {}
        self._jumped: list[tuple[Event, Event]] = []

    def on_lease(self, event: Event) -> None:
        """A leader confirms, a node counts."""
        if event.f.get("do") == "confirm":
            for key in renewals(event):
                self._confirmed[key] = event
        elif event.f.get("do") in ("grant", "renew") and event.number("lease_ms") > 0:
            self._counted(event)

    def _counted(self, event: Event) -> None:
        self.verdict.checked += 1
        lease_ms = event.number("lease_ms")
        if event.number("deadline_ns") > event.number("sent_ns") + lease_ms * 1_000_000:
            self._doubtful.append(("counts its lease from later than it sent the renewal", event, None))
        before = self._counting.get((event.n, event.inc))
        if before is not None and abs(_ahead_s(event) - _ahead_s(before)) > SLACK * (event.t - before.t) + TOLD_S:
            self._jumped.append((before, event))
        self._counting[event.n, event.inc] = event
        confirm = self._confirmed.get((event.n, event.number("number")))
        if confirm is None:
            return
        ends_s = event.t + event.number("left_ms") / 1000
        if ends_s > received_s(confirm) + lease_ms / 1000 * (1 + SLACK) + TOLD_S:
            self._doubtful.append(
                (f"holds its lease past {confirm.n}'s receipt and the lease's length", event, confirm)
            )

    def finish(self, trace: Trace) -> None:
        """A clock out of bounds counts otherwise; an agent that was started again numbers its renewals from 1 again."""
        for text, event, confirm in self._doubtful:
            if confirm is not None and confirm.hlc < trace.lives[event.n, event.inc].first_hlc:
                continue
            if confirm is not None and confirm.hlc < trace.lives[event.n, event.inc].first_hlc:
                continue  # a restarted agent counts its renewals anew, and not every round is told
            told = [event] if confirm is None else [confirm, event]
            beyond = beyond_promise(trace, {each.n for each in told}, told[0].t - 1.0, event.t)
            if confirm is not None and beyond is not None:
                self.verdict.unknown(f"{event.n} {text}, under {beyond.kind}")
            else:
                self.verdict.violated(f"{event.n} {text}", *told)
        for before, event in self._jumped:
            if trace.is_whole(event.n) and beyond_promise(trace, {event.n}, before.t - 1.0, event.t) is None:
                self.verdict.violated(
                    f"{event.n} counts its lease on a clock that jumped by {_ahead_s(event) - _ahead_s(before):.3f} s",
                    before,
                    event,
                )


def _ahead_s(event: Event) -> float:
    """By how much the clock that a node counts its lease on is ahead of the trace's time."""
    return event.number("deadline_ns") / 1e9 - event.number("left_ms") / 1000 - event.t


LET_THROUGH_S = 0.25
"""From the last look at the lease to the program's first instruction: forking takes its time."""


def no_late_start(trace: Trace) -> Finding:
    """A `stop` workload begins only while its node's lease lasts, as the node's agent counted it (§6)."""
    verdict = Verdict("no-late-start")
    begin = "began" if any(event.f.get("do") == "began" for event in trace.kind("run")) else "start"
    needs = {
        (event.text("allocation"), event.number("epoch"))
        for event in trace.kind("run")
        if event.f.get("on_disconnect") == "stop"
    }
    lasts: dict[str, tuple[float, Event]] = {}
    for event in trace.kind("lease", "run"):
        if event.k == "lease":
            if event.f.get("do") in ("grant", "renew") and event.f.get("one_in") == 1:
                until_s = event.t + event.number("left_ms") / 1000
                lasts[event.n] = max((until_s, event), lasts.get(event.n, (0.0, event)), key=lambda pair: pair[0])
            continue
        attempt = (event.text("allocation"), event.number("epoch"))
        if event.f.get("do") != begin or attempt not in needs or event.n not in lasts:
            continue
        until_s, told = lasts[event.n]
        late_s = event.t - until_s
        if late_s <= LET_THROUGH_S:
            verdict.checked += 1
        elif beyond_promise(trace, [event.n], told.t - 1.0, event.t) is not None:
            verdict.unknown(f"{event.n} stood still, or its clock ran out of bounds")
        else:
            verdict.checked += 1
            verdict.violated(f"{attempt[0]} began on {event.n} {1000 * late_s:.0f} ms after its lease", told, event)
    return verdict.finding("nothing that needs a lease began on a node that tells every renewal")


class _Reign(Struct):
    elected: Event
    heard: dict[str, Event]
    """Node → the confirmation of its last renewal."""


def no_early_loss(trace: Trace) -> Finding:
    """A leader declares a node lost no earlier than its last renewal (or its own election) + lease + grace + δ."""
    verdict = Verdict("no-early-loss")
    reigns: dict[Life, _Reign] = {}
    registered: dict[str, Event] = {}
    for event in trace.kind("role", "lease", "node"):
        life = (event.n, event.inc)
        if event.k == "node":
            if event.f.get("do") == "register":
                registered.setdefault(event.text("node") + f"@{event.number('index')}", event)
            continue
        if event.k == "role":
            if event.f.get("role") == "leader":
                reigns[life] = _Reign(event, {})
            else:
                reigns.pop(life, None)
            continue
        reign = reigns.get(life)
        if reign is None:
            continue
        if event.f.get("do") == "confirm":
            for node, _ in renewals(event):
                reign.heard[node] = event
        elif event.f.get("do") == "lost" and event.number("lease_ms") > 0:
            _check_loss(verdict, trace, reign, event)
    return verdict.finding("no node was declared lost")


def _check_loss(verdict: Verdict, trace: Trace, reign: _Reign, lost: Event) -> None:
    node = lost.text("node")
    heard = reign.heard.get(node)
    since, witness = (reign.elected.t, reign.elected) if heard is None else (received_s(heard), heard)
    owed_s = (lost.number("lease_ms") + max(0, lost.number("grace_ms")) + max(0, lost.number("delta_ms"))) / 1000
    verdict.checked += 1
    if lost.t - since >= owed_s * (1 - SLACK) - TOLD_S:
        return
    text = f"{lost.n} declared {node} lost {lost.t - since:.3f} s after "
    text += "its election" if heard is None else "it had received its renewal"
    beyond = beyond_promise(trace, [lost.n], since - 1.0, lost.t)
    if beyond is not None:
        verdict.unknown(f"{text}, under {beyond.kind}")
    else:
        verdict.violated(f"{text}, and owes it {owed_s:.3f} s", witness, lost)


class NoLeaseForTheLost(Rule):
    """Between the decision to declare a node lost and its outcome the node's renewals are not confirmed (§6)."""

    name = "no-lease-for-the-lost"
    nothing = "no node was declared lost"

    def __init__(self) -> None:
        super().__init__()
        self._lost: dict[tuple[Life, str], Event] = {}

    def on_role(self, event: Event) -> None:
        """Another reign knows nothing of the proposals of the one before."""
        for key in [key for key in self._lost if key[0] == (event.n, event.inc)]:
            del self._lost[key]

    def on_node(self, event: Event) -> None:
        """A node that registers anew has a lease to come; so has one whose loss was refused."""
        if event.f.get("do") == "register":
            self._lost.pop(((event.n, event.inc), event.text("node")), None)

    def on_lease(self, event: Event) -> None:
        """A leader proposes a loss, or confirms."""
        life = (event.n, event.inc)
        if event.f.get("do") == "lost":
            self._lost[life, event.text("node")] = event
            self.verdict.checked += 1
        elif event.f.get("do") == "confirm":
            for node, number in renewals(event):
                lost = self._lost.get((life, node))
                if lost is not None:
                    self.verdict.violated(
                        f"{event.n} confirmed renewal {number} of {node} after it had decided to declare it lost",
                        lost,
                        event,
                    )
