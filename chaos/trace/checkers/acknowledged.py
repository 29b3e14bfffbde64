"""Nothing acknowledged is lost.

Owns: matching answers to callers (`op`) with what replicas committed and applied (`commit`, `job`).
Must not know: how answers travel.
"""

from __future__ import annotations

from chaos.trace.checkers.base import Finding, Verdict
from chaos.trace.checkers.snapshots import AppliedRanges, installs
from chaos.trace.events import FLUSH_MS, Event, LifeFacts, Trace

WRITES = ("submit", "stop")
TOLD_S = 0.001
"""Two processes' events of one millisecond have no order."""


def acknowledged_writes(trace: Trace) -> list[Event]:
    """The first `ok` of every request for a change, in order."""
    found: dict[str, Event] = {}
    for event in trace.kind("op"):
        if event.f.get("ph") == "ok" and event.f.get("op") in WRITES and acknowledged_index(event) > 0:
            found.setdefault(event.text("id"), event)
    return list(found.values())


def acknowledged_index(event: Event) -> int:
    """The log index that an answer names; -1 if none."""
    index = event.part("value").get("index")
    return index if isinstance(index, int) else -1


class _Applied:
    """What each life applied: job events by index, and how far it got."""

    def __init__(self, trace: Trace) -> None:
        self.jobs: dict[int, list[Event]] = {}
        self.reached: dict[tuple[str, str], int] = {}
        self._installs = installs(trace)
        self._ranges = AppliedRanges(trace)
        for event in trace.kind("job"):
            self.jobs.setdefault(event.number("index"), []).append(event)
        for event in trace.kind("apply", "job", "place", "node"):
            if event.n in trace.voters:
                life, index = (event.n, event.inc), event.number("index")
                # an event of the same index may still follow; one of a higher index proves the lower ones done
                self.reached[life] = max(self.reached.get(life, 0), index if event.k == "apply" else index - 1)

    def skipped(self, life: tuple[str, str], index: int) -> bool:
        """Whether that life took a snapshot in the place of applying `index`."""
        jumps = self._installs.get(life, [])
        return any(event.number("index") >= index for event in jumps) and not self._ranges.by(life, index)


def no_acknowledged_placement_lost(trace: Trace) -> Finding:
    """Every acknowledged submit or stop is committed, and applied at its index wherever that was reached."""
    verdict = Verdict("no-acknowledged-placement-lost")
    applied = _Applied(trace)
    commits = _Commits(trace)
    for answer in acknowledged_writes(trace):
        verdict.checked += 1
        _check_commit(verdict, trace, commits, answer)
        _check_applied(verdict, trace, applied, answer)
    return verdict.finding("no acknowledged submit or stop in the trace")


def lost_answers(trace: Trace) -> list[Event]:
    """The acknowledged writes that were certainly lost."""
    applied, commits, lost = _Applied(trace), _Commits(trace), []
    for answer in acknowledged_writes(trace):
        verdict = Verdict("one")
        verdict.checked = 1
        _check_commit(verdict, trace, commits, answer)
        _check_applied(verdict, trace, applied, answer)
        if verdict.finding("").ok is False:
            lost.append(answer)
    return lost


class _Commits:
    """Which indexes were committed, by whom first."""

    def __init__(self, trace: Trace) -> None:
        self._ranges = [(e.number("first"), e.number("index"), e) for e in trace.kind("commit")]
        self._seen: dict[int, Event] = {}
        self._highest = 0
        for first, last, event in self._ranges:
            if last > self._highest or first > self._highest:
                for index in range(first, min(last, first + 1_000_000) + 1):
                    self._seen.setdefault(index, event)
                self._highest = max(self._highest, last)
            elif first not in self._seen or last not in self._seen:
                for index in range(first, last + 1):
                    self._seen.setdefault(index, event)

    def first(self, index: int) -> Event | None:
        """The first commit that covers `index`."""
        return self._seen.get(index)


def _check_commit(verdict: Verdict, trace: Trace, commits: _Commits, answer: Event) -> None:
    index = acknowledged_index(answer)
    commit = commits.first(index)
    if commit is not None:
        if commit.t > answer.t + TOLD_S and all(trace.is_whole(voter) for voter in trace.voters):
            verdict.violated(f"{answer.text('id')} was answered before index {index} was committed", answer, commit)
        elif commit.ms > answer.ms + FLUSH_MS:
            verdict.unknown(f"the commit of {index} is told later than its answer: another told it first")
        return
    blind = [voter for voter in trace.voters if _ended_before(trace, voter, answer)]
    text = f"{answer.text('id')} was answered ok at index {index}, which no replica ever committed"
    if blind:
        verdict.unknown(f"{text}; the trace of {', '.join(blind)} may miss it")
    else:
        verdict.violated(text, answer)


def _ended_before(trace: Trace, voter: str, answer: Event) -> bool:
    """Whether the voter's trace may lack the time just before the answer."""
    lives = [facts for facts in trace.lives_of(voter) if facts.first_hlc <= answer.hlc]
    if not lives:
        return False
    return any(_blind(facts, answer) for facts in lives[-2:])


def _blind(facts: LifeFacts, answer: Event) -> bool:
    if facts.gap:
        return True
    if facts.last_hlc >= answer.hlc:
        return False  # it wrote events from after the answer: those from before it are there
    return facts.may_have_lost(answer.hlc)


def _check_applied(verdict: Verdict, trace: Trace, applied: _Applied, answer: Event) -> None:
    index, request = acknowledged_index(answer), answer.text("id")
    holders: list[str] = []
    for event in applied.jobs.get(index, []):
        if event.text("request_id") == request:
            if event.n not in holders:
                holders.append(event.n)
        else:
            verdict.violated(
                f"{request} was answered ok at index {index}, but {event.n} applied {event.text('request_id')} there",
                answer,
                event,
            )
    for life, reached in applied.reached.items():
        if reached < index or trace.lives[life].gap or applied.skipped(life, index):
            continue
        if not any((e.n, e.inc) == life for e in applied.jobs.get(index, [])):
            witness = _witness(trace, life, index)
            verdict.violated(
                f"{life[0]} applied past index {index} without the acknowledged {request}", answer, *witness
            )
    if len(holders) < trace.majority:
        verdict.unknown(f"{request} at index {index} is seen applied on {', '.join(holders) or 'nobody'} only")


def _witness(trace: Trace, life: tuple[str, str], index: int) -> list[Event]:
    for event in trace.kind("apply"):
        if (event.n, event.inc) == life and event.number("first") <= index <= event.number("index"):
            return [event]
    return []


EFFECTIVE = ("created", "replaced", "stopped")


def one_effect_per_request(trace: Trace) -> Finding:
    """A request id that is asked again, however often, changes the state once, until its job is collected."""
    verdict = Verdict("one-effect-per-request")
    effects: dict[tuple[str, str, int], Event] = {}
    collected: dict[str, set[int]] = {}
    for event in trace.kind("job"):
        if event.f.get("do") == "collect":
            collected.setdefault(event.text("job"), set()).add(event.number("index"))
    for event in trace.kind("job"):
        if event.f.get("outcome") not in EFFECTIVE:
            continue
        verdict.checked += 1
        lives = sum(index < event.number("index") for index in collected.get(event.text("job"), ()))
        first = effects.setdefault((event.text("job"), event.text("request_id"), lives), event)
        if first.number("index") != event.number("index"):
            verdict.violated(
                f"request {event.text('request_id')} changed {event.text('job')} at index {first.number('index')} "
                f"and again at {event.number('index')}",
                first,
                event,
            )
    return verdict.finding("no job was changed")
