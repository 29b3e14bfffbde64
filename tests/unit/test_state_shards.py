"""Owners in the replicated state: epochs, what a stale plan may still do, snapshots, own arcs first."""

from __future__ import annotations

from collections import Counter

import pytest

from cluster.shards import HISTORY_MAX, ring_of
from scheduler import commands
from scheduler.engine import draft
from scheduler.state import OwnersResult, State
from scheduler.state.shards import PROBES
from tests.support.scheduler_world import World, job

ALL = ("n1", "n2", "n3")


class Sharded(World):
    def own(self, *owners: str, epoch: int | None = None) -> OwnersResult:
        epoch = self.state.books.shards.epoch + 1 if epoch is None else epoch
        return self.apply(commands.SetOwners(epoch, owners, "n1", "a test", self.now_ms))

    def owner(self, node: str) -> str | None:
        return self.state.books.shards.owner(node)

    def plan_at(self, epoch: int, *placements: commands.Placement) -> dict[str, str]:
        """Refusal codes by allocation."""
        result = self.apply(commands.Plan(placements, "n2", "test", self.now_ms, epoch))
        return {refusal.allocation: refusal.code for refusal in result.refused}


@pytest.fixture
def world() -> Sharded:
    return Sharded(*(f"a{number}" for number in range(12)))


def test_nobody_owns_anything_before_the_first_epoch(world: Sharded) -> None:
    assert world.state.books.shards.epoch == 0
    assert world.owner("a1") is None
    assert [node["owner"] for node in world.state.nodes()] == [None] * 12


def test_owners_are_put_in_force_by_the_next_epoch_alone(world: Sharded) -> None:
    granted = world.own("n2", "n1", "n3", "n1")
    assert (granted.ok, granted.epoch, granted.owners) == (True, 1, ALL)
    ((kind, fields),) = granted.changes
    assert (kind, fields["owners"], fields["epoch"], fields["by"]) == ("shard", list(ALL), 1, "n1")
    assert {node["owner"] for node in world.state.nodes()} == set(ALL)
    assert fields["probes"] == [world.owner(key) for key in PROBES]
    for epoch in (0, 1, 3):
        assert world.own("n1", epoch=epoch).code == "stale-epoch"
    assert world.own().code == "bad-owners"
    assert world.state.books.shards.owners == ALL


def test_a_placement_tells_whose_its_node_was_when_it_was_planned(world: Sharded) -> None:
    world.own("n1", "n2", "n3")
    world.own("n1", "n2")
    world.submit(job(replicas=12))
    for number, node in enumerate(f"a{number}" for number in range(12)):
        placement = world.at(f"default/web.{number}", node)
        done = world.apply(commands.Plan((placement,), "n1", "test", world.now_ms, 1))
        told = done.changes[0][1]
        owned = ring_of(("n1", "n2", "n3")).owner(node)
        assert (told["ring"], told["ring_now"], told["owner_then"]) == (1, 2, owned)
        assert (told["do"] == "bind") is (owned == told["owner"])
    assert world.state.books.shards.owners_at(0) == ()
    assert world.state.books.shards.owners_at(7) is None


def test_only_placements_on_nodes_that_moved_after_the_plans_epoch_are_refused(world: Sharded) -> None:
    world.own(*ALL)
    moved = next(node for node in world.state.books.nodes.names if world.owner(node) == "n2")
    stayed = next(node for node in world.state.books.nodes.names if world.owner(node) == "n3")
    world.submit(job(replicas=4))
    world.own("n1", "n3")
    refused = world.plan_at(1, world.at("default/web.0", moved), world.at("default/web.1", stayed))
    assert refused == {"default/web.0": "node-moved"}
    assert world.plan_at(2, world.at("default/web.0", moved)) == {}


def test_a_node_that_moved_away_and_back_refuses_plans_of_before(world: Sharded) -> None:
    world.own(*ALL)
    moved = next(node for node in world.state.books.nodes.names if world.owner(node) == "n2")
    world.submit(job(replicas=2))
    world.own("n1", "n3")
    world.own(*ALL)
    assert world.plan_at(1, world.at("default/web.0", moved)) == {"default/web.0": "node-moved"}
    assert world.plan_at(3, world.at("default/web.0", moved)) == {}


def test_a_plan_older_than_the_remembered_owners_is_refused_everywhere(world: Sharded) -> None:
    for number in range(HISTORY_MAX + 2):
        world.own("n1", *ALL[: number % 2 + 1])
    stayed = next(node for node in world.state.books.nodes.names if world.owner(node) == "n1")
    world.submit(job(replicas=3))
    epoch = world.state.books.shards.epoch
    assert len(world.state.books.shards.history) == HISTORY_MAX
    assert world.plan_at(epoch - HISTORY_MAX, world.at("default/web.0", stayed)) == {"default/web.0": "node-moved"}
    assert world.plan_at(epoch - HISTORY_MAX + 1, world.at("default/web.0", stayed)) == {}


def test_an_attempt_planned_by_two_replicas_is_placed_once(world: Sharded) -> None:
    world.own(*ALL)
    world.submit(job())
    placement = world.at("default/web.0", "a1")
    assert world.plan_at(1, placement) == {}
    assert world.plan_at(1, placement) == {"default/web.0": "already-placed"}
    assert world.plan_at(1, world.at("default/web.0", "a2", attempt=1)) == {"default/web.0": "already-placed"}


def test_owners_survive_a_snapshot_and_are_part_of_the_digest(world: Sharded) -> None:
    before = world.state.digest()
    world.own(*ALL)
    world.own("n1", "n3")
    assert world.state.digest() != before
    frozen = world.state.freeze()
    copy = State()
    copy.restore(world.state.index, world.state.term, frozen.chunks())
    assert copy.digest() == world.state.digest()
    assert copy.books.shards.history == world.state.books.shards.history
    assert copy.nodes() == world.state.nodes()


def test_a_draft_looks_on_its_own_arcs_first_and_then_everywhere(world: Sharded) -> None:
    world.own(*ALL)
    own = [node for node in world.state.books.nodes.names if world.owner(node) == "n2"]
    assert 0 < len(own) < 12
    for number in range(60):  # 4 of 1000m fill a node of 4000m
        world.submit(job(f"one{number}", cpu_millicores=1000))
    made = draft(world.state, world.now_ms, owner="n2")
    assert made.ring_epoch == 1
    where = [placement.node for placement in made.placements]
    assert len(where) == 12 * 4
    assert set(where[: 4 * len(own)]) == set(own)
    assert Counter(where) == dict.fromkeys(world.state.books.nodes.names, 4)


def test_a_job_spreads_beyond_the_own_arcs_before_it_doubles_up(world: Sharded) -> None:
    world.own(*ALL)
    world.submit(job(replicas=12))
    made = draft(world.state, world.now_ms, owner="n2")
    assert Counter(placement.node for placement in made.placements) == {f"a{number}": 1 for number in range(12)}
    assert world.owner(made.placements[0].node) == "n2"


def test_a_draft_takes_only_the_jobs_it_is_told_to(world: Sharded) -> None:
    world.own(*ALL)
    for number in range(9):
        world.submit(job(f"j{number}"))
    shards = world.state.books.shards
    taken = [
        placement.allocation.rpartition(".")[0]
        for owner in ALL
        for placement in draft(
            world.state, world.now_ms, owner=owner, takes=lambda name, owner=owner: shards.owner(name) == owner
        ).placements
    ]
    assert sorted(taken) == [f"default/j{number}" for number in range(9)]


def test_a_node_that_joins_later_has_its_owner_at_once(world: Sharded) -> None:
    world.own(*ALL)
    assert world.state.world(owner="n1").own is not None
    world.register("late-0")
    seen = world.state.world(owner=str(world.owner("late-0"))).own
    assert seen is not None
    assert len(seen) == 13
    assert seen[12]
