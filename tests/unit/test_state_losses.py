"""A node is declared lost, and comes back."""

from __future__ import annotations

from typing import Any

import pytest

from scheduler import commands
from scheduler.engine import draft
from scheduler.explain import explain, why_not_placed
from scheduler.model import Exit
from scheduler.state import State
from tests.support.scheduler_world import OK, World, job

WEB = "default/web.0"
LEASE = Exit(code=None, signal=15, reason="lease", status_known=True)


def world(*nodes: str, **spec: Any) -> World:
    """`web` runs, on one of the nodes."""
    made = World(*(nodes or ("a1", "a2")))
    made.submit(job(**spec))
    made.schedule()
    made.runs(WEB)
    return made


def strict(**spec: Any) -> World:
    return world(on_disconnect="stop", **spec)


def node_of(made: World) -> str:
    return str(made.shown(WEB)["node"])


def other(node: str) -> str:
    return "a2" if node == "a1" else "a1"


def test_what_is_on_a_lost_node_is_unknown_and_stays_booked_there() -> None:
    made = world()
    node = node_of(made)
    booked = made.free(node)
    result = made.lose(node)
    assert result.lost == (node,)
    assert made.state_of(WEB) == "unknown"
    assert made.free(node) == booked
    [(kind, fields)] = result.changes
    assert (kind, fields["do"], fields["node"], fields["unknown"]) == ("node", "lost", node, 1)
    shown = made.state.node(node)
    assert shown is not None
    assert shown["state"] == "lost"


def test_a_keep_allocation_is_not_replaced_and_explain_says_why() -> None:
    made = world()
    made.lose(node_of(made))
    assert made.schedule().placed == ()
    said = explain(made.state, "default/web", made.now_ms)
    assert said is not None
    assert "its node is lost; on_disconnect keep" in said["reason"]
    assert "its node is lost; on_disconnect keep" in why_not_placed(made.state, "default/web", made.now_ms)
    assert made.state.job_state("default/web") == "degraded"


def test_keep_replicas_of_a_service_are_not_replaced_either() -> None:
    made = world(replicas=4)
    made.lose("a1")
    assert made.schedule().placed == ()


def test_a_stop_allocation_is_placed_elsewhere_at_once() -> None:
    made = strict()
    node = node_of(made)
    made.lose(node)
    [(allocation, attempt, _)] = made.schedule().placed
    assert (allocation, attempt) == (WEB, 2)
    assert node_of(made) == other(node)
    assert made.free(node) != made.free(other(node)) or made.free(node)[0] == 3900, "both are booked"
    assert [row["id"] for row in (made.state.node(node) or {})["allocations"]] == [WEB]


def test_nothing_is_placed_on_a_lost_node() -> None:
    made = World("a1")
    made.lose("a1")
    made.submit(job())
    assert made.schedule().placed == ()
    [refusal] = made.plan(made.at(WEB, "a1")).refused
    assert refusal.code == "node-lost"


def test_a_stop_allocation_whose_policy_is_never_is_not_run_again() -> None:
    made = strict(kind="batch", restart_policy="Never")
    made.lose(node_of(made))
    assert made.schedule().placed == ()


def test_a_plan_made_while_the_node_was_lost_is_refused_once_it_is_back() -> None:
    made = strict()
    node = node_of(made)
    made.lose(node)
    placement = made.at(WEB, other(node))
    made.register(node)
    [refusal] = made.plan(placement).refused
    assert refusal.code == "not-wanted"


def test_a_returned_nodes_running_attempt_is_adopted() -> None:
    made = world()
    node, epoch = node_of(made), made.shown(WEB)["epoch"]
    made.lose(node)
    made.register(node)
    assert made.state.unsure_on(node) == ((WEB, epoch),)
    assert [item.allocation for item in made.state.desired_for(node)[0]] == [WEB]
    made.report(WEB, "running", sequence=1)  # the same sequence as before the loss
    assert made.state_of(WEB) == "running"
    assert made.state.unsure_on(node) == ()
    assert made.shown(WEB)["epoch"] == epoch


def test_a_returned_nodes_fenced_attempt_is_placed_anew() -> None:
    made = strict()
    node = node_of(made)
    made.lose(node)
    made.register(node)
    made.report(WEB, "exited", LEASE, sequence=2)
    assert made.state_of(WEB) == "stopped"
    made.now_ms += 60_000
    assert [placed[:2] for placed in made.schedule().placed] == [(WEB, 2)]


def test_a_replaced_attempt_is_stopped_on_its_nodes_return_and_frees_it_only_then() -> None:
    made = strict()
    node, epoch = node_of(made), made.shown(WEB)["epoch"]
    made.lose(node)
    made.schedule()
    made.register(node)
    assignments, stops = made.state.desired_for(node)
    assert assignments == ()
    assert [(stop.allocation, stop.epoch) for stop in stops] == [(WEB, epoch)]
    made.report(WEB, "running", node=node, epoch=epoch, sequence=1)
    assert made.free(node)[0] == 3900
    made.report(WEB, "exited", LEASE, node=node, epoch=epoch, sequence=2)
    assert made.free(node)[0] == 4000
    assert node_of(made) == other(node)


def test_reports_from_a_lost_node_are_refused_until_it_registers() -> None:
    made = world()
    made.lose(node_of(made))
    assert made.report(WEB, "exited", OK).code == "node-lost"
    assert made.state_of(WEB) == "unknown"


def test_a_loss_decided_before_a_new_registration_is_refused() -> None:
    made = world()
    node = node_of(made)
    entry = made.state.registration(node)
    assert entry is not None
    stale = commands.Loss(node, entry.incarnation, entry.registered_index, 1)
    made.register(node, cpu=8000)
    result = made.apply(commands.NodesLost((stale,), "n1", made.now_ms))
    assert result.refused == ((node, "node-changed"),)
    assert made.state_of(WEB) == "running"


def test_stopping_a_job_reaches_its_unknown_attempts_when_their_node_returns() -> None:
    made = world()
    node, epoch = node_of(made), made.shown(WEB)["epoch"]
    made.lose(node)
    made.stop()
    assert made.state.job_state("default/web") == "stopping"
    made.register(node)
    assert [(stop.allocation, stop.epoch) for stop in made.state.desired_for(node)[1]] == [(WEB, epoch)]
    made.report(WEB, "running", sequence=1)
    assert made.state_of(WEB) == "stopping", "an ordered stop is not forgotten over the loss"
    made.ends(WEB)
    assert made.state.job_state("default/web") == "stopped"


def test_a_strict_job_of_a_lost_node_that_was_never_strict_is_not_replaced() -> None:
    made = world()
    made.submit(job(on_disconnect="stop"))  # the attempt that runs is still of the shape that is kept
    made.lose(node_of(made))
    assert made.schedule().placed == ()


def test_fewer_replicas_forget_an_unknown_attempt_only_after_it_ended() -> None:
    made = strict(replicas=2)
    surplus = "default/web.1"
    made.runs(surplus)
    node, epoch = str(made.shown(surplus)["node"]), made.shown(surplus)["epoch"]
    made.lose(node)
    made.submit(job(on_disconnect="stop", replicas=1))
    assert [placed[0] for placed in made.schedule().placed] == ([WEB] if node_of(made) == node else [])
    made.register(node)
    assert (surplus, epoch) in [(stop.allocation, stop.epoch) for stop in made.state.desired_for(node)[1]]
    made.report(surplus, "exited", LEASE, node=node, epoch=epoch)
    assert made.state.allocation(surplus) is None


def test_an_attempt_lost_again_and_again_keeps_every_booking() -> None:
    made = World("a1", "a2", "a3", "a4", "a5", "a6", "a7", "a8")
    made.submit(job(on_disconnect="stop"))
    for _ in range(7):
        made.schedule()
        made.lose(node_of(made))
    assert sum(made.free(f"a{n}")[0] for n in range(1, 9)) == 8 * 4000 - 7 * 100
    assert made.schedule().placed[0][1] == 8


# --- who may take a node's id ---------------------------------------------------------------------


def test_another_directory_is_refused_until_the_node_is_lost() -> None:
    made = World()
    made.register("a1", installation="first")
    refused = made.register("a1", incarnation="i2", installation="second")
    assert refused.code == "node-in-use"
    made.lose("a1")
    assert made.register("a1", incarnation="i2", installation="second").outcome == "replaced"


def test_another_boot_is_refused_while_stop_workloads_may_run_on_the_former_one() -> None:
    made = strict()
    node = node_of(made)
    assert made.register(node, boot="b2").code == "node-in-use"
    made.lose(node)
    made.schedule()
    assert made.register(node, boot="b2").outcome == "rebooted"
    assert made.free(node)[0] == 4000


def test_another_boot_is_admitted_at_once_where_nothing_depends_on_a_lease() -> None:
    made = world()
    assert made.register(node_of(made), boot="b2").outcome == "rebooted"


def test_a_new_sandboxer_gets_no_work_until_the_former_ones_lease_has_run_out() -> None:
    made = world("a1", on_disconnect="stop")
    made.register("a1", incarnation="i2")
    made.submit(job("more"))
    assert draft(made.state, made.now_ms).placements == ()
    [refusal] = made.plan(made.at("default/more.0", "a1")).refused
    assert refusal.code == "node-not-settled"
    entry = made.state.registration("a1")
    assert entry is not None
    made.apply(commands.NodeSettled("a1", entry.registered_index, made.now_ms))
    assert [placed[0] for placed in made.schedule().placed] == ["default/more.0"]


def test_a_new_sandboxer_where_nothing_depends_on_a_lease_gets_work_at_once() -> None:
    made = world("a1")
    made.register("a1", incarnation="i2")
    made.submit(job("more"))
    assert [placed[0] for placed in made.schedule().placed] == ["default/more.0"]


def test_a_cordoned_node_that_was_lost_comes_back_cordoned() -> None:
    made = world()
    node = node_of(made)
    made.cordon(node)
    made.lose(node)
    made.register(node)
    assert (made.state.node(node) or {})["state"] == "cordoned"


@pytest.mark.parametrize("spec", [{}, {"on_disconnect": "stop"}])
def test_a_loss_survives_a_snapshot(spec: dict[str, str]) -> None:
    made = world(**spec)
    made.lose(node_of(made))
    made.schedule()
    frozen = made.state.freeze()
    copy = State()
    copy.restore(frozen.index, frozen.term, list(frozen.chunks()))
    assert copy.digest() == made.state.digest()
    for node in ("a1", "a2"):
        assert copy.desired_for(node) == made.state.desired_for(node)
        assert copy.node(node) == made.state.node(node)
