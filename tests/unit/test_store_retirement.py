"""A damaged store is taken out of service, whole, and an empty one takes its place."""

from __future__ import annotations

from random import Random

import pytest

from chaos.disk import ForgettingDisk
from cluster.dice import SeededDice
from raft.errors import StoreCloned, StoreCorrupt, StoreError, StoreForeign
from raft.messages import COMMAND, Entry, HardState
from raft.store.identity import IDENTITY_NAME, read_identity
from raft.store.log_store import LogStore
from raft.store.segments import segment_name


def opened(disk: ForgettingDisk, seed: int = 1, *, node: str = "n1", retire: bool = True) -> LogStore:
    return LogStore.open(
        disk, node_id=node, cluster_name="blue", dice=SeededDice(seed), segment_bytes=8192, retire_damaged=retire
    )


def damaged(seed: int = 0) -> tuple[ForgettingDisk, str]:
    """A disk whose log is damaged in the middle, and the id of its store."""
    disk = ForgettingDisk(Random(seed))
    store = opened(disk)
    for number in range(1, 6):
        store.append(HardState(3, "n2"), [Entry(3, number, COMMAND, b"%d" % number)])
    store.close()
    disk.rot(segment_name(1), 530, 0xFF)
    return disk.reopen(), store.store_id


def set_aside(disk: ForgettingDisk) -> list[str]:
    return sorted(name for name in disk._platter.durable_names if "/" in name)


def test_a_damaged_store_is_set_aside_and_an_empty_one_with_another_id_begins() -> None:
    disk, old = damaged()
    store = opened(disk, 2)
    assert store.store_id != old
    assert store.retired is not None
    assert (store.retired.store, store.retired.folder) == (old, f"retired-{old}")
    assert "damaged" in store.retired.why
    assert (store.recovered.entries, store.hard_state) == ((), HardState(0, None))
    assert f"retired-{old}/{segment_name(1)}" in set_aside(disk)
    store.append(HardState(1, None), [Entry(1, 1, COMMAND, b"new")])
    store.close()
    again = opened(disk.reopen(), 3)
    assert (again.store_id, again.replaces, again.retired) == (store.store_id, old, None)
    assert len(again.recovered.entries) == 1


def test_a_damaged_store_is_refused_where_nobody_could_teach_a_new_one() -> None:
    disk, old = damaged()
    with pytest.raises(StoreCorrupt):
        opened(disk, retire=False)
    assert not set_aside(disk)
    identity = read_identity(disk)
    assert identity is not None
    assert identity.store == old


@pytest.mark.parametrize("how", ["garbage", "missing"])
def test_a_log_without_a_readable_identity_is_set_aside_too(how: str) -> None:
    disk, _ = damaged()
    if how == "missing":
        disk.remove(IDENTITY_NAME)
    else:
        disk.rot(IDENTITY_NAME, 20, 0xFF)
    store = opened(disk, 2)
    assert store.replaces
    assert segment_name(1) in [name.split("/")[1] for name in set_aside(disk)]
    assert not store.recovered.entries


def test_another_replicas_or_a_copied_directory_is_refused_and_left_alone() -> None:
    disk, _ = damaged()
    with pytest.raises(StoreForeign):
        opened(disk, node="n2")
    with pytest.raises(StoreCloned):
        opened(disk.copy())
    assert not set_aside(disk)


@pytest.mark.parametrize("torn", [False, True])
def test_a_crash_anywhere_in_the_retirement_ends_in_one_new_store_that_may_not_found(torn: bool) -> None:
    whole, _ = damaged()
    before = whole.operations
    opened(whole, 2).close()
    for point in range(1, whole.operations - before + 1):
        disk, old = damaged()
        disk.torn = torn
        disk.crash_at(point)
        with pytest.raises((StoreError, OSError)):
            opened(disk, 2)
        disk = disk.reopen()
        store = opened(disk, 3)
        assert store.store_id != old
        assert store.replaces == old, f"crash at operation {point}"
        assert not store.recovered.entries
        assert [name for name in set_aside(disk) if name.startswith(f"retired-{old}/{segment_name(1)}")]
        store.close()


def test_what_was_set_aside_before_is_not_overwritten() -> None:
    disk, old = damaged()
    disk.set_aside(segment_name(1), f"retired-{old}")
    store = opened(disk, 2)
    assert store.replaces == old
    store.close()
    disk = disk.reopen()
    disk.rot(IDENTITY_NAME, 20, 0xFF)
    opened(disk, 3)
    assert f"retired-{old}/{segment_name(1)}" in set_aside(disk)
