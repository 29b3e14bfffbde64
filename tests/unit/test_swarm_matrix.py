"""From faults to links: who is cut off from whom, and what overlapping faults come to."""

from __future__ import annotations

from chaos.sim.swarm.kinds import KINDS, Fault
from chaos.sim.swarm.matrix import NONE, Effect, Matrix, effect_of, links_of

REPLICAS = ("n1", "n2", "n3", "n4", "n5")
AGENTS = ("a1", "a2")


def links(kind, nodes=(), others=()):
    return set(links_of(Fault(kind, 0, 1, tuple(nodes), tuple(others)), REPLICAS, AGENTS))


def test_a_partition_cuts_both_ways_and_nothing_within_a_half():
    assert links("partition", ("n1", "a1"), ("n2",)) == {("n1", "n2"), ("n2", "n1"), ("a1", "n2"), ("n2", "a1")}


def test_a_one_way_partition_leaves_the_second_half_heard():
    assert links("one-way-partition", ("n1",), ("n2", "n3")) == {("n1", "n2"), ("n1", "n3")}


def test_a_deaf_machine_is_heard_and_a_mute_one_hears():
    everybody = {*REPLICAS, *AGENTS}
    assert links("deaf", ("n1",)) == {(each, "n1") for each in everybody - {"n1"}}
    assert links("mute", ("n1",)) == {("n1", each) for each in everybody - {"n1"}}
    assert links("isolate", ("n1",)) == links("deaf", ("n1",)) | links("mute", ("n1",))


def test_in_a_ring_of_five_everybody_hears_two_and_is_in_a_majority_of_its_own():
    cut = links("ring", REPLICAS)
    for name in REPLICAS:
        assert len({target for source, target in cut if source == name}) == 2
    assert ("n1", "n2") not in cut
    assert ("n5", "n1") not in cut


def test_bad_links_of_some_machines_are_bad_between_them_too():
    hit = links("loss", ("n1", "n2"))
    assert ("n1", "n2") in hit
    assert ("n3", "n1") in hit
    assert ("n3", "n4") not in hit


def test_a_herd_is_all_agents_and_all_replicas():
    assert links("herd", AGENTS) == {pair for a in AGENTS for n in REPLICAS for pair in ((a, n), (n, a))}


def test_every_network_fault_hits_links_or_is_one_of_connections():
    for kind in KINDS.values():
        if kind.group == "network" and kind.name not in ("reset", "refuse"):
            assert links(kind.name, REPLICAS if kind.name == "ring" else ("n1", "n2"), ("n3",)), kind.name


def test_healing_one_fault_leaves_the_other_in_force():
    matrix = Matrix()
    pair = ("n1", "n2")
    matrix.put(1, [pair], effect_of(Fault("partition", 0, 1)))
    matrix.put(2, [pair], effect_of(Fault("delay", 0, 1, amount=100)))
    assert matrix.effect(pair) == Effect(cut=True, latency_us=100, jitter_us=50)
    assert matrix.take(1) == {pair: Effect(latency_us=100, jitter_us=50)}
    assert matrix.take(2) == {pair: NONE}
    assert matrix.take(2) == {}


def test_the_narrowest_bandwidth_and_the_highest_loss_count():
    matrix = Matrix()
    pair = ("n1", "n2")
    matrix.put(1, [pair], effect_of(Fault("throttle", 0, 1, amount=500)))
    matrix.put(2, [pair], effect_of(Fault("throttle", 0, 1, amount=300)))
    matrix.put(3, [pair], effect_of(Fault("loss", 0, 1, amount=20)))
    matrix.put(4, [pair], effect_of(Fault("loss", 0, 1, amount=10)))
    assert matrix.effect(pair) == Effect(bytes_per_s=300, loss_permille=20)
