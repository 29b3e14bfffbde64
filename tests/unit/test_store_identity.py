"""A data directory is used by its own replica, on its own disk, by one process."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from random import Random

import msgspec
import pytest

from chaos.disk import ForgettingDisk
from cluster.dice import SeededDice
from raft.disk import RealDisk
from raft.errors import StoreCloned, StoreCorrupt, StoreError, StoreForeign, StoreLocked, StoreTooNew
from raft.messages import COMMAND, Entry, HardState
from raft.protocols import Disk
from raft.store.identity import IDENTITY_NAME, read_identity, write_identity
from raft.store.log_store import LogStore


def opened(disk: Disk, *, node: str = "n1", cluster: str = "blue", seed: int = 1) -> LogStore:
    return LogStore.open(disk, node_id=node, cluster_name=cluster, dice=SeededDice(seed), segment_bytes=8192)


def closed_store(disk: ForgettingDisk) -> ForgettingDisk:
    store = opened(disk)
    store.append(HardState(1, "n1"), [Entry(1, 1, COMMAND, b"promise")])
    store.close()
    return disk.reopen()


def rewrite_identity(disk: ForgettingDisk, **changes: object) -> None:
    identity = read_identity(disk)
    assert identity is not None
    changed = msgspec.structs.replace(identity, **changes)
    write_identity(disk, msgspec.structs.replace(changed, crc32c=changed.seal()))


def test_a_store_keeps_its_random_id() -> None:
    disk = ForgettingDisk(Random(1))
    first = opened(disk)
    first.close()
    again = opened(disk.reopen(), seed=99)
    assert again.store_id == first.store_id
    assert len(first.store_id) == 32
    assert opened(ForgettingDisk(Random(1)), seed=2).store_id != first.store_id


def test_a_directory_of_another_node_is_refused() -> None:
    with pytest.raises(StoreForeign, match="'n1', not to 'n2'") as caught:
        opened(closed_store(ForgettingDisk(Random(1))), node="n2")
    assert caught.value.hint


def test_a_directory_of_another_cluster_is_refused() -> None:
    with pytest.raises(StoreForeign, match="'blue', not to 'red'") as caught:
        opened(closed_store(ForgettingDisk(Random(1))), cluster="red")
    assert caught.value.hint


def test_a_copied_directory_is_refused() -> None:
    with pytest.raises(StoreCloned, match="is a copy") as caught:
        opened(closed_store(ForgettingDisk(Random(1))).copy())
    assert caught.value.hint


def test_a_directory_of_a_newer_version_is_refused() -> None:
    disk = closed_store(ForgettingDisk(Random(1)))
    rewrite_identity(disk, format=2)
    with pytest.raises(StoreTooNew, match="format 2") as caught:
        opened(disk)
    assert caught.value.hint


def test_a_newer_version_with_other_fields_is_named_too() -> None:
    disk = closed_store(ForgettingDisk(Random(1)))
    disk.open(IDENTITY_NAME).write_at(0, b'{"format": 7, "realm": "x"}'.ljust(400))
    with pytest.raises(StoreTooNew, match="format 7"):
        opened(disk)


@pytest.mark.parametrize("offset", [0, 20, 60, 100])
def test_a_damaged_identity_is_refused(offset: int) -> None:
    disk = closed_store(ForgettingDisk(Random(1)))
    disk.rot(IDENTITY_NAME, offset, 0x04)
    with pytest.raises((StoreCorrupt, StoreForeign)):
        opened(disk)


def test_a_refused_directory_is_not_left_locked() -> None:
    disk = closed_store(ForgettingDisk(Random(1)))
    with pytest.raises(StoreForeign):
        opened(disk, node="n2")
    assert opened(disk).last_index == 1


def test_a_log_without_identity_is_not_taken_for_a_new_store() -> None:
    disk = closed_store(ForgettingDisk(Random(1)))
    disk.remove(IDENTITY_NAME)
    with pytest.raises(StoreCorrupt, match="no identity"):
        opened(disk)


def test_an_identity_without_a_log_is_not_taken_for_a_new_store() -> None:
    disk = closed_store(ForgettingDisk(Random(1)))
    for name in disk.names():
        if name != IDENTITY_NAME:
            disk.remove(name)
    with pytest.raises(StoreCorrupt, match="is missing"):
        opened(disk)


def test_making_a_store_may_be_interrupted_anywhere() -> None:
    for point in range(1, 40):
        disk = ForgettingDisk(Random(point), torn=bool(point % 2))
        disk.crash_at(point)
        try:
            opened(disk).close()
        except StoreError:
            disk = disk.reopen()
            opened(disk, seed=2).close()
        else:
            return
    raise AssertionError("making a store takes fewer operations than that")


def test_a_second_process_is_refused_until_the_first_ends(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from raft.disk import RealDisk\n"
        "disk = RealDisk(Path(sys.argv[1])); disk.lock(); print('locked', flush=True); sys.stdin.read()"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert holder.stdin is not None
    assert holder.stdout is not None
    try:
        assert holder.stdout.readline() == "locked\n"
        with pytest.raises(StoreLocked, match="another process") as caught:
            opened(RealDisk(tmp_path))
        assert caught.value.hint
    finally:
        holder.stdin.close()
        holder.wait(10)
        holder.stdout.close()
    opened(RealDisk(tmp_path)).close()


def test_a_path_that_is_no_directory_is_a_clear_error(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("x")
    with pytest.raises(StoreError, match="cannot be opened") as caught:
        RealDisk(path)
    assert caught.value.hint


def test_the_real_disk_keeps_a_log(tmp_path: Path) -> None:
    store = opened(RealDisk(tmp_path / "deep" / "n1"))
    for index in range(1, 101):
        store.append(HardState(1, "n1") if index == 1 else None, [Entry(1, index, COMMAND, os.urandom(150))])
    store.close()
    again = opened(RealDisk(tmp_path / "deep" / "n1"))
    assert [entry.index for entry in again.recovered.entries] == list(range(1, 101))
    assert again.recovered.hard_state == HardState(1, "n1")
    again.close()


def test_a_copy_on_the_real_disk_is_noticed(tmp_path: Path) -> None:
    opened(RealDisk(tmp_path / "a")).close()
    (tmp_path / "b").mkdir()
    for file in (tmp_path / "a").iterdir():
        (tmp_path / "b" / file.name).write_bytes(file.read_bytes())
    with pytest.raises(StoreCloned):
        opened(RealDisk(tmp_path / "b"))
    (tmp_path / "a").rename(tmp_path / "c")
    opened(RealDisk(tmp_path / "c")).close()  # moved is not copied
