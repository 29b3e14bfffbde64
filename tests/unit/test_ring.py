"""The consistent-hash ring (A10): who owns a key, how evenly, and what moves when owners change."""

from __future__ import annotations

import pytest

from cluster.ring import SPACE, VIRTUAL_NODES, Ring, points_of, position, positions

KEYS = [f"node-{number}" for number in range(10_000)]
NAMES = [f"n{number}" for number in range(1, 11)]


def owners_of(ring: Ring) -> dict[str, str | None]:
    return {key: ring.owner(key) for key in KEYS}


def test_a_position_lies_on_the_ring_and_never_changes() -> None:
    assert all(0 <= position(key) < SPACE for key in KEYS)
    assert [position(key) for key in ("a1", "default/web", "ß")] == [213875138, 1075561383, 2597424683]
    assert points_of("n1")[:3] == [2833211508, 131520789, 1237048854]


def test_a_key_goes_to_the_first_point_clockwise_and_wraps() -> None:
    ring = Ring(["n1", "n2"], virtual_nodes=2)
    points = ring.points.tolist()
    holders = [ring.owner_at(point) for point in points]
    for before, point, holder in zip(points, points[1:], holders[1:], strict=False):
        assert ring.owner_at(before + 1) == ring.owner_at(point) == holder
    assert ring.owner_at(points[-1] + 1) == ring.owner_at(SPACE - 1) == ring.owner_at(0) == holders[0]


def test_the_order_of_owners_and_repetitions_do_not_matter() -> None:
    assert owners_of(Ring(["n3", "n1", "n2", "n1"])) == owners_of(Ring(["n1", "n2", "n3"]))


def test_nobody_owns_keys_of_an_empty_ring() -> None:
    ring = Ring([])
    assert ring.owner("a1") is None
    assert ring.numbers_at(positions(["a1", "a2"])).tolist() == [-1, -1]


def test_many_keys_at_once_get_the_owners_they_get_one_by_one() -> None:
    ring = Ring(NAMES[:5])
    numbers = ring.numbers_at(positions(KEYS)).tolist()
    assert [ring.owners[number] for number in numbers] == list(owners_of(ring).values())


@pytest.mark.parametrize("count", range(1, 10))
def test_an_owner_that_joins_takes_its_share_and_nothing_else_moves(count: int) -> None:
    before, after = owners_of(Ring(NAMES[:count])), owners_of(Ring(NAMES[: count + 1]))
    moved = [key for key in KEYS if before[key] != after[key]]
    assert {after[key] for key in moved} == {NAMES[count]}
    assert len(moved) / len(KEYS) == pytest.approx(1 / (count + 1), rel=0.15)


@pytest.mark.parametrize("gone", NAMES[:5])
def test_an_owner_that_leaves_gives_its_keys_to_all_others_and_moves_no_other(gone: str) -> None:
    five = NAMES[:5]
    before, after = owners_of(Ring(five)), owners_of(Ring([name for name in five if name != gone]))
    moved = [key for key in KEYS if before[key] != after[key]]
    assert moved == [key for key in KEYS if before[key] == gone]
    heirs = [after[key] for key in moved]
    assert all(heirs.count(name) > len(moved) / 8 for name in five if name != gone)


@pytest.mark.parametrize("count", [2, 3, 5, 10])
def test_shares_lie_within_fifteen_percent_of_the_mean(count: int) -> None:
    ring = Ring(NAMES[:count])
    assert len(ring.points) == count * VIRTUAL_NODES
    shares = ring.shares()
    assert sum(shares.values()) == pytest.approx(1)
    owned = list(owners_of(ring).values())
    for name in ring.owners:
        assert shares[name] * count == pytest.approx(1, abs=0.15)
        assert owned.count(name) * count / len(KEYS) == pytest.approx(1, abs=0.15)


def test_three_owners_share_evenly_whatever_they_are_called() -> None:
    for number in range(40):
        owners = [f"replica-{number}-{letter}.example" for letter in "abc"]
        assert all(share * 3 == pytest.approx(1, abs=0.15) for share in Ring(owners).shares().values())
