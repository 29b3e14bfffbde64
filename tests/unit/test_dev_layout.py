from __future__ import annotations

import socket
import stat

import pytest

from cluster import config
from skerry.dev import layout
from skerry.errors import DevError
from skerry.limits import kernel_limits


def test_every_directed_pair_has_a_link_of_its_own():
    plan = layout.make_plan(3, 2, 1000, 1 << 30)
    assert sorted(link.name for link in plan.links) == sorted(
        [f"n{i}~n{j}" for i in (1, 2, 3) for j in (1, 2, 3) if i != j]
        + [f"a{i}~n{j}" for i in (1, 2) for j in (1, 2, 3)]
    )
    ports = [p for r in plan.replicas for p in (r.links_port, r.api_port)] + [link.port for link in plan.links]
    assert len({*ports, plan.chaos_port}) == len(ports) + 1


def test_a_plan_is_kept_from_run_to_run_and_another_shape_is_refused(tmp_path):
    home = tmp_path / "cluster"
    first = layout.load_or_make_plan(home, 3, 1, 1000, 1 << 30)
    assert layout.load_or_make_plan(home, 3, 1, 1000, 1 << 30) == first
    assert layout.load_or_make_plan(home, None, None, 1000, 1 << 30) == first, "without counts: as it was made"
    with pytest.raises(DevError, match="3 replicas and 1 agents"):
        layout.load_or_make_plan(home, 1, 1, 1000, 1 << 30)


def test_a_directory_with_other_things_is_refused_and_untouched(tmp_path):
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(DevError, match="not empty"):
        layout.load_or_make_plan(tmp_path, 1, 1, 1000, 1 << 30)
    assert [f.name for f in tmp_path.iterdir()] == ["thesis.txt"]


def test_a_damaged_plan_is_named(tmp_path):
    (tmp_path / "plan.json").write_text('{"cluster": 3}')
    with pytest.raises(DevError, match=r"plan\.json is damaged"):
        layout.load_or_make_plan(tmp_path, 1, 1, 1000, 1 << 30)


def test_every_written_configuration_loads_and_leads_through_the_proxies(tmp_path):
    plan = layout.load_or_make_plan(tmp_path / "c", 3, 1, 1500, 1 << 30)
    layout.write_files(tmp_path / "c", plan, {"raft.election_timeout_ms": "321"})
    replica = config.load(tmp_path / "c" / "n2.toml", {}, {}).config
    assert replica.raft.election_timeout_ms == 321
    assert set(replica.replica.peers) == {"n1", "n2", "n3"}
    ports = {link.name: link.port for link in plan.links}
    assert replica.replica.peers["n1"] == f"127.0.0.1:{ports['n2~n1']}"
    agent = config.load(tmp_path / "c" / "a1.toml", {}, {}).config
    assert agent.agent.cpu_millicores == 1500
    assert [a.rpartition(":")[2] for a in agent.agent.replicas] == [str(ports[f"a1~n{i}"]) for i in (1, 2, 3)]


def test_credentials_are_private_and_kept(tmp_path):
    plan = layout.load_or_make_plan(tmp_path / "c", 1, 0, 1000, 1 << 30)
    layout.write_files(tmp_path / "c", plan, {})
    token = tmp_path / "c" / "token"
    before = token.read_text()
    assert stat.S_IMODE(token.stat().st_mode) == 0o600
    layout.write_files(tmp_path / "c", plan, {})
    assert token.read_text() == before


def test_a_taken_port_is_found():
    plan = layout.make_plan(1, 0, 1000, 1 << 30)
    assert layout.taken_ports(plan) == []
    with socket.socket() as other:
        other.bind((layout.HOST, plan.chaos_port))
        other.listen()
        assert layout.taken_ports(plan) == [plan.chaos_port]


def test_limits_of_v1_and_v2_are_read_from_the_kernels_files(tmp_path):
    proc, root = tmp_path / "proc", tmp_path / "cgroup"
    for pid, text in (
        (1, "5:memory:/s/x\n4:cpu,cpuacct:/s/x\n3:pids:/s/x\n0::/elsewhere\n"),
        (2, "0::/s/y\n"),
    ):
        (proc / str(pid)).mkdir(parents=True)
        (proc / str(pid) / "cgroup").write_text(text)
    for directory, files in {
        "memory/s/x": {"memory.limit_in_bytes": "67108864\n"},
        "cpu/s/x": {"cpu.cfs_quota_us": "30000\n", "cpu.cfs_period_us": "100000\n"},
        "pids/s/x": {"pids.max": "16\n"},
        "s/y": {"memory.max": "max\n", "cpu.max": "25000 100000\n", "pids.max": "8\n"},
    }.items():
        (root / directory).mkdir(parents=True)
        for name, text in files.items():
            (root / directory / name).write_text(text)
    v1, v2 = kernel_limits(1, proc, root), kernel_limits(2, proc, root)
    assert v1 is not None
    assert (v1.cpu_millicores, v1.memory_bytes, v1.pids) == (300, 64 << 20, 16)
    assert v2 is not None
    assert (v2.cpu_millicores, v2.memory_bytes, v2.pids) == (250, None, 8)
    assert kernel_limits(3, proc, root) is None
