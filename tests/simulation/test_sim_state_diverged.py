"""A whole cluster, one replica of which applies something else: it is healed, and no workload notices."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from msgspec.structs import replace
from sim_cluster import REPLICAS, SimCluster, quiet
from sim_nodes import sim_run

from chaos.sim.lives import LIFE
from chaos.sim.world import World
from cluster.settings import RaftSection
from scheduler.state import submission

EVERY = 32
FOREVER = sim_run("forever", 0, "obeys", "alone")


@pytest.fixture(autouse=True)
def silence() -> Iterator[None]:
    with quiet():
        yield


def told(world: World, node: str, kind: str) -> list[dict[str, Any]]:
    lives = world.recording.lives
    return [record[5] for life, records in lives.items() for record in records if life[0] == node and record[4] == kind]


def leader_of(world: World) -> str:
    leads = [(event["term"], node) for node in REPLICAS for event in told(world, node, "role")
             if event["role"] == "leader"]  # fmt: skip
    return max(leads)[1]


def breaks_on(monkeypatch: pytest.MonkeyPatch) -> dict[str, bool]:
    """The submissions named `odd…` are applied in another way by the replicas in the result."""
    odd: dict[str, bool] = {}
    original = submission.submit

    def submit(books: Any, index: int, command: Any) -> Any:
        host = LIFE.get().host.name
        if odd.get(host) and command.job.workload.job.startswith("odd"):
            command = replace(command, request_id=f"by {host}")
        return original(books, index, command)

    monkeypatch.setattr(submission, "submit", submit)
    return odd


def settings(monkeypatch: pytest.MonkeyPatch) -> None:
    import sim_cluster

    original = sim_cluster.config_of
    monkeypatch.setattr(
        sim_cluster, "config_of", lambda name: replace(original(name), raft=RaftSection(digest_every=EVERY))
    )


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("whose", ["the leader's", "a follower's"])
def test_a_wrong_state_is_replaced_and_its_agents_go_on_elsewhere(
    seed: int, whose: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings(monkeypatch)
    odd = breaks_on(monkeypatch)
    with World(seed, policy="random") as world:
        cluster = SimCluster(world, nodes=6)
        cluster.submit("one", *FOREVER, on_disconnect="stop")
        [(_, epoch, where)] = cluster.until(cluster.running)
        first = leader_of(world)
        wrong = first if whose == "the leader's" else next(name for name in REPLICAS if name != first)
        odd[wrong] = True
        cluster.submit("odd", *FOREVER)
        world.run_for(0.5)  # followers apply after the answer
        odd[wrong] = False
        for number in range(EVERY):
            cluster.submit(f"j{number}", *FOREVER, kind="batch")
        world.run_for(5.0)

        [given_up] = [event for event in told(world, wrong, "note") if "is given up" in event["text"]]
        assert given_up["index"] % EVERY == 0
        assert [event["op"] for event in told(world, wrong, "disk")].count("state-refetch") == 1
        assert (leader_of(world) == first) == (whose != "the leader's"), "a leader hands over, nobody else is deposed"
        left = [
            event for event in told(world, wrong, "conn") if event["what"] == "closed" and event["why"] != "replaced"
        ]
        assert len(left) >= 1, "it held sessions, and sent their agents elsewhere"
        status = cluster.call("GET", "/v1/status")
        assert {row["state"] for row in status["replicas"]} == {"ok"}
        assert len({row["digest"] for row in status["replicas"]}) == 1
        assert ("default/one.0", epoch, where) in cluster.running(), "it was never without a lease"
        assert len(cluster.running()) == 2 + EVERY
        assert cluster.store.refused == 0
        assert not world.loop.failures
