"""Every state of three cores within small bounds; the reductions behind it; and that it finds bugs.

More than a million states: ``skerry sim exhaustive``.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable
from random import Random

import pytest
from msgspec.structs import replace

from chaos.exhaustive.catalogue import Outcome
from chaos.exhaustive.member import (
    COMMITTED,
    CONFIG,
    DEPOSED,
    ELECTED,
    FIRST,
    LOST,
    OVERWRITTEN,
    OVERWRITTEN_IN_FLIGHT,
    REFUSED,
    UNHEARD,
    Member,
)
from chaos.exhaustive.scopes import MILLION, SCOPES, TWO_LED, Scope
from chaos.exhaustive.search import REELECTED, Report, Search, explore
from chaos.exhaustive.table import Move, Table
from chaos.exhaustive.timeless import STORES, T_NS, LongestDice, clone, freeze, mirrored, rest
from raft.core import Core, CoreConfig, Recovered
from raft.effects import Effect, Persist, Role, Send
from raft.events import Event, HandOver, Persisted, Proposal, Proposed, Received, Tick
from raft.messages import Entry, HardState, Message
from tests.support import raft_breaks

SOAK = int(os.environ.get("SKERRY_SEEDS", "500")) > 500

#: Scope → how many states it has, and what is reached in them, at least.
COMPLETE = {
    "candidacy": (200_000, {ELECTED: 300, LOST: 4_000, UNHEARD: 6_000, DEPOSED: 30_000, COMMITTED: 10_000}),
    "rivals": (100_000, {ELECTED: 700, LOST: 3_000}),
    "replication": (30_000, {COMMITTED: 3_000, LOST: 1_000}),
    "figure-8": (28_000, {OVERWRITTEN: 600, REELECTED: 79, REFUSED: 800}),
}

#: The same for the first levels of larger ones.
BEGUN = {
    "hand-over": (120_000, {REELECTED: 10, LOST: 2_000}),
    "succession": (120_000, {OVERWRITTEN: 5, OVERWRITTEN_IN_FLIGHT: 5, REELECTED: 500, LOST: 2_000, REFUSED: 2_000}),
}


@pytest.mark.parametrize("name", COMPLETE)
def test_no_state_of_a_scope_breaks_an_invariant(name: str) -> None:
    least, reached = COMPLETE[name]
    report = explore(name, SCOPES[name], 5_000_000)
    _is_sound(report)
    assert report.complete
    assert report.states >= least
    _is_not_weak(report, reached)


@pytest.mark.parametrize("name", [*BEGUN, MILLION] if SOAK else [*BEGUN])
def test_no_state_of_a_large_scope_breaks_an_invariant(name: str) -> None:
    """Their first levels; in a soak all of them, more than a million states in one."""
    least, reached = BEGUN.get(name, (1_000_000, {OVERWRITTEN: 100, REELECTED: 1_000, LOST: 10_000}))
    report = explore(name, SCOPES[name], 5_000_000 if SOAK else least)
    _is_sound(report)
    assert report.states >= least
    assert report.complete or not SOAK
    _is_not_weak(report, reached)


def _is_not_weak(report: Report, least: dict[str, int]) -> None:
    assert {fact: report.reached[fact] for fact in least if report.reached[fact] < least[fact]} == {}


def test_the_first_levels_without_bounds_on_what_happens() -> None:
    report = explore("open", SCOPES["open"], 60_000)
    _is_sound(report)
    assert not report.complete
    assert report.depth >= 8


def _is_sound(report: Report) -> None:
    assert report.violated is None, f"{report.violated}: {report.why}\n" + "\n".join(report.path)


# -- it finds bugs -------------------------------------------------------------------------------


def _forgotten_vote(patch: pytest.MonkeyPatch) -> None:
    """A restart keeps the term and loses the vote; there is no log store here that could forget to write it."""
    original = Core.__init__

    def init(self: Core, config: CoreConfig, recovered: Recovered, dice: LongestDice, now_ns: int) -> None:
        forgotten = replace(recovered, hard_state=HardState(recovered.hard_state.term, None))
        original(self, config, forgotten, dice, now_ns)

    patch.setattr(Core, "__init__", init)


#: Bug → scope, the invariant that names it, and how many events the shortest way takes.
FOUND: dict[Callable[[pytest.MonkeyPatch], None], tuple[str, str, int]] = {
    raft_breaks.double_vote: ("rivals", "vote-once", 9),
    _forgotten_vote: ("rivals", "vote-once", 11),
    raft_breaks.commit_of_an_earlier_term: ("figure-8", "commit-own-term", 13),
    raft_breaks.acknowledgement_before_the_write: ("candidacy", "vote-persistence", 3),
    raft_breaks.own_write_counted_at_once: ("figure-8", "commit-kept", 16),
    raft_breaks.overwritten_suffix_still_counts: ("figure-8", "acknowledged-durably", 12),
    raft_breaks.no_log_matching_check: ("figure-8", "log-matching", 10),
    raft_breaks.truncation_by_any_message: ("replication", "commit-kept", 11),
    raft_breaks.votes_for_a_shorter_log: ("succession", "leader-completeness", 12),
}


@pytest.mark.parametrize("broken", FOUND, ids=lambda broken: broken.__name__)
def test_a_deliberate_bug_is_found_by_the_shortest_way(
    broken: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    scope, invariant, events = FOUND[broken]
    broken(monkeypatch)
    report = explore(scope, SCOPES[scope], 200_000)
    assert (report.violated, len(report.path)) == (invariant, events), report


def test_the_way_to_a_violation_is_told_in_words(monkeypatch: pytest.MonkeyPatch) -> None:
    raft_breaks.acknowledgement_before_the_write(monkeypatch)
    report = explore("candidacy", SCOPES["candidacy"], 200_000)
    assert report.path == [
        "timeout n1",
        "deliver n1->n2 pre-vote request, term 2, log ends 1@1",
        "deliver n2->n1 pre-vote granted, term 2",
    ]
    assert report.why == "its vote of term 2 leaves before it is on disk"


WALKS = Scope(
    terms_max=20,
    commands_max=1,
    beats_max=7,
    crashes_max=7,
    duplicates_max=7,
    losses_max=7,
    link_max=4,
    hands_over=True,
)


# -- the reductions are sound --------------------------------------------------------------------


def test_a_state_and_the_same_with_other_names_are_one() -> None:
    table = Table(SCOPES["candidacy"])
    (one, two, three), spent = table.first
    after = [
        table.key(ring, 0) for move, _, ring, _ in table.moves((one, two, three), spent) if move[2][0] == "timeout"
    ]
    assert len(after) == 3
    assert len(set(after)) == 1


def test_a_state_read_back_from_its_number_is_the_same_state() -> None:
    table = Table(WALKS)
    ring, _ = table.first
    random = Random(3)
    for _ in range(200):
        _, outcome, ring, spent = random.choice(list(table.moves(ring, 0)))
        key = table.key(ring, spent)
        again, used = table.state(key)
        assert table.key(again, used) == key
        assert used == spent
        assert outcome.violated is None


def test_a_copy_of_a_core_is_independent_and_equal() -> None:
    member = Member()
    before = member.frozen()
    copy = member.copy()
    assert copy.frozen() == before
    copy.timeout()
    assert copy.frozen() != before
    assert member.frozen() == before
    assert mirrored(mirrored(copy.frozen())) == copy.frozen()


def test_a_field_that_is_new_in_a_rule_makes_another_state() -> None:
    core = Core(CONFIG, Recovered(HardState(1, None), (FIRST,)), LongestDice(), 0)
    rest(core, CONFIG)
    other = clone(core)
    other._elections.remembers_more = 1  # type: ignore[attr-defined]
    assert freeze(other) != freeze(core)


class Real:
    """Three cores under their own names with clocks that run, moved by the same events."""

    def __init__(self) -> None:
        self.now = dict.fromkeys(STORES, 0)
        self.disk: dict[str, tuple[Entry, ...]] = dict.fromkeys(STORES, (FIRST,))
        self.hard = dict.fromkeys(STORES, HardState(1, None))
        self.writes: dict[str, list[Persist]] = {name: [] for name in STORES}
        self.held: dict[str, list[tuple[int, Send]]] = {name: [] for name in STORES}
        self.cores: dict[str, Core] = {}
        for name in STORES:
            self._start(name)

    def _start(self, name: str) -> None:
        config = CoreConfig(
            id=name,
            store_id=STORES[name],
            peers=tuple(STORES),
            election_timeout_ns=T_NS,
            max_message_bytes=1,
            max_inflight_messages=2,
        )
        self.writes[name], self.held[name] = [], []
        recovered = Recovered(self.hard[name], self.disk[name])
        self.cores[name] = Core(config, recovered, LongestDice(), self.now[name])

    def do(self, name: str, event: str, other: str = "", message: Message | None = None) -> list[tuple[str, Message]]:
        """Let it happen; returns what left."""
        core = self.cores[name]
        state, replication = core._state, core._replication
        match event:
            case "receive":
                assert message is not None
                return self._step(name, Received(self.now[name], other, message, STORES[other]))
            case "timeout":
                return self._tick(name, state.election_deadline_ns)
            case "silence":
                return self._tick(name, state.leader_heard_ns + T_NS)
            case "beat":
                return self._tick(name, replication.beat_deadline_ns)
            case "announce":
                return self._tick(name, replication.commit_deadline_ns)
            case "resign":
                return self._tick(name, replication._quorum_deadline_ns())
            case "propose":
                return self._step(name, Proposed(self.now[name], (Proposal(1, b"x"),)))
            case "hand over":
                return self._step(name, HandOver(self.now[name], 1, other))
            case "persist":
                return self._persist(name)
        if event == "crash after a write":
            self._write(name)
        self._start(name)
        return []

    def _tick(self, name: str, now: int) -> list[tuple[str, Message]]:
        self.now[name] = max(self.now[name], now)
        return self._step(name, Tick(self.now[name]))

    def _step(self, name: str, event: Event) -> list[tuple[str, Message]]:
        left = []
        for effect in self.cores[name].step(event):
            left += self._carry_out(name, effect)
        return left

    def _carry_out(self, name: str, effect: Effect) -> list[tuple[str, Message]]:
        if isinstance(effect, Persist):
            self.writes[name].append(effect)
        elif isinstance(effect, Send):
            if not effect.after_persist or not self.writes[name]:
                return [(effect.to, effect.message)]
            self.held[name].append((self.writes[name][-1].write, effect))
        return []

    def _write(self, name: str) -> Persist:
        write = self.writes[name].pop(0)
        self.hard[name] = write.hard_state or self.hard[name]
        if write.entries:
            self.disk[name] = self.disk[name][: write.entries[0].index - 1] + write.entries
        return write

    def _persist(self, name: str) -> list[tuple[str, Message]]:
        write = self._write(name)
        last = self.disk[name][-1]
        left = self._step(name, Persisted(self.now[name], write.write, last.term, last.index))
        ready = [(send.to, send.message) for number, send in self.held[name] if number <= write.write]
        self.held[name] = [each for each in self.held[name] if each[0] > write.write]
        return left + ready


_NAMES = tuple(STORES)


def test_a_walk_through_numbered_states_is_a_walk_of_three_real_cores() -> None:
    """Copying, freezing, mirroring, looking up and taking time out change nothing that a core decides."""
    reached: Counter[str] = Counter()
    search = Search("walks", WALKS)
    for seed in range(24):
        _walk(search, Random(seed), reached, TWO_LED if seed % 2 else ())
    least = {ELECTED: 60, OVERWRITTEN: 5, LOST: 5, COMMITTED: 100}
    assert {fact: reached[fact] for fact in least if reached[fact] < least[fact]} == {}


def _walk(search: Search, random: Random, reached: Counter[str], script: tuple[str, ...]) -> None:
    table, real = search.table, Real()
    ring, _ = table.first
    for number in range(120):
        moves = list(table.moves(ring, 0))
        if number < len(script):
            moves = [each for each in moves if search.told(each[0]) == script[number]]
        else:
            moves = [each for each in moves if not _needs_young_clock(real, each[0][0], each[0][2][0])]
        weights = [_LIKELY.get(each[0][1] or each[0][2][0], 1) for each in moves]
        move, outcome, ring, _ = random.choices(moves, weights)[0]
        if move[1] != "lost":
            _do_the_same(table, real, move, outcome)
        reached.update(outcome.facts)
        _agree(table, ring, real)


def _do_the_same(table: Table, real: Real, move: Move, outcome: Outcome) -> None:
    """The real core lets the same messages go."""
    who, _, (event, far, number) = move
    messages = table.catalogue.messages
    left = real.do(
        _NAMES[who], event, _NAMES[(who + far) % 3] if far else "", messages[number] if event == "receive" else None
    )
    told = [(_NAMES[(who + 1) % 3], messages[each]) for each in outcome.to_next]
    told += [(_NAMES[(who + 2) % 3], messages[each]) for each in outcome.to_before]
    assert sorted(map(repr, told)) == sorted(map(repr, left))


_LIKELY = {"receive": 12, "persist": 12, "lost": 0.5, "crash": 0.2, "crash after a write": 0.2, "resign": 0.3}
"""How likely each move is; the rest weighs 1."""


def _needs_young_clock(real: Real, who: int, event: str) -> bool:
    """What a clock that runs may forbid: to stand with a write that hangs, to beat when no majority answered lately."""
    core = real.cores[_NAMES[who]]
    state, replication = core._state, core._replication
    if event == "timeout":
        return bool(real.writes[_NAMES[who]])
    if event in ("beat", "announce") and core.role is Role.LEADER:
        due = replication.beat_deadline_ns if event == "beat" else replication.commit_deadline_ns
        return max(due, state.now_ns) >= min(replication._quorum_deadline_ns(), core._transfer.deadline_ns)
    return False


def _agree(table: Table, ring: tuple[int, int, int], real: Real) -> None:
    for name, place in zip(_NAMES, ring, strict=True):
        core, view = real.cores[name], table.catalogue.views[table.places[place][0]]
        log = [(core.log.term_at(index), core.log.hash_at(index)) for index in range(1, core.last_index + 1)]
        assert list(view.log) == log
        assert view.leads == (core.term if core.role is Role.LEADER else 0)
        assert len(view.disk) == len(real.disk[name])
        assert len(view.committed) >= core.commit_index


def test_the_shortest_way_is_a_way_of_three_real_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    """The names in a path are consistent: replayed line by line, its end shows the bug."""
    raft_breaks.commit_of_an_earlier_term(monkeypatch)
    report = explore("figure-8", SCOPES["figure-8"], 200_000)
    search = Search("again", SCOPES["figure-8"])
    search.begin_with((*SCOPES["figure-8"].begins_with, *report.path[:-1]))
    last = [outcome for move, outcome, *_ in search.moves() if search.told(move) == report.path[-1]]
    assert last[0].violated is not None
    assert last[0].violated.invariant == "commit-own-term"


def test_what_counts_as_time_is_put_back_after_every_event() -> None:
    member = Member()
    member.timeout()
    assert member.core.next_deadline_ns() == 2 * T_NS
    assert member.core._state.now_ns == 0
