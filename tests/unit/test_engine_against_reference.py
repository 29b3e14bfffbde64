"""The vectorised engine decides exactly what a slow, plain one decides."""

from __future__ import annotations

from dataclasses import dataclass, field
from hashlib import blake2b

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scheduler.engine.decision import Table, place, place_all
from scheduler.engine.filters import FILTERS, FITS, verdicts
from scheduler.engine.world import PlacementRequest, World
from scheduler.model import Capacity, Taint, TaintEffect, Toleration

MASK = (1 << 64) - 1


@dataclass
class Node:
    name: str
    capacity: tuple[int, int, int]
    used: list[int]
    ready: bool
    present: bool
    ports: list[int]
    peers: dict[str, int] = field(default_factory=dict)
    labels: dict[str, str] = field(default_factory=dict)
    taints: list[Taint] = field(default_factory=list)


@dataclass(frozen=True)
class Ask:
    job: str
    allocation: str
    need: tuple[int, int, int]
    ports: tuple[int, ...]
    selector: tuple[tuple[str, str], ...] = ()
    tolerations: tuple[Toleration, ...] = ()


def hash_of(text: str) -> int:
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "little")


def mixed(node_hash: int, seed: int) -> int:
    value = node_hash ^ seed
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & MASK
    return value ^ (value >> 31)


def puts_up_with(ask: Ask, taint: Taint) -> bool:
    """Kubernetes' rule, written out."""
    for toleration in ask.tolerations:
        same_effect = toleration.effect in ("", taint.effect)
        same_key = toleration.key in ("", taint.key)
        same_value = toleration.operator == "Exists" or (
            toleration.operator == "Equal" and toleration.value == taint.value
        )
        if toleration.operator in ("Gt", "Lt") and taint.value.isdigit() and toleration.value.isdigit():
            above = int(taint.value) > int(toleration.value)
            below = int(taint.value) < int(toleration.value)
            same_value = above if toleration.operator == "Gt" else below
        if same_effect and same_key and same_value:
            return True
    return False


def first_failing(node: Node, ask: Ask) -> str | None:
    if not node.ready:
        return "node-ready"
    if not node.present:
        return "node-connected"
    if not all(node.labels.get(key) == value for key, value in ask.selector):
        return "node-selector"
    for taint in node.taints:
        if taint.effect != "PreferNoSchedule" and not puts_up_with(ask, taint):
            return "taints"
    for name, capacity, used, need in zip(("cpu", "memory", "pids"), node.capacity, node.used, ask.need, strict=True):
        if need > 0 and used + need > capacity:
            return name
    return "ports" if any(port in node.ports for port in ask.ports) else None


def score(node: Node, ask: Ask) -> int:
    shares = []
    for capacity, used, need in list(zip(node.capacity, node.used, ask.need, strict=True))[:2]:
        whole = min(capacity, 1 << 46)
        left = min(max(whole - used - need, 0), whole)
        shares.append(left * 65536 // whole if whole else 0)
    spread = 65536 // (1 + node.peers.get(ask.job, 0))
    disliked = sum(taint.effect == "PreferNoSchedule" and not puts_up_with(ask, taint) for taint in node.taints)
    return (40 * shares[0] + 40 * shares[1] + 80 * spread + 96 * (65536 // (1 + disliked))) // 256


def slow_place(nodes: list[Node], ask: Ask) -> Node | None:
    best: tuple[int, int, int] | None = None
    for slot, node in enumerate(nodes):
        if first_failing(node, ask) is None:
            key = (-score(node, ask), mixed(hash_of(node.name) >> 1, hash_of(ask.allocation)), slot)
            best = key if best is None or key < best else best
    return None if best is None else nodes[best[2]]


def slow_book(node: Node, ask: Ask) -> None:
    for position in range(3):
        node.used[position] += ask.need[position]
    node.ports.extend(ask.ports)
    node.peers[ask.job] = node.peers.get(ask.job, 0) + 1


def world_of(nodes: list[Node]) -> World:
    ports: dict[int, dict[int, int]] = {}
    for slot, node in enumerate(nodes):
        for port in node.ports:
            ports.setdefault(port, {})[slot] = 0
    labels: dict[tuple[str, str], dict[int, None]] = {}
    taints: dict[Taint, dict[int, None]] = {}
    for slot, node in enumerate(nodes):
        for label in node.labels.items():
            labels.setdefault(label, {})[slot] = None
        for taint in node.taints:
            taints.setdefault(taint, {})[slot] = None
    return World(
        labels=labels,
        taints=taints,
        names=tuple(node.name for node in nodes),
        capacity=tuple(np.array([node.capacity[k] for node in nodes], dtype=np.int64) for k in range(3)),
        used=tuple(np.array([node.used[k] for node in nodes], dtype=np.int64) for k in range(3)),
        generation=np.ones(len(nodes), dtype=np.int64),
        ready=np.array([node.ready for node in nodes], dtype=bool),
        present=np.array([node.present for node in nodes], dtype=bool),
        hashes=np.array([hash_of(node.name) >> 1 for node in nodes], dtype=np.int64),
        ports=ports,
    )


def request_of(nodes: list[Node], ask: Ask) -> PlacementRequest:
    peers = {slot: node.peers[ask.job] for slot, node in enumerate(nodes) if ask.job in node.peers}
    return PlacementRequest(ask.allocation, Capacity(*ask.need), ask.ports, peers, ask.selector, ask.tolerations)


capacities = st.tuples(
    st.sampled_from([0, 100, 1000, 4000]), st.sampled_from([0, 64, 1 << 30, 1 << 50]), st.integers(0, 50)
)
mostly = st.sampled_from([True, True, True, False])
taints = st.builds(
    Taint, st.sampled_from(["gpu", "db"]), st.sampled_from(["", "x", "3", "12"]), st.sampled_from(TaintEffect)
)
tolerations = st.builds(
    Toleration,
    st.sampled_from(["", "gpu", "db"]),
    st.sampled_from(["Equal", "Exists", "Gt", "Lt"]),
    st.sampled_from(["", "x", "3", "7"]),
    st.sampled_from(["", *(effect.value for effect in TaintEffect)]),
)


@st.composite
def worlds(draw: st.DrawFn) -> list[Node]:
    nodes = []
    for number in range(draw(st.integers(0, 7))):
        capacity = draw(capacities)
        used = [draw(st.integers(0, whole + whole // 4)) if draw(st.booleans()) else 0 for whole in capacity]
        taken = draw(st.lists(st.sampled_from([80, 81]), unique=True, max_size=2))
        peers = draw(st.dictionaries(st.sampled_from(["default/a", "default/b"]), st.integers(1, 3), max_size=2))
        labels = draw(st.dictionaries(st.sampled_from(["disk", "zone"]), st.sampled_from(["a", "b"]), max_size=2))
        marks = draw(st.lists(taints, max_size=2, unique_by=lambda taint: (taint.key, taint.effect)))
        if draw(mostly):
            marks = []
        nodes.append(Node(f"n{number}", capacity, used, draw(mostly), draw(mostly), taken, peers, labels, marks))
    return nodes


@st.composite
def asks(draw: st.DrawFn) -> list[Ask]:
    jobs = {
        name: (
            draw(
                st.tuples(st.sampled_from([0, 50, 500]), st.sampled_from([0, 32, 1 << 20, 1 << 45]), st.integers(0, 9))
            ),
            tuple(draw(st.lists(st.sampled_from([80, 81, 82]), unique=True, max_size=2))),
            draw(st.sampled_from([(), (), (("disk", "a"),), (("disk", "b"), ("zone", "a"))])),
            tuple(draw(st.lists(tolerations, max_size=2))),
        )
        for name in ("default/a", "default/b", "default/c")
    }
    order = draw(st.lists(st.sampled_from(sorted(jobs)), min_size=1, max_size=12))
    return [Ask(name, f"{name}.{position}", *jobs[name]) for position, name in enumerate(order)]


@settings(max_examples=150, deadline=None)
@given(worlds(), asks())
def test_the_class_table_decides_like_the_plain_reference(nodes: list[Node], wanted: list[Ask]) -> None:
    world = world_of(nodes)
    requests = [(ask.job, request_of(nodes, ask)) for ask in wanted]
    decisions = place_all(world, requests)
    for ask, decision in zip(wanted, decisions, strict=True):
        expected = slow_place(nodes, ask)
        assert decision.node == (expected.name if expected else None)
        if expected is not None:
            assert decision.score == score(expected, ask)
            slow_book(expected, ask)


@settings(max_examples=80, deadline=None)
@given(worlds(), asks())
def test_one_decision_without_the_table_is_the_same(nodes: list[Node], wanted: list[Ask]) -> None:
    ask = wanted[0]
    expected = slow_place(nodes, ask)
    assert place(world_of(nodes), request_of(nodes, ask)).node == (expected.name if expected else None)


@settings(max_examples=80, deadline=None)
@given(worlds(), asks())
def test_each_node_is_given_its_first_failing_filter(nodes: list[Node], wanted: list[Ask]) -> None:
    world = world_of(nodes)
    found = verdicts(world, request_of(nodes, wanted[0]), world.used)
    names = [None if code == FITS else FILTERS[code] for code in found]
    assert names == [first_failing(node, wanted[0]) for node in nodes]


@settings(max_examples=30, deadline=None)
@given(worlds(), asks())
def test_deciding_changes_nothing_of_the_world(nodes: list[Node], wanted: list[Ask]) -> None:
    world = world_of(nodes)
    before = [array.copy() for array in (*world.capacity, *world.used)]
    place_all(world, [(ask.job, request_of(nodes, ask)) for ask in wanted])
    for array, was in zip((*world.capacity, *world.used), before, strict=True):
        assert (array == was).all()


def test_a_class_dropped_from_the_table_is_computed_anew_with_all_bookings() -> None:
    nodes = [Node(f"n{k}", (4000, 1 << 30, 100), [0, 0, 0], True, True, []) for k in range(5)]
    wanted = [Ask(f"default/{name}", f"default/{name}.{n}", (100, 64, 1), ()) for n in range(6) for name in "abc"]
    table = Table(world_of(nodes))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("scheduler.engine.decision.CLASSES_MAX", 1)
        for ask in wanted:
            decision = table.place(ask.job, PlacementRequest(ask.allocation, Capacity(*ask.need), ask.ports))
            expected = slow_place(nodes, ask)
            assert expected is not None
            assert decision.node == expected.name
            table.book(ask.job, PlacementRequest(ask.allocation, Capacity(*ask.need), ask.ports), decision.slot or 0)
            slow_book(expected, ask)
