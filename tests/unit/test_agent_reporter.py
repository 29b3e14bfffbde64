"""Reports are numbered, ordered and repeated until committed."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from agents.reporter import REPORTS_MAX, RESEND_S, Reporter
from scheduler.commands import AllocationStatus


def status(sequence: int, allocation: str = "default/a.0") -> AllocationStatus:
    return AllocationStatus(allocation, 1, sequence, "running", 1, "/a", None)


def ask(reporter: Reporter, now_s: float = 0.0, known_index: int = 9, unknown=()):
    return reporter.next(now_s, known_index=known_index, unknown=unknown)


def test_nothing_to_say_is_no_status():
    assert ask(Reporter()) is None


def test_a_status_keeps_number_and_contents_until_it_is_committed():
    reporter = Reporter()
    reporter.add(status(1))
    first = ask(reporter)
    reporter.add(status(2))
    assert ask(reporter, 1.0) is None, "one in flight"
    assert ask(reporter, RESEND_S) == first, "repeated, not renumbered"
    assert reporter.committed(first.number + 1) == ()
    assert reporter.committed(first.number) == (status(1),)
    second = ask(reporter, RESEND_S)
    assert second.number > first.number
    assert second.reports == (status(2),)


def test_a_new_session_gets_the_status_in_flight_at_once():
    reporter = Reporter()
    reporter.add(status(1))
    first = ask(reporter)
    reporter.session_began()
    assert ask(reporter, 0.1) == first


def test_another_sandboxer_begins_with_an_empty_queue_and_a_new_number():
    reporter = Reporter()
    reporter.add(status(8))
    old = ask(reporter)
    reporter.add(status(9))
    reporter.sandboxer_changed()
    assert reporter.outstanding == 0
    reporter.add(status(1))
    new = ask(reporter)
    assert (new.reports, new.number > old.number) == ((status(1),), True)
    assert reporter.committed(old.number) == ()
    assert reporter.committed(new.number) == (status(1),)


def test_a_burst_is_cut_into_statuses_in_order():
    reporter = Reporter()
    everything = [status(n) for n in range(REPORTS_MAX * 2 + 1)]
    for report in everything:
        reporter.add(report)
    got = []
    while (one := ask(reporter)) is not None:
        got.extend(reporter.committed(one.number))
    assert got == everything
    assert reporter.outstanding == 0


def test_unknown_workloads_are_told_once_per_known_index():
    reporter = Reporter()
    ghost = (("default/ghost.0", 3),)
    first = ask(reporter, unknown=ghost)
    assert (first.unknown, first.known_index) == (ghost, 9)
    reporter.committed(first.number)
    assert ask(reporter, unknown=ghost) is None
    later = ask(reporter, known_index=12, unknown=ghost)
    assert (later.unknown, later.known_index) == (ghost, 12)


def test_due_in_says_when_to_repeat():
    reporter = Reporter()
    assert reporter.due_in(0.0) is None
    reporter.add(status(1))
    ask(reporter, 10.0)
    assert reporter.due_in(11.0) == RESEND_S - 1.0
    reporter.session_began()
    assert reporter.due_in(11.0) == 0.0


@given(st.lists(st.sampled_from(["add", "send", "session", "commit", "late", "wait"]), max_size=60))
def test_nothing_is_lost_or_reordered_whatever_sessions_do(script):
    reporter = Reporter()
    now, added, committed, last = 0.0, [], [], None
    numbers = []
    for step in script:
        if step == "add":
            added.append(status(len(added)))
            reporter.add(added[-1])
        elif step == "session":
            reporter.session_began()
        elif step == "wait":
            now += RESEND_S
        elif step == "commit" and last is not None:
            committed.extend(reporter.committed(last.number))
        elif step == "late" and numbers:
            committed.extend(reporter.committed(numbers[0]))
        sent = ask(reporter, now)
        if sent is not None:
            last = sent
            numbers.append(sent.number)
    assert numbers == sorted(numbers)
    while (sent := ask(reporter, now := now + RESEND_S)) is not None:
        committed.extend(reporter.committed(sent.number))
    assert committed == added
