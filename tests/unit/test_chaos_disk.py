"""The forgetting disk forgets exactly what POSIX lets it forget."""

from __future__ import annotations

import errno
from random import Random

import pytest

from chaos.disk import ForgettingDisk, PowerLost
from raft.errors import StoreLocked
from raft.protocols import Disk


def disk(**options: object) -> ForgettingDisk:
    return ForgettingDisk(Random(7), **options)  # type: ignore[arg-type]


def durable_file(on: ForgettingDisk, name: str, data: bytes) -> None:
    file = on.open(name, create=True)
    file.write_at(0, data)
    file.sync()
    on.sync_directory()


def test_the_forgetting_disk_is_a_disk() -> None:
    checked: Disk = disk()
    assert checked.names() == []


def test_written_bytes_are_visible_before_they_are_synced() -> None:
    on = disk()
    on.open("a", create=True).write_at(2, b"xy")
    assert on.open("a").read_at(0, 10) == b"\0\0xy"
    assert on.names() == ["a"]


def test_a_crash_forgets_unsynced_bytes_and_keeps_synced_ones() -> None:
    on = disk()
    durable_file(on, "a", b"kept")
    on.open("a").write_at(4, b"lost")
    on.crash()
    assert on.reopen().open("a").read_at(0, 99) == b"kept"


def test_a_crash_forgets_a_name_whose_directory_was_not_synced() -> None:
    on = disk()
    file = on.open("a", create=True)
    file.write_at(0, b"data")
    file.sync()
    on.crash()
    assert on.reopen().names() == []


def test_a_crash_undoes_an_unsynced_rename_and_removal() -> None:
    on = disk()
    durable_file(on, "a", b"1")
    durable_file(on, "b", b"2")
    on.rename("a", "b")
    on.crash()
    again = on.reopen()
    assert again.names() == ["a", "b"]
    assert again.open("b").read_at(0, 1) == b"2"
    again.remove("b")
    again.sync_directory()
    again.crash()
    assert again.reopen().names() == ["a"]


def test_a_killed_process_loses_no_visible_byte() -> None:
    on = disk()
    on.open("a", create=True).write_at(0, b"page cache")
    on.kill()
    assert on.reopen().open("a").read_at(0, 99) == b"page cache"


def test_handles_of_a_crashed_process_are_dead_and_its_lock_is_free() -> None:
    on = disk()
    on.lock()
    file = on.open("a", create=True)
    with pytest.raises(StoreLocked):
        on.reopen().lock()
    on.crash()
    with pytest.raises(PowerLost):
        file.write_at(0, b"x")
    with pytest.raises(PowerLost):
        on.names()
    on.reopen().lock()


def test_the_power_goes_in_the_middle_of_the_chosen_operation() -> None:
    on = disk()
    durable_file(on, "a", b"old")
    on.crash_at(2)
    file = on.open("a")
    with pytest.raises(PowerLost):
        file.write_at(0, b"new")
    assert on.reopen().open("a").read_at(0, 9) == b"old"


def test_a_lying_disk_loses_what_it_said_was_synced() -> None:
    on = disk(lying=True)
    durable_file(on, "a", b"gone")
    on.crash()
    assert on.reopen().names() == []


def test_a_torn_crash_keeps_some_writes_of_some_seeds_and_the_same_ones_for_one_seed() -> None:
    def after_crash(seed: int) -> bytes:
        on = ForgettingDisk(Random(seed), torn=True)
        durable_file(on, "a", b"")
        file = on.open("a")
        for i in range(4):
            file.write_at(i * 8, bytes([65 + i]) * 8)
        on.crash()
        return on.reopen().open("a").read_at(0, 99)

    outcomes = {after_crash(seed) for seed in range(2000)}
    assert b"" in outcomes
    assert b"AAAAAAAABBBBBBBBCCCCCCCCDDDDDDDD" in outcomes
    assert any(b"B" in found and b"A" not in found for found in outcomes), "no reordered subset was kept"
    assert any(0 < found.count(b"A") < 8 for found in outcomes), "no write was torn"
    assert all(after_crash(seed) == after_crash(seed) for seed in range(20))


def test_after_a_failed_sync_the_bytes_never_become_durable() -> None:
    on = disk()
    durable_file(on, "a", b"")
    file = on.open("a")
    file.write_at(0, b"dirty")
    on.fail("sync")
    with pytest.raises(OSError, match="Input/output") as failure:
        file.sync()
    assert failure.value.errno == errno.EIO
    file.sync()
    assert file.read_at(0, 9) == b"dirty"
    on.crash()
    assert on.reopen().open("a").read_at(0, 9) == b""


def test_a_fault_waits_for_its_turn_and_counts_down() -> None:
    on = disk()
    file = on.open("a", create=True)
    on.fail("write", errno.ENOSPC, after=1, count=2)
    file.write_at(0, b"1")
    for _ in range(2):
        with pytest.raises(OSError, match="No space") as failure:
            file.write_at(0, b"2")
        assert failure.value.errno == errno.ENOSPC
    file.write_at(0, b"3")
    assert file.read_at(0, 1) == b"3"


def test_a_full_disk_refuses_growth_and_takes_overwrites() -> None:
    on = disk(capacity_bytes=8)
    file = on.open("a", create=True)
    file.write_at(0, bytes(8))
    with pytest.raises(OSError, match="No space"):
        file.write_at(8, b"x")
    file.write_at(0, b"12345678")
    assert file.size() == 8


def test_rot_flips_stored_bits_and_survives_a_crash() -> None:
    on = disk()
    durable_file(on, "a", b"\x00\x00")
    on.rot("a", 1, 0x80)
    on.crash()
    assert on.reopen().open("a").read_at(0, 2) == b"\x00\x80"


def test_a_copy_has_the_bytes_and_another_inode() -> None:
    on = disk()
    durable_file(on, "a", b"same")
    twin = on.copy()
    assert twin.open("a").read_at(0, 9) == b"same"
    assert twin.inode() != on.inode()
    assert on.reopen().inode() == on.inode()


def test_missing_and_malformed_names_are_refused() -> None:
    on = disk()
    for call in (lambda: on.open("a"), lambda: on.remove("a"), lambda: on.rename("a", "b")):
        with pytest.raises(FileNotFoundError):
            call()
    for name in ("", "a/b", ".."):
        with pytest.raises(OSError, match="separators"):
            on.open(name, create=True)
