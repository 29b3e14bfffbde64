"""What the sandboxer does about the node's lease: the deadline it holds, and starts under it."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents.sandboxer import events as ev
from agents.sandboxer import fence
from agents.sandboxer.fence import Lease
from agents.sandboxer.spec import Card
from tests.support.sandboxer_driver import CALLER, MS, Driver, of, refusal, spec

SIGNALLED = ev.Status(None, 15)


def strict(**more: Any) -> Any:
    return spec(on_disconnect="stop", **more)


def renew(driver: Driver, until_ms: int, registration: int = 1) -> list[ev.Effect]:
    return driver.step(ev.RenewAsked(CALLER, until_ms * MS, registration))


def running(driver: Driver, **more: Any) -> Card:
    """A `stop` workload that runs under registration 1."""
    card: Card = strict(**more).card
    driver.step(ev.StartAsked(CALLER, strict(**more), 1))
    driver.step(ev.Spawned(card.key, 100, 0))
    driver.step(ev.Executed(card.key))
    return card


def test_without_a_lease_a_stop_workload_does_not_start_and_may_be_asked_for_again() -> None:
    driver = Driver()
    effects = driver.step(ev.StartAsked(CALLER, strict(), 1))
    [refused] = of(effects, ev.Refuse)
    assert (refused.code, refused.retryable) == ("no-lease", True)
    renew(driver, 1000)
    assert of(driver.step(ev.StartAsked(CALLER, strict(), 1)), ev.Spawn)


def test_a_keep_workload_starts_without_a_lease_and_outlives_one() -> None:
    driver = Driver()
    card = driver.running()
    renew(driver, 1000)
    effects = driver.step(ev.Tick(), after_ms=5000)
    assert not of(effects, ev.Terminate)
    assert not of(effects, ev.Kill)
    assert card.key in driver.core.live()


def test_a_start_decided_under_an_older_registration_is_refused_however_late() -> None:
    driver = Driver()
    renew(driver, 10_000, registration=7)
    assert refusal(driver.step(ev.StartAsked(CALLER, strict(), 6))) == "no-lease"
    assert of(driver.step(ev.StartAsked(CALLER, strict(), 7)), ev.Spawn)


def test_at_the_deadline_stop_workloads_get_sigterm_and_at_the_end_of_their_grace_sigkill() -> None:
    driver = Driver()
    renew(driver, 1000)
    card = running(driver, grace_ms=400)
    assert driver.core.next_deadline_ns() == 1000 * MS
    assert not of(driver.step(ev.Tick(), after_ms=999), ev.Terminate)
    effects = driver.step(ev.Tick(), after_ms=1)
    assert of(effects, ev.Terminate) == [ev.Terminate(card.key)]
    [over] = of(effects, ev.LeaseOver)
    assert (over.deadline_ns, over.fenced) == (1000 * MS, 1)
    assert of(effects, ev.Fenced)
    assert driver.core.next_deadline_ns() == 1400 * MS
    assert of(driver.step(ev.Tick(), after_ms=400), ev.Kill)
    ended = driver.end(card, SIGNALLED)
    assert (ended["reason"], ended["signal"], ended["status_known"]) == ("lease", 15, True)


def test_a_fencer_that_wakes_late_still_kills_by_the_deadline_and_grace() -> None:
    driver = Driver()
    renew(driver, 1000)
    card = running(driver, grace_ms=400)
    assert of(driver.step(ev.Tick(), after_ms=1300), ev.Terminate)
    assert driver.core.next_deadline_ns() == 1400 * MS
    late = Driver()
    renew(late, 1000)
    running(late, grace_ms=400)
    assert of(late.step(ev.Tick(), after_ms=1500), ev.Kill) == [ev.Kill(card.key)]


def test_renewals_move_the_deadline_and_never_back() -> None:
    driver = Driver()
    renew(driver, 1000)
    running(driver)
    assert of(renew(driver, 3000), ev.KeepLease) == [ev.KeepLease(Lease(3000 * MS, 1))]
    assert not of(renew(driver, 2000), ev.KeepLease)
    assert not of(renew(driver, 9000, registration=0), ev.KeepLease)
    assert not of(driver.step(ev.Tick(), after_ms=2999), ev.Terminate)
    assert of(driver.step(ev.Tick(), after_ms=1), ev.Terminate)


def test_a_renewal_that_comes_after_the_deadline_does_not_save_what_was_to_end() -> None:
    driver = Driver()
    renew(driver, 1000)
    card = running(driver)
    driver.now_ms = 1200  # the process was stopped meanwhile: the renewal is read before the timer
    effects = renew(driver, 5000, registration=2)
    assert of(effects, ev.Terminate) == [ev.Terminate(card.key)]
    assert driver.end(card, SIGNALLED)["reason"] == "lease"
    assert of(driver.step(ev.StartAsked(CALLER, strict(epoch=9), 2)), ev.Spawn), "the next may run"


def test_expiry_cancels_a_start_that_waits_for_its_journal_and_the_epoch_stays_fenced() -> None:
    driver = Driver(durable=False)
    renew(driver, 1000)
    [intent] = of(driver.step(ev.StartAsked(CALLER, strict(), 1)), ev.Journal)
    effects = driver.step(ev.Tick(), after_ms=1000)
    [announced] = of(effects, ev.Announce)
    assert announced.record["exit"]["reason"] == "lease"
    assert not of(driver.step(ev.Journaled(intent.sequence)), ev.Spawn)
    renew(driver, 5000)
    record = of(driver.step(ev.StartAsked(CALLER, strict(), 1)), ev.Reply)[0].fields["record"]
    assert record["state"] == "exited"


def test_a_journal_that_answers_after_the_deadline_spawns_nothing_even_before_the_timer() -> None:
    driver = Driver(durable=False)
    renew(driver, 1000)
    [intent] = of(driver.step(ev.StartAsked(CALLER, strict(), 1)), ev.Journal)
    assert not of(driver.step(ev.Journaled(intent.sequence), after_ms=1000), ev.Spawn)


def test_a_start_that_is_barred_at_its_exec_ends_for_want_of_a_lease_and_is_no_failure() -> None:
    driver = Driver()
    renew(driver, 1000)
    card: Card = strict().card
    driver.step(ev.StartAsked(CALLER, strict(), 1))
    driver.step(ev.StartBarred(card.key), after_ms=1000)
    effects = driver.step(ev.GroupEmpty(card.key))
    [announced] = [effect for effect in of(effects, ev.Announce) if effect.kind == "exited"]
    assert announced.record["exit"]["reason"] == "lease"


def test_what_was_told_to_stop_before_the_deadline_is_stopped_not_fenced_but_by_the_deadlines_grace() -> None:
    driver = Driver()
    renew(driver, 1000)
    card = running(driver, grace_ms=200)
    driver.step(ev.StopAsked(CALLER, card.allocation, card.epoch, 60_000))
    driver.step(ev.Tick(), after_ms=1000)
    assert driver.core.next_deadline_ns() == 1200 * MS
    assert driver.end(card, SIGNALLED)["reason"] == "stopped"


def test_a_lease_that_ran_out_asks_for_no_more_ticks() -> None:
    driver = Driver()
    renew(driver, 1000)
    driver.step(ev.Tick(), after_ms=1000)
    assert driver.core.next_deadline_ns() is None


@pytest.mark.parametrize(("kept_ms", "state"), [(500, "stopping"), (2000, "running")])
def test_a_new_sandboxer_ends_what_it_finds_by_the_deadline_that_was_kept(kept_ms: int, state: str) -> None:
    survivor = ev.Survivor(strict().card, 100, 0, None, 0)
    driver = Driver(ev.Memory({}, (survivor,), Lease(kept_ms * MS, 1)))
    assert driver.core.records()[0]["state"] == "running"
    driver.step(ev.Tick(), after_ms=1000)
    assert driver.core.records()[0]["state"] == state


def test_a_new_sandboxer_that_finds_no_lease_ends_stop_workloads_at_once() -> None:
    survivor = ev.Survivor(strict().card, 100, 0, None, 0)
    driver = Driver(ev.Memory({}, (survivor,)))
    assert driver.core.records()[0]["state"] == "stopping"
    assert of(driver.effects, ev.Terminate) == [ev.Terminate(survivor.card.key)]


@given(st.lists(st.tuples(st.integers(0, 5000), st.integers(0, 5)), max_size=20))
def test_neither_deadline_nor_registration_of_a_lease_ever_goes_back(renewals: list[tuple[int, int]]) -> None:
    lease = Lease()
    for deadline, registration in renewals:
        renewed = lease.renewed(deadline, registration)
        assert renewed.deadline_ns >= lease.deadline_ns
        assert renewed.registration >= lease.registration
        lease = renewed


def test_a_lease_is_read_back_only_on_the_boot_it_was_written_on() -> None:
    data = fence.encode(Lease(5, 6), "boot")
    assert fence.decode(data, "boot") == Lease(5, 6)
    assert fence.decode(data, "other") == Lease()
    for broken in (None, b"", b"{", b"[]", b'{"boot": "boot"}'):
        assert fence.decode(broken, "boot") == Lease()
