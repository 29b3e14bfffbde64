"""From faults to links: who is cut off from whom."""

from __future__ import annotations

from chaos.sim.swarm.kinds import KINDS, Fault
from chaos.sim.swarm.targets import links_of, resolved

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


def test_every_network_fault_hits_links_and_no_other_does():
    for kind in KINDS.values():
        hit = links(kind.name, REPLICAS if kind.name == "ring" else ("n1", "n2"), ("n3",))
        assert bool(hit) == (kind.group == "network"), kind.name


def test_the_leader_is_who_leads_when_the_fault_fires():
    fault = Fault("kill", 0, 1, ("leader",))
    assert resolved(fault, "n2", REPLICAS).nodes == ("n2",)
    assert resolved(fault, None, REPLICAS).nodes == ("n1",), "without one somebody is hit all the same"
    assert resolved(Fault("isolate", 0, 1, ("leader", "n2")), "n2", REPLICAS).nodes == ("n2",)
