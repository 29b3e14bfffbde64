"""What a machine offers, and what its workloads use."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents import inventory
from agents.errors import BadAgentConfig
from agents.usage import UsageBook
from scheduler.model import Capacity


def machine(tmp_path: Path, **files: str) -> tuple[Path, Path]:
    """Directories that look like /proc and /sys; __ in a name stands for /."""
    (tmp_path / "proc/sys/kernel").mkdir(parents=True)
    (tmp_path / "proc/meminfo").write_text("MemTotal:       1000000 kB\nMemFree: 5 kB\n")
    (tmp_path / "proc/sys/kernel/pid_max").write_text("32768\n")
    for name, text in files.items():
        path = tmp_path / "sys/fs/cgroup" / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path / "proc", tmp_path / "sys"


def test_a_machine_without_limits_offers_itself_less_what_the_system_keeps(tmp_path):
    proc, sys = machine(tmp_path)
    got = inventory.capacity(proc=proc, sys=sys)
    assert got == Capacity(len(os.sched_getaffinity(0)) * 1000, 1_024_000_000 * 19 // 20, 16384)


def test_limits_of_the_own_control_group_count(tmp_path):
    proc, sys = machine(tmp_path, **{"cpu.max": "50000 100000", "memory.max": "104857600", "pids.max": "100"})
    assert inventory.capacity(proc=proc, sys=sys) == Capacity(500, 104857600 * 19 // 20, 50)


def test_limits_of_version_one_count_too(tmp_path):
    proc, sys = machine(
        tmp_path, **{
            "cpu/cpu.cfs_quota_us": "25000", "cpu/cpu.cfs_period_us": "100000",
            "memory/memory.limit_in_bytes": "104857600", "pids/pids.max": "max",
        },
    )  # fmt: skip
    assert inventory.capacity(proc=proc, sys=sys) == Capacity(250, 104857600 * 19 // 20, 16384)


def test_configuration_overrides_each_number_alone(tmp_path):
    proc, sys = machine(tmp_path)
    got = inventory.capacity(cpu_millicores=1500, pids=7, proc=proc, sys=sys)
    assert (got.cpu_millicores, got.memory_bytes, got.pids) == (1500, 1_024_000_000 * 19 // 20, 7)


def test_a_negative_number_is_refused():
    with pytest.raises(BadAgentConfig, match="memory_bytes"):
        inventory.capacity(memory_bytes=-1)


def test_the_node_total_keeps_the_cpu_of_ended_workloads():
    book = UsageBook()
    book.take({"default/a.0": (500, 10, 1), "default/b.0": (200, 20, 2)})
    book.take({"default/b.0": (300, 25, 2)})
    assert book.by_allocation() == {"default/b.0": (300, 25, 2)}
    assert book.node() == (800, 25)


def test_a_new_attempt_that_counts_from_zero_adds_to_the_total():
    book = UsageBook()
    book.take({"default/a.0": (500, 10, 1)})
    book.take({"default/a.0": (3, 10, 1)})
    assert book.node() == (503, 10)


@given(
    st.lists(st.dictionaries(st.sampled_from(["a", "b", "c"]), st.tuples(st.integers(0, 99), st.just(1), st.just(1))))
)
def test_the_cpu_total_never_goes_down(readings):
    book, before = UsageBook(), 0
    for reading in readings:
        book.take(reading)
        assert book.node()[0] >= before
        before = book.node()[0]
