"""The rules of agents.reconcile, each with a test that tries to break it."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from agents.reconcile import (
    ENDED_KEPT,
    EXITED,
    RUNNING,
    STARTING,
    Action,
    ForgetWorkload,
    Reconciler,
    Report,
    StartWorkload,
    StopWorkload,
)
from scheduler.commands import AllocationStatus
from scheduler.model import Exit, ExitReason, Limits, Workload
from scheduler.session import Assignment, Desired, StopOrder


def workload(grace_s: int = 5) -> Workload:
    return Workload("web", "default", "service", ("sleep", "1"), {}, Limits(0, 0, 0), (), grace_s, "keep")


def assignment(allocation: str = "default/web.0", epoch: int = 10) -> Assignment:
    return Assignment(allocation, epoch, 1, workload())


def desired(index: int, *assignments: Assignment, stops: tuple[StopOrder, ...] = (), generation: int = 0) -> Desired:
    return Desired(generation, index, assignments, stops)


def running(allocation: str = "default/web.0", epoch: int = 10, sequence: int = 1) -> AllocationStatus:
    return AllocationStatus(allocation, epoch, sequence, RUNNING, 42, "/a", None)


def exited(allocation: str = "default/web.0", epoch: int = 10, sequence: int = 2) -> AllocationStatus:
    how = Exit(0, None, "exited", True)
    return AllocationStatus(allocation, epoch, sequence, EXITED, 42, "/a", how)


def stop(allocation: str = "default/web.0", epoch: int = 10, index: int = 20) -> StopOrder:
    return StopOrder(allocation, epoch, index)


def started(actions: tuple[Action, ...]) -> list[tuple[str, int]]:
    return [(a.assignment.allocation, a.assignment.epoch) for a in actions if isinstance(a, StartWorkload)]


def stopped(actions: tuple[Action, ...]) -> list[tuple[str, int]]:
    return [(a.allocation, a.epoch) for a in actions if isinstance(a, StopWorkload)]


def reports(actions: tuple[Action, ...]) -> list[AllocationStatus]:
    return [a.status for a in actions if isinstance(a, Report)]


def test_an_assignment_is_started_once_however_often_it_is_repeated():
    core = Reconciler()
    assert started(core.desired(desired(11, assignment()))) == [("default/web.0", 10)]
    assert core.desired(desired(11, assignment())) == ()
    assert started(core.observed(running())) == []
    assert core.desired(desired(12, assignment())) == ()
    assert started(core.observed(exited())) == []
    assert core.desired(desired(13, assignment())) == ()


def test_absence_from_a_newer_set_stops_nothing():
    core = Reconciler()
    core.desired(desired(11, assignment()))
    core.observed(running())
    assert core.desired(desired(12)) == ()
    assert core.live() == (("default/web.0", 10),)


def test_a_lower_index_or_generation_is_ignored():
    core = Reconciler()
    core.desired(desired(30, generation=2))
    assert core.desired(desired(29, assignment(), stops=(stop(),), generation=2)) == ()
    assert core.desired(desired(99, assignment(), stops=(stop(),), generation=1)) == ()
    assert core.known_index == 30
    assert started(core.desired(desired(5, assignment(), generation=3))) == [("default/web.0", 10)]


def test_only_the_stop_order_of_the_very_epoch_stops():
    core = Reconciler()
    core.desired(desired(11, assignment()))
    core.observed(running())
    core.desired(desired(12, assignment(), stops=(stop(epoch=9), stop(allocation="default/web.1"))))
    assert ("default/web.0", 10) not in stopped(core.desired(desired(13, assignment(), stops=(stop(epoch=9),))))
    assert stopped(core.desired(desired(14, assignment(), stops=(stop(),)))) == [("default/web.0", 10)]
    assert stopped(core.desired(desired(15, assignment(), stops=(stop(),)))) == [], "the order is given once"


def test_a_stop_order_in_the_same_set_prevents_the_start():
    core = Reconciler()
    actions = core.desired(desired(21, assignment(), stops=(stop(),)))
    assert started(actions) == []
    assert stopped(actions) == [("default/web.0", 10)], "the sandboxer must fence it"
    [report] = reports(core.never_started("default/web.0", 10))
    assert report.state == EXITED
    assert report.exit == Exit(None, None, "stopped", False, "never started")
    assert core.desired(desired(22, assignment(), stops=(stop(),))) == ()


def test_a_conclusion_of_the_agent_carries_a_higher_sequence_than_anything_seen():
    core = Reconciler()
    core.adopted([running("default/old.0", 3, sequence=70)], sequence=99)
    core.desired(desired(21, stops=(stop(),)))
    [report] = reports(core.never_started("default/web.0", 10))
    assert report.sequence == 100


def test_a_newer_epoch_waits_until_the_older_attempt_has_ended():
    core = Reconciler()
    core.desired(desired(11, assignment(epoch=10)))
    core.observed(running(epoch=10))
    assert started(core.desired(desired(21, assignment(epoch=20)))) == []
    assert core.unknown() == (("default/web.0", 10),)
    assert started(core.observed(exited(epoch=10))) == [("default/web.0", 20)]


def test_an_older_epoch_never_starts_beside_or_after_a_newer_one():
    core = Reconciler()
    core.adopted([running(epoch=20, sequence=5)], sequence=5)
    assert started(core.desired(desired(30, assignment(epoch=10)))) == []
    core.observed(exited(epoch=20, sequence=6))
    assert started(core.desired(desired(31, assignment(epoch=10)))) == []


def test_an_ended_attempt_stays_ended_after_its_exit_is_committed_and_an_older_set_repeats_it():
    core = Reconciler()
    core.desired(desired(11, assignment()))
    core.observed(running())
    core.observed(exited())
    core.committed([running(), exited()], index=15)
    assert core.desired(desired(14, assignment())) == (), "read before the exit was committed"
    assert core.desired(desired(15, assignment())) == ()
    assert core.desired(desired(16)) == ()


def test_an_attempt_whose_exit_is_committed_is_neither_stopped_nor_reported_again():
    core = Reconciler()
    core.desired(desired(11, assignment()))
    core.observed(running())
    core.observed(exited())
    core.committed([running(), exited()], index=15)
    assert core.desired(desired(14, stops=(stop(),))) == (), "read before the exit was committed"
    assert core.observed(exited()) == (), "an event that was on its way"


def part(index: int, *assignments: Assignment, more: bool) -> Desired:
    return Desired(0, index, assignments, (), more=more)


def test_a_set_in_parts_is_one_set():
    core = Reconciler()
    one, two = assignment("default/a.0", 3), assignment("default/b.0", 4)
    assert started(core.desired(part(30, one, more=True))) == [("default/a.0", 3)]
    assert started(core.desired(part(30, two, more=False))) == [("default/b.0", 4)]
    core.observed(running("default/a.0", 3, 1))
    core.observed(running("default/b.0", 4, 2))
    core.observed(running("default/ghost.0", 2, 3))
    assert core.desired(part(31, one, more=True)) == ()
    assert core.unknown() == (), "the rest may be in the next part"
    assert core.desired(part(31, two, more=False)) == ()
    assert core.unknown() == (("default/ghost.0", 2),)


def test_an_attempt_that_ended_is_not_started_again_by_the_part_that_names_it_last():
    core = Reconciler()
    both = assignment("default/a.0", 3), assignment("default/b.0", 4)
    core.desired(desired(30, *both))
    core.observed(running("default/b.0", 4, 1))
    core.observed(exited("default/b.0", 4, 2))
    core.committed([exited("default/b.0", 4, 2)], index=31)
    core.desired(part(32, both[0], more=True))
    assert started(core.desired(part(32, both[1], more=False))) == []


def test_a_set_that_follows_an_unfinished_one_replaces_it():
    core = Reconciler()
    one, two = assignment("default/a.0", 3), assignment("default/b.0", 4)
    core.desired(part(30, one, more=True))
    core.observed(running("default/a.0", 3, 1))
    core.desired(part(31, two, more=False))
    assert core.unknown() == (("default/a.0", 3),)


def test_what_runs_but_is_in_no_set_is_told_and_not_touched():
    core = Reconciler()
    adoption = core.adopted([running("default/ghost.0", 4), running("default/future.0", 40, 2)], sequence=2)
    assert stopped(adoption) == []
    assert core.unknown() == (), "before the first set nothing is known to be unknown"
    assert core.desired(desired(30)) == ()
    assert core.unknown() == (("default/ghost.0", 4),), "a token above the set's index is not judged by it"
    assert stopped(core.desired(desired(31, stops=(stop("default/ghost.0", 4),)))) == [("default/ghost.0", 4)]
    assert core.unknown() == ()


def test_a_restarted_agent_reports_what_it_adopts_with_the_sandboxers_sequences_in_order():
    core = Reconciler()
    actions = core.adopted([exited("default/b.0", 7, sequence=9), running("default/a.0", 5, sequence=3)], sequence=9)
    assert [(r.allocation, r.sequence) for r in reports(actions)] == [("default/a.0", 3), ("default/b.0", 9)]
    assert started(core.desired(desired(20, assignment("default/a.0", 5), assignment("default/b.0", 7)))) == []


def test_a_record_that_is_starting_is_not_reported_and_not_started_again():
    core = Reconciler()
    actions = core.adopted([AllocationStatus("default/web.0", 10, 1, STARTING, 0, "", None)], sequence=1)
    assert actions == ()
    assert core.desired(desired(11, assignment())) == ()
    assert reports(core.observed(running(sequence=2))) == [running(sequence=2)]


def test_a_workload_that_a_new_sandboxer_cannot_find_is_lost_and_never_started_again_under_its_epoch():
    core = Reconciler()
    core.desired(desired(11, assignment()))
    core.observed(running(sequence=5))
    actions = core.adopted([], sequence=5)
    [report] = reports(actions)
    assert (report.state, report.sequence) == (EXITED, 6)
    assert report.exit is not None
    assert (report.exit.reason, report.exit.status_known, report.exit.code) == ("lost", False, None)
    assert started(actions) == []


def test_orders_in_flight_are_given_again_to_the_next_connection():
    core = Reconciler()
    core.desired(desired(11, assignment("default/new.0", 11), assignment()))
    core.observed(running())
    assert stopped(core.desired(desired(21, assignment("default/new.0", 11), stops=(stop(),)))) == [
        ("default/web.0", 10)
    ]
    actions = core.adopted([running()], sequence=1)
    assert started(actions) == [("default/new.0", 11)]
    assert stopped(actions) == [("default/web.0", 10)]


def test_a_refused_start_is_tried_again_or_reported_as_failed():
    core = Reconciler()
    core.desired(desired(11, assignment()))
    assert core.refused("default/web.0", 10, "busy", retry=True) == ()
    assert started(core.plan()) == [("default/web.0", 10)]
    [report] = reports(core.refused("default/web.0", 10, "no such thing", retry=False))
    assert report.exit == Exit(None, None, "start-failed", False, "no such thing")
    assert core.plan() == ()


def test_records_of_ended_attempts_are_kept_for_their_logs_and_then_forgotten_oldest_first():
    core = Reconciler()
    forgotten: list[Action] = []
    for number in range(ENDED_KEPT + 2):
        status = exited(f"default/job.{number}", number + 1, sequence=number + 1)
        core.observed(status)
        forgotten.extend(core.committed([status], index=number + 1))
    assert forgotten == [ForgetWorkload("default/job.0", 1), ForgetWorkload("default/job.1", 2)]


# --- any order of anything -------------------------------------------------------------------------

ALLOCATIONS = ("default/a.0", "default/b.0")
keys = st.tuples(st.sampled_from(ALLOCATIONS), st.integers(1, 4))
key_sets = st.lists(keys, max_size=4, unique=True)
sets = st.tuples(st.just("desired"), st.integers(0, 2), st.integers(0, 12), key_sets, key_sets)
events = st.tuples(st.sampled_from(["started", "exited", "commit", "refused"]), keys)
steps = st.lists(st.one_of(sets, events, st.just(("reconnect",))), max_size=40)


class Sandboxer:
    """What a real one guarantees: an attempt runs once, sequences grow, ended stays ended."""

    def __init__(self) -> None:
        self.records: dict[tuple[str, int], AllocationStatus] = {}
        self.sequence = 0

    def change(self, key: tuple[str, int], state: str) -> AllocationStatus:
        self.sequence += 1
        how = Exit(0, None, "exited", True) if state == EXITED else None
        self.records[key] = AllocationStatus(key[0], key[1], self.sequence, state, 1, "/a", how)
        return self.records[key]


@settings(max_examples=400, deadline=None)
@given(steps)
def test_no_order_of_sets_events_and_reconnects_breaks_the_rules(script):
    core, sandboxer = Reconciler(), Sandboxer()
    ordered_stops: set[tuple[str, int]] = set()
    assigned: set[tuple[str, int]] = set()
    seen = (-1, -1)
    ordered_starts: list[tuple[str, int]] = []
    index = 100

    for step in script:
        actions: tuple[Action, ...] = ()
        if step[0] == "desired":
            _, generation, at, wanted, unwanted = step
            before = core.live()
            actions = core.desired(
                desired(
                    at,
                    *(assignment(*key) for key in wanted),
                    stops=tuple(stop(*key) for key in unwanted),
                    generation=generation,
                )
            )
            if (generation, at) < seen:
                assert actions == ()
                assert core.live() == before
                continue
            seen = (generation, at)
            ordered_stops |= set(unwanted)
            assigned |= set(wanted)
        elif step[0] == "reconnect":
            ordered_starts = [key for key in ordered_starts if key in sandboxer.records]
            actions = core.adopted(list(sandboxer.records.values()), sandboxer.sequence)
        elif step[0] == "started" and step[1] in ordered_starts and step[1] not in sandboxer.records:
            actions = core.observed(sandboxer.change(step[1], RUNNING))
        elif step[0] == "exited" and step[1] in sandboxer.records:
            if sandboxer.records[step[1]].state == RUNNING:
                actions = core.observed(sandboxer.change(step[1], EXITED))
        elif step[0] == "refused" and step[1] in ordered_starts and step[1] not in sandboxer.records:
            actions = core.refused(*step[1], "why", retry=True)
            ordered_starts.remove(step[1])
        elif step[0] == "commit" and step[1] in sandboxer.records:
            index += 1
            actions = core.committed([sandboxer.records[step[1]]], index)

        for key in stopped(actions):
            assert key in ordered_stops, "only a stop order of the very epoch stops"
        for key in started(actions):
            assert key in assigned
            assert key not in ordered_stops, "a stopped epoch never starts"
            assert key not in sandboxer.records, "an epoch runs once"
            assert key not in ordered_starts, "an order is given once a connection"
            ordered_starts.append(key)
        live = [allocation for allocation, _ in core.live()]
        assert len(live) == len(set(live)), "one attempt of an allocation at a time"


def test_starts_carry_the_registration_of_the_newest_set():
    reconciler = Reconciler()
    (start,) = reconciler.desired(Desired(3, 10, (assignment(),), (), 7))
    assert isinstance(start, StartWorkload)
    assert (start.generation, start.registration) == (3, 7)
    reconciler.refused("default/web.0", 10, "no-lease", retry=True)
    reconciler.desired(Desired(3, 11, (), (), 9))
    assert reconciler.plan() == (), "a set that no longer names it does not start it"


def test_of_what_the_cluster_is_unsure_only_what_is_known_here_is_told():
    reconciler = Reconciler()
    reconciler.desired(desired(10, assignment()))
    unsure = (("default/web.0", 10), ("default/web.1", 11))
    assert reports(reconciler.desired(Desired(0, 11, (assignment(),), (), 0, unsure))) == [], "it is only starting"
    reconciler.observed(running())
    assert reports(reconciler.desired(Desired(0, 12, (assignment(),), (), 0, unsure))) == [running()]


def test_how_an_attempt_ended_is_kept_from_a_sandboxer_that_did_not_live_to_write_it_down():
    core = Reconciler()
    ended = AllocationStatus("default/a.0", 4, 7, "exited", 9, "/a", Exit(3, None, ExitReason.EXITED, True))
    lost = AllocationStatus("default/a.0", 4, 1, "exited", 9, "/a", Exit(None, None, ExitReason.LOST, False))
    core.adopted([], sequence=0)
    core.observed(ended)
    [report] = [action.status for action in core.adopted([lost], sequence=1) if isinstance(action, Report)]
    assert (report.sequence, report.exit.code, report.exit.status_known) == (1, 3, True)
    other = Reconciler()
    [report] = [action.status for action in other.adopted([lost], sequence=1) if isinstance(action, Report)]
    assert not report.exit.status_known, "nobody saw it"
