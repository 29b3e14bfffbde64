"""The sandboxer's decisions, one rule a test."""

from __future__ import annotations

from typing import Any

import pytest

from agents.sandboxer import events as ev
from agents.sandboxer.core import EXITED_MAX
from tests.support.sandboxer_driver import CALLER, MS, Driver, of, refusal, spec


def test_nothing_is_spawned_before_its_intent_is_durable() -> None:
    driver = Driver(durable=False)
    effects = driver.step(ev.StartAsked(CALLER, spec()))
    [intent] = of(effects, ev.Journal)
    assert intent.record["k"] == "intent"
    assert not of(effects, ev.Spawn)
    assert [effect.spec for effect in of(driver.step(ev.Journaled(intent.sequence)), ev.Spawn)] == [spec()]


def test_a_start_is_answered_once_the_program_runs() -> None:
    driver = Driver()
    assert not of(driver.step(ev.StartAsked(CALLER, spec())), ev.Reply)
    driver.step(ev.Spawned(spec().card.key, 100, 7))
    [reply] = of(driver.step(ev.Executed(spec().card.key)), ev.Reply)
    assert reply.caller == CALLER
    assert (reply.fields["record"]["state"], reply.fields["record"]["pid"]) == ("running", 100)


def test_the_same_start_twice_is_one_workload() -> None:
    driver = Driver()
    driver.step(ev.StartAsked(CALLER, spec()))
    driver.step(ev.StartAsked(ev.Caller(2, 9), spec()))
    driver.step(ev.Spawned(spec().card.key, 100, 0))
    replies = of(driver.step(ev.Executed(spec().card.key)), ev.Reply)
    assert [reply.caller for reply in replies] == [CALLER, ev.Caller(2, 9)]
    assert len(of(driver.effects, ev.Spawn)) == 1
    assert len(of(driver.step(ev.StartAsked(CALLER, spec())), ev.Reply)) == 1


def test_the_same_epoch_with_another_specification_is_refused() -> None:
    driver = Driver()
    driver.running()
    assert refusal(driver.step(ev.StartAsked(CALLER, spec(command=["other"])))) == "spec-changed"


@pytest.mark.parametrize("epoch", [1, 4])
def test_an_epoch_at_or_below_the_floor_never_starts(epoch: int) -> None:
    driver = Driver(ev.Memory({"default/web.0": 4}, ()))
    assert refusal(driver.step(ev.StartAsked(CALLER, spec(epoch=epoch)))) == "stale-epoch"
    assert not of(driver.effects, ev.Spawn)


def test_a_stop_fences_before_the_disk_knows() -> None:
    driver = Driver(durable=False)
    [reply] = of(driver.step(ev.StopAsked(CALLER, "default/web.0", 5, 0)), ev.Reply)
    assert reply.fields == {"record": None}
    assert refusal(driver.step(ev.StartAsked(CALLER, spec(epoch=5)))) == "stale-epoch"


def test_a_fence_below_a_pending_start_outlives_that_starts_refusal() -> None:
    driver = Driver(durable=False)
    driver.step(ev.StartAsked(CALLER, spec(epoch=5)))
    driver.step(ev.StopAsked(CALLER, "default/web.0", 3, 0))
    driver.step(ev.JournalFailed("no space"))
    driver.step(ev.JournalRecovered())
    assert refusal(driver.step(ev.StartAsked(CALLER, spec(epoch=3)))) == "stale-epoch"
    assert not of(driver.step(ev.StartAsked(CALLER, spec(epoch=4))), ev.Refuse)


def test_a_newer_epoch_waits_for_the_end_of_the_older() -> None:
    driver = Driver()
    card = driver.running(epoch=5)
    effects = driver.step(ev.StartAsked(CALLER, spec(epoch=6)))
    assert refusal(effects) == "epoch-busy"
    assert of(effects, ev.Refuse)[0].retryable
    driver.end(card, ev.Status(0, None))
    assert not of(driver.step(ev.StartAsked(CALLER, spec(epoch=6))), ev.Refuse)


def test_a_stop_before_the_spawn_cancels_it() -> None:
    driver = Driver(durable=False)
    [intent] = of(driver.step(ev.StartAsked(CALLER, spec())), ev.Journal)
    effects = driver.step(ev.StopAsked(ev.Caller(2, 2), "default/web.0", 5, 1000))
    [announced] = of(effects, ev.Announce)
    assert (announced.kind, announced.record["exit"]["reason"]) == ("exited", "stopped")
    assert not of(driver.step(ev.Journaled(intent.sequence)), ev.Spawn)


def test_a_stop_terminates_then_kills_after_the_grace() -> None:
    driver = Driver()
    card = driver.running()
    effects = driver.step(ev.StopAsked(CALLER, "default/web.0", 5, 1000))
    assert of(effects, ev.Terminate)
    assert not of(effects, ev.Kill)
    assert driver.core.next_deadline_ns() == 1000 * MS
    assert not of(driver.step(ev.Tick(), 999), ev.Kill)
    assert of(driver.step(ev.Tick(), 1), ev.Kill)
    assert of(driver.step(ev.Tick(), 1000), ev.Kill), "it is killed again if something is left"
    assert driver.end(card, ev.Status(None, 9))["reason"] == "stopped"


def test_a_second_stop_may_shorten_the_grace_but_not_lengthen_it() -> None:
    driver = Driver()
    driver.running()
    driver.step(ev.StopAsked(CALLER, "default/web.0", 5, 1000))
    driver.step(ev.StopAsked(CALLER, "default/web.0", 5, 5000))
    assert driver.core.next_deadline_ns() == 1000 * MS
    driver.step(ev.StopAsked(CALLER, "default/web.0", 5, 100))
    assert driver.core.next_deadline_ns() == 100 * MS


def test_a_stop_without_grace_kills_at_once() -> None:
    driver = Driver()
    driver.running()
    effects = driver.step(ev.StopAsked(CALLER, "default/web.0", 5, 0))
    assert of(effects, ev.Kill)
    assert not of(effects, ev.Terminate)


def test_an_exit_is_announced_only_when_no_process_is_left() -> None:
    driver = Driver()
    card = driver.running()
    effects = driver.step(ev.MainExited(card.key, ev.Status(0, None), 0))
    assert of(effects, ev.Kill)
    assert not of(effects, ev.Announce)
    assert [effect.kind for effect in of(driver.step(ev.GroupEmpty(card.key)), ev.Announce)] == ["exited"]


def test_cgroups_go_only_after_the_exit_is_durable() -> None:
    driver = Driver()
    card = driver.running()
    driver.durable = False
    driver.step(ev.MainExited(card.key, ev.Status(0, None), 0))
    effects = driver.step(ev.GroupEmpty(card.key))
    [exited] = of(effects, ev.Journal)
    assert not of(effects, ev.Release)
    assert of(driver.step(ev.Journaled(exited.sequence)), ev.Release) == [ev.Release(card.key)]


@pytest.mark.parametrize(
    ("status", "oom_kills", "expected"),
    [
        (ev.Status(0, None), 0, ("exited", 0, None, True)),
        (ev.Status(137, None), 0, ("exited", 137, None, True)),
        (ev.Status(None, 11), 0, ("signaled", None, 11, True)),
        (ev.Status(None, 9), 1, ("oom", None, 9, True)),
        (ev.Status(1, None), 1, ("oom", 1, None, True)),
        (ev.Status(0, None), 1, ("oom", 0, None, True)),
        (ev.Status(None, None), 0, ("lost", None, None, False)),
        (ev.Status(None, None), 1, ("lost", None, None, False)),
    ],
)
def test_the_reason_follows_from_the_evidence(
    status: ev.Status, oom_kills: int, expected: tuple[str, int | None, int | None, bool]
) -> None:
    driver = Driver()
    ended = driver.end(driver.running(), status, oom_kills)
    assert (ended["reason"], ended["code"], ended["signal"], ended["status_known"]) == expected
    assert ("for memory" in ended["detail"]) == (oom_kills > 0 and ended["reason"] != "oom")


def test_running_out_of_memory_ends_the_whole_workload_and_is_told_once() -> None:
    driver = Driver()
    card = driver.running()
    effects = driver.step(ev.OomSeen(card.key, 1))
    assert [effect.kind for effect in of(effects, ev.Announce)] == ["oom"]
    assert of(effects, ev.Kill)
    assert not of(driver.step(ev.OomSeen(card.key, 1)), ev.Announce)
    assert driver.end(card, ev.Status(None, 9), 1)["reason"] == "oom"


def test_a_failed_start_is_told_with_its_reason_and_no_status() -> None:
    driver = Driver()
    driver.step(ev.StartAsked(CALLER, spec()))
    driver.step(ev.Spawned(spec().card.key, 100, 0))
    driver.step(ev.StartFailed(spec().card.key, "executing 'x': No such file or directory"))
    driver.step(ev.MainExited(spec().card.key, ev.Status(127, None), 0))
    [reply] = of(driver.step(ev.GroupEmpty(spec().card.key)), ev.Reply)
    assert reply.fields["record"]["exit"] == {
        "code": None,
        "signal": None,
        "reason": "start-failed",
        "status_known": False,
        "detail": "executing 'x': No such file or directory",
    }


def test_a_broken_journal_refuses_starts_and_lets_stops_through() -> None:
    driver = Driver()
    card = driver.running(allocation="default/old.0")
    driver.durable = False
    driver.step(ev.StartAsked(CALLER, spec()))
    assert refusal(driver.step(ev.JournalFailed("no space"))) == "journal-failed"
    assert refusal(driver.step(ev.StartAsked(CALLER, spec()))) == "journal-failed"
    assert of(driver.step(ev.StopAsked(CALLER, "default/old.0", 5, 0)), ev.Kill)
    driver.step(ev.MainExited(card.key, ev.Status(None, 9), 0))
    effects = driver.step(ev.GroupEmpty(card.key))
    assert of(effects, ev.Release), "without a journal nothing is waited for"
    driver.step(ev.JournalRecovered())
    assert not of(driver.step(ev.StartAsked(CALLER, spec())), ev.Refuse), "the refused epoch was not used up"


def test_forgetting_needs_an_exit_and_keeps_the_fence() -> None:
    driver = Driver()
    card = driver.running()
    assert refusal(driver.step(ev.ForgetAsked(CALLER, card.allocation, card.epoch))) == "not-exited"
    driver.end(card, ev.Status(0, None))
    effects = driver.step(ev.ForgetAsked(CALLER, card.allocation, card.epoch))
    assert of(effects, ev.Discard) == [ev.Discard(card.key)]
    assert driver.core.records() == []
    assert refusal(driver.step(ev.StartAsked(CALLER, spec()))) == "stale-epoch"
    assert of(driver.step(ev.ForgetAsked(CALLER, "default/none.0", 1)), ev.Reply)


def test_exited_records_are_bounded() -> None:
    driver = Driver()
    for epoch in range(1, EXITED_MAX + 4):
        driver.end(driver.running(epoch=epoch), ev.Status(0, None))
    epochs = [record["epoch"] for record in driver.core.records()]
    assert epochs == list(range(4, EXITED_MAX + 4))


def test_shutdown_stops_everything_then_finishes_when_all_is_durable() -> None:
    driver = Driver()
    cards = [driver.running(allocation=f"default/w.{index}") for index in range(2)]
    driver.durable = False
    effects = driver.step(ev.ShutdownAsked(CALLER, True))
    assert len(of(effects, ev.Terminate)) == 2
    assert refusal(driver.step(ev.StartAsked(CALLER, spec(epoch=9)))) == "shutting-down"
    for card in cards:
        driver.step(ev.MainExited(card.key, ev.Status(None, 15), 0))
        assert not of(driver.step(ev.GroupEmpty(card.key)), ev.Finish)
    last = of(driver.effects, ev.Journal)[-1].sequence
    assert of(driver.step(ev.Journaled(last)), ev.Finish) == [ev.Finish(True, (CALLER,))]


def test_shutdown_without_stopping_finishes_at_once() -> None:
    driver = Driver()
    driver.running()
    effects = driver.step(ev.ShutdownAsked(CALLER, False))
    assert of(effects, ev.Finish) == [ev.Finish(False, (CALLER,))]
    assert not of(effects, ev.Terminate)


def survivor(**more: Any) -> ev.Survivor:
    fields: dict[str, Any] = {"card": spec().card, "pid": 7, "unix_ms": 1, "status": None, "oom_kills": 0, **more}
    return ev.Survivor(**fields)


def test_a_running_survivor_is_adopted_and_its_epoch_fenced() -> None:
    driver = Driver(ev.Memory({}, (survivor(),)))
    [record] = driver.core.records()
    assert (record["state"], record["adopted"], record["pid"]) == ("running", True, 7)
    assert [effect.kind for effect in of(driver.effects, ev.Announce)] == ["adopted"]
    [reply] = of(driver.step(ev.StartAsked(CALLER, spec())), ev.Reply)
    assert reply.fields["record"]["pid"] == 7
    assert driver.core.floor("default/web.0") == 5


def test_a_survivor_without_status_is_lost_and_its_rest_killed() -> None:
    driver = Driver(ev.Memory({}, (survivor(status=ev.Status(None, None, "unseen")),)))
    assert of(driver.effects, ev.Kill)
    driver.step(ev.GroupEmpty(spec().card.key))
    assert driver.core.records()[0]["exit"] == {
        "code": None,
        "signal": None,
        "reason": "lost",
        "status_known": False,
        "detail": "unseen",
    }


def test_a_survivor_whose_exit_is_recorded_keeps_it_and_loses_its_cgroup() -> None:
    driver = Driver(ev.Memory({}, (survivor(status=ev.Status(3, None), reason="exited", recorded=True),)))
    assert driver.core.records()[0]["exit"]["code"] == 3
    assert of(driver.effects, ev.Release)
    assert not of(driver.effects, ev.Journal)


def test_an_unfinished_stop_goes_on() -> None:
    driver = Driver(ev.Memory({}, (survivor(stop_ordered=True),)))
    assert of(driver.effects, ev.Terminate)
    assert driver.core.next_deadline_ns() == 1000 * MS
