"""Whole nodes, production agents and sandboxers, under real replicas in virtual time."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from sim_cluster import SimCluster, quiet
from sim_nodes import sim_run, truth_spans

from chaos.breaks import BREAKS
from chaos.sim.swarm.kinds import SANDBOXER_STEPS
from chaos.sim.syscalls import STEPS
from chaos.sim.world import World

FOREVER = sim_run("forever", 0, "obeys", "alone")
STUBBORN = sim_run("forever", 0, "ignores", "alone")


@pytest.fixture(autouse=True)
def silence() -> Iterator[None]:
    with quiet():
        yield


def placed(cluster: SimCluster, name: str, *command: str, **more: Any) -> tuple[int, str]:
    """(epoch, node) of the one allocation of a new job, once it runs."""
    cluster.submit(name, *command, **more)
    [(_, epoch, node)] = cluster.until(lambda: [each for each in cluster.running() if each[0] == f"default/{name}.0"])
    return epoch, node


@pytest.mark.parametrize("policy", ["fifo", "random"])
def test_batch_jobs_run_once_and_their_codes_are_committed(policy: Any) -> None:
    with World(1, policy=policy) as world:
        cluster = SimCluster(world, nodes=4)
        for number in range(10):
            cluster.submit(f"b{number}", *sim_run("300", number % 2, "alone"), kind="batch", backoffLimit=0)
        cluster.until(lambda: not cluster.running() and len(truth_spans(world)) == 10)
        world.run_for(1.0)
        for number in range(10):
            [allocation] = cluster.allocations(f"b{number}")
            assert allocation["exit"]["code"] == number % 2
        assert all(node.failures == [] for node in cluster.nodes.values())
        assert not world.loop.failures


def test_an_agent_that_comes_back_finds_its_workload_untouched() -> None:
    with World(2) as world:
        cluster = SimCluster(world, nodes=2)
        epoch, name = placed(cluster, "web", *FOREVER)
        node = cluster.nodes[name]
        node.crash("agent")
        world.run_for(2.0)
        assert node.running() == [("default/web.0", epoch)]
        node.start()
        cluster.until(lambda: node.agent.alive)
        world.run_for(5.0)
        assert cluster.running() == [("default/web.0", epoch, name)]
        assert len(truth_spans(world)) == 1, "one program ran, once"


@pytest.mark.parametrize("part", ["sandboxer", "both"])
@pytest.mark.parametrize("on_disconnect", ["keep", "stop"])
def test_after_its_sandboxers_death_keep_is_adopted_and_stop_is_replaced(part: str, on_disconnect: str) -> None:
    with World(3) as world:
        cluster = SimCluster(world, nodes=3)
        epoch, name = placed(cluster, "web", *FOREVER, on_disconnect=on_disconnect)
        cluster.nodes[name].crash(part)
        cluster.nodes[name].start()
        world.run_for(15.0)
        [(_, later, where)] = cluster.until(cluster.running)
        assert (later == epoch and where == name) if on_disconnect == "keep" else later > epoch
        [allocation] = [each for each in cluster.allocations("web") if each["state"] == "running"]
        assert (allocation["epoch"], allocation["node"]) == (later, where)
        assert not world.loop.failures


def test_a_node_that_loses_power_comes_back_empty_and_its_work_is_placed_anew() -> None:
    with World(4) as world:
        cluster = SimCluster(world, nodes=3)
        epoch, name = placed(cluster, "web", *FOREVER, on_disconnect="stop")
        cluster.nodes[name].power_off()
        world.run_for(1.0)
        assert cluster.running() == []
        cluster.nodes[name].start()
        [(_, later, _)] = cluster.until(cluster.running)
        assert later > epoch


def overlaps_ms(world: World) -> int:
    """For how long two processes of one allocation ran, by the kernels' word."""
    total = 0
    by_name: dict[str, list[tuple[int, int]]] = {}
    for allocation, _, begin, end in truth_spans(world):
        for other_begin, other_end in by_name.setdefault(allocation, []):
            total += max(0, min(end, other_end) - max(begin, other_begin))
        by_name[allocation].append((begin, end))
    return total


@pytest.mark.parametrize("seed", range(4))
def test_an_isolated_nodes_singleton_is_fenced_before_its_replacement_starts(seed: int) -> None:
    with World(seed, policy="random") as world:
        cluster = SimCluster(world, nodes=3)
        epoch, name = placed(cluster, "one", *STUBBORN, on_disconnect="stop")
        cluster.isolate(name)
        [(_, later, where)] = cluster.until(lambda: [each for each in cluster.running() if each[2] != name])
        assert later > epoch
        assert where != name
        assert overlaps_ms(world) == 0
        cluster.heal()
        world.run_for(5.0)
        assert [each[2] for each in cluster.running()] == [where]
        assert cluster.store.refused == 0


def test_without_fencing_the_kernels_show_two_processes_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    broken = BREAKS["no-fencing"]
    monkeypatch.setattr(f"{broken.module}.{broken.function}", broken.replacement)
    with World(0, policy="random") as world:
        cluster = SimCluster(world, nodes=3)
        _, name = placed(cluster, "one", *STUBBORN, on_disconnect="stop")
        cluster.isolate(name)
        cluster.until(lambda: len(cluster.running()) == 2)
        world.run_for(2.0)
        assert overlaps_ms(world) > 1_000


def test_a_paused_machine_may_run_two_processes_but_has_no_second_effect() -> None:
    words = ("/bin/sim-run", "forever", "0", "obeys", "alone", "lean")
    with World(5) as world:
        cluster = SimCluster(world, nodes=3)
        epoch, name = placed(cluster, "one", *words, on_disconnect="stop")
        cluster.nodes[name].pause()
        cluster.until(lambda: [each for each in cluster.running() if each[1] > epoch])
        world.run_for(3.0)
        before = cluster.store.accepted
        cluster.nodes[name].resume()
        cluster.until(lambda: cluster.store.refused)
        assert cluster.store.accepted >= before
        cluster.until(lambda: [each[1] > epoch for each in cluster.running()] == [True])
        refused = [fields for fields in cluster.effects() if not fields["accepted"]]
        assert {fields["node"] for fields in refused} == {name}


@pytest.mark.parametrize("seed", range(8))
def test_a_sandboxer_and_a_session_lost_at_the_same_moment_are_both_replaced(seed: int) -> None:
    with World(seed, policy="random") as world:
        cluster = SimCluster(world, nodes=3)
        _, name = placed(cluster, "web", *FOREVER)
        node = cluster.nodes[name]
        before = node.sandboxer
        node.pause()
        world.run_for(6.0)
        node.crash("sandboxer")
        node.resume()
        cluster.until(lambda: node.sandboxer is not before and node.sandboxer.ready.done())
        world.run_for(5.0)
        [allocation] = cluster.allocations("web")
        assert allocation["state"] == "running"


def test_a_wiped_directory_becomes_another_installation_and_its_work_goes_on() -> None:
    with World(6) as world:
        cluster = SimCluster(world, nodes=3)
        epoch, name = placed(cluster, "web", *FOREVER)
        node = cluster.nodes[name]
        node.wipe()
        node.start()
        world.run_for(10.0)
        assert cluster.running() == [("default/web.0", epoch, name)], "the cgroup tree is the truth"
        [allocation] = cluster.allocations("web")
        assert allocation["state"] == "running"


def test_the_same_seed_gives_the_same_trace_of_the_whole_cluster() -> None:
    def digest(seed: int) -> str:
        with World(seed, policy="random") as world:
            cluster = SimCluster(world, nodes=3)
            _, name = placed(cluster, "web", "/bin/sim-run", "forever", "0")
            cluster.nodes[name].crash("both")
            cluster.nodes[name].start()
            world.run_for(5.0)
            return world.recording.digest()

    assert digest(1) == digest(1)
    assert digest(1) != digest(2)


def test_a_campaign_can_name_every_step_at_which_a_sandboxer_dies() -> None:
    assert len(STEPS) == SANDBOXER_STEPS
