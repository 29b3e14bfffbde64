"""The leader's table of leases: what it must never do, whatever the clocks and the network are like."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scheduler.leases import MS_NS, STORM_WINDOW_NS, LeaseTable, Registered, Rules

S = 1000 * MS_NS
RULES = Rules(lease_ns=10 * S, reconnect_ns=15 * S, drift_ppm=1000, delta_ns=S // 2)
NODE = Registered("a1", "inc", 7)


def no_grace(_: str) -> int:
    return 0


def table(nodes: int = 1, elected_ns: int = 0) -> LeaseTable:
    made = LeaseTable(RULES, elected_ns)
    for number in range(nodes):
        made.found(Registered(f"a{number + 1}", "inc", 7))
    return made


def lost(made: LeaseTable, now_ns: int, grace_ns: int = 0) -> list[str]:
    return [overdue.node for overdue in made.judge(now_ns, lambda _: grace_ns).lost]


# --- the property ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Sent:
    """One renewal: real times of its sending, its receipt, and the end of its round."""

    at: int
    received: int
    round_end: int


@st.composite
def histories(draw: st.DrawFn) -> tuple[list[Sent], int, list[int], int, int, int]:
    """Renewals, the second election, moments of judging, two clock rates (ppm off), the grace."""
    ms = st.integers(0, 4_000)
    renewals, now = [], 0
    for _ in range(draw(st.integers(1, 12))):
        now += draw(ms)
        received = now + draw(ms) // draw(st.sampled_from([1, 20]))
        renewals.append(Sent(now * MS_NS, received * MS_NS, (received + draw(ms)) * MS_NS))
    election = draw(st.integers(0, 40_000)) * MS_NS
    looks = sorted(draw(st.lists(st.integers(0, 80_000), min_size=1, max_size=20)))
    rate = st.integers(-500, 499)  # so that the two differ by less than the rules' 1000
    return renewals, election, [at * MS_NS for at in looks], draw(rate), draw(rate), draw(st.integers(0, 8)) * S


@settings(max_examples=400, deadline=None)
@given(histories())
def test_no_node_is_declared_lost_while_a_workload_of_its_lease_may_run(
    history: tuple[list[Sent], int, list[int], int, int, int],
) -> None:
    renewals, election, looks, leader_ppm, node_ppm, grace = history

    def leader_clock(real: int) -> int:
        return real * (1_000_000 + leader_ppm) // 1_000_000

    def over_at(sent: Sent) -> int:
        """Real time at which the node has ended everything of the lease that this renewal gave, δ not counted."""
        return sent.at + -(-(RULES.lease_ns + grace) * 1_000_000 // (1_000_000 + node_ppm))

    events = [(sent.received, 0, sent) for sent in renewals] + [(sent.round_end, 1, sent) for sent in renewals]
    timeline: list[tuple[int, int, Sent | None]] = [*events, (election, 2, None), *((at, 3, None) for at in looks)]
    timeline.sort(key=lambda event: (event[0], event[1]))
    leader = LeaseTable(RULES, 0)
    leader.found(NODE)
    noted: dict[Sent, LeaseTable] = {}
    granted: list[Sent] = []
    for at, kind, sent in timeline:
        if kind == 2:  # the majority has voted: the former leader's rounds find none any more
            leader = LeaseTable(RULES, leader_clock(at))
            leader.found(NODE)
        elif sent is None:
            for overdue in leader.judge(leader_clock(at), lambda _: grace).lost:
                assert all(over_at(grant) + RULES.delta_ns <= at + MS_NS for grant in granted), "it may still run"
                leader.propose(overdue, leader_clock(at))
        elif kind == 0:
            if leader.receive("a1", "inc", 1, leader_clock(at)):
                noted[sent] = leader
        elif noted.get(sent) is leader and leader.confirms("a1", "inc") is not None:
            granted.append(sent)
        earliest = -(-leader.lost_at_ns("a1", grace) * 1_000_000 // (1_000_000 + leader_ppm))
        assert all(over_at(grant) + RULES.delta_ns <= earliest + MS_NS for grant in granted), "it would be too early"


# --- one rule a test ------------------------------------------------------------------------------


def test_a_node_is_lost_lease_drift_grace_and_delta_after_its_last_renewal() -> None:
    made = table()
    made.receive("a1", "inc", 3, 5 * S)
    grace = 4 * S
    due = 5 * S + 14 * S + 14 * S // 1000 + S // 2
    assert made.lost_at_ns("a1", grace) == due
    assert lost(made, due - 1, grace) == []
    [overdue] = made.judge(due, lambda _: grace).lost
    assert (overdue.node, overdue.registration, overdue.number, overdue.silent_ns) == ("a1", 7, 3, due - 5 * S)


def test_after_an_election_nodes_get_the_reconnect_allowance() -> None:
    made = table(elected_ns=100 * S)
    due = 100 * S + 15 * S + 15 * S // 1000 + S // 2
    assert lost(made, due - 1) == []
    assert lost(made, due) == ["a1"]


def test_an_allowance_shorter_than_the_lease_does_not_shorten_it() -> None:
    made = LeaseTable(Rules(lease_ns=10 * S, reconnect_ns=S, drift_ppm=0, delta_ns=0), 0)
    made.found(NODE)
    assert lost(made, 10 * S - 1) == []
    assert lost(made, 10 * S) == ["a1"]


def test_a_node_that_registers_counts_from_then_on() -> None:
    made = table(nodes=0)
    made.registered(NODE, 50 * S)
    assert lost(made, 60 * S) == []
    assert lost(made, 61 * S) == ["a1"]


def test_once_its_loss_is_proposed_a_nodes_renewals_are_refused_and_those_in_flight_withheld() -> None:
    made = table()
    assert made.receive("a1", "inc", 1, 0)
    [overdue] = made.judge(30 * S, no_grace).lost
    made.propose(overdue, 30 * S)
    assert made.confirms("a1", "inc") is None
    assert not made.receive("a1", "inc", 2, 31 * S)
    assert lost(made, 40 * S) == [], "it is proposed once"
    made.decided("a1")  # the proposal was refused: the node counts again
    assert made.receive("a1", "inc", 3, 41 * S)
    assert made.confirms("a1", "inc") == NODE


def test_a_node_that_is_lost_and_back_before_the_leader_looks_renews_and_can_be_lost_again() -> None:
    made = table()
    (overdue,) = made.judge(20 * S, no_grace).lost
    made.propose(overdue, 20 * S)
    made.registered(Registered("a1", "other", 9), 21 * S)  # the loss was applied in between, and nobody looked
    assert made.receive("a1", "other", 1, 22 * S)
    assert made.confirms("a1", "other") is not None
    assert lost(made, 40 * S) == ["a1"]


def test_the_registration_whose_loss_is_proposed_does_not_lift_it() -> None:
    made = table()
    (overdue,) = made.judge(20 * S, no_grace).lost
    made.propose(overdue, 20 * S)
    made.registered(NODE, 21 * S)
    assert not made.receive("a1", "inc", 5, 22 * S)


def test_another_incarnation_neither_renews_nor_is_confirmed() -> None:
    made = table()
    assert not made.receive("a1", "other", 1, 5 * S)
    assert made.confirms("a1", "other") is None
    assert lost(made, 16 * S) == ["a1"], "its renewals prolong nothing"


def test_a_round_that_began_for_the_former_incarnation_confirms_nothing_to_the_next() -> None:
    made = table()
    assert made.receive("a1", "inc", 1, 5 * S)
    made.registered(Registered("a1", "next", 9), 6 * S)
    assert made.confirms("a1", "inc") is None


def test_the_former_incarnations_lease_runs_out_before_its_node_is_settled() -> None:
    made = table()
    made.receive("a1", "inc", 1, 5 * S)
    made.registered(Registered("a1", "next", 9), 6 * S)
    made.receive("a1", "next", 1, 7 * S)
    assert made.settled_at_ns("a1", 0) == 5 * S + RULES.horizon_ns(10 * S, 0)


def test_a_lost_node_has_no_lease_until_it_registers_again() -> None:
    made = table()
    made.gone("a1")
    assert not made.receive("a1", "inc", 1, S)
    made.registered(NODE, 2 * S)
    assert made.receive("a1", "inc", 2, 3 * S)


@pytest.mark.parametrize(("silent", "of", "declared"), [(3, 4, 3), (4, 4, 0), (4, 20, 4), (5, 20, 0), (20, 100, 20)])
def test_more_than_three_and_a_fifth_at_once_is_a_storm(silent: int, of: int, declared: int) -> None:
    made = table(nodes=of)
    for number in range(silent, of):
        made.receive(f"a{number + 1}", "inc", 1, 29 * S)
    verdict = made.judge(30 * S, no_grace)
    assert len(verdict.lost) == declared
    assert bool(verdict.paused) == (declared == 0)


def test_nodes_that_fall_silent_one_after_another_are_counted_together() -> None:
    made = table(nodes=8)
    for number in range(8):
        made.receive(f"a{number + 1}", "inc", 1, number * S // 10 if number < 5 else 10 * S)
    assert made.judge(11 * S, no_grace).paused, "the first of five is due, the others are silent too"


def test_a_storms_pause_ends_a_minute_after_the_last_node_fell_due() -> None:
    made = table(nodes=5)
    due = made.lost_at_ns("a1", 0)
    assert made.judge(due, no_grace).paused
    assert made.judge(due + STORM_WINDOW_NS - 1, no_grace).paused
    assert len(made.judge(due + STORM_WINDOW_NS, no_grace).lost) == 5


def test_those_declared_within_the_minute_count_towards_a_storm() -> None:
    made = table(nodes=10)
    for number in range(3, 10):
        made.receive(f"a{number + 1}", "inc", 1, 12 * S)
    for overdue in made.judge(16 * S, no_grace).lost:
        made.propose(overdue, 16 * S)
        made.gone(overdue.node)
    for number in range(4, 10):
        made.receive(f"a{number + 1}", "inc", 2, 22 * S)
    assert made.judge(23 * S, no_grace).paused, "the fourth of ten within a minute"


def test_looking_costs_as_much_as_there_are_silent_nodes() -> None:
    made = table(nodes=1000)
    for number in range(1000):
        made.receive(f"a{number + 1}", "inc", 1, 20 * S)
    asked: list[str] = []

    def grace(node: str) -> int:
        asked.append(node)
        return 0

    verdict = made.judge(21 * S, grace)
    assert asked == []
    assert verdict.next_ns == 25 * S
