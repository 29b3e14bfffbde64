"""The cluster of containers: from the image to nothing left."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from compose_cluster import (
    SERVICES,
    ComposeCluster,
    cgroups_of,
    limits_of,
    membership,
    processes_in,
)
from dev_cluster import COMMAND_S

pytestmark = [pytest.mark.docker, pytest.mark.root, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def cluster() -> Iterator[ComposeCluster]:
    """Built, up, and down again: nothing of it may be left, whatever the tests did."""
    made = ComposeCluster()
    made.build()
    ids: list[str] = []
    try:
        made.up()
        ids += [made.container(service) for service in SERVICES]
        yield made
    finally:
        made.down()
    assert made.left() == []
    assert [path for id in ids for path in cgroups_of(id)] == []


def until(condition: Callable[[], object], timeout_s: float = 20.0) -> None:
    """Ask every 200 ms until it holds."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"not within {timeout_s} s"
        time.sleep(0.2)


def test_when_up_returns_there_are_three_replicas_and_four_ready_nodes(cluster: ComposeCluster) -> None:
    status = cluster.json("status")
    assert (status["healthy"], status["survives"]) == (True, 1)
    assert [(row["id"], row["role"] in ("leader", "follower")) for row in status["replicas"]] == [
        ("n1", True), ("n2", True), ("n3", True),
    ]  # fmt: skip
    nodes = {node["id"]: node for node in status["nodes"]}
    assert sorted(nodes) == ["a1", "a2", "a3", "a4"]
    assert {node["state"] for node in nodes.values()} == {"ready"}
    assert all(node["isolation"]["level"].startswith("cgroup-") for node in nodes.values()), nodes
    assert all("ipc,user namespaces" in node["isolation"]["level"] for node in nodes.values()), nodes
    until(lambda: set(cluster.health().values()) == {"healthy"})


def test_an_init_is_process_1_and_reaps(cluster: ComposeCluster) -> None:
    first = cluster.command("docker", "exec", cluster.container("a1"), "cat", "/proc/1/comm").strip()
    assert first in ("docker-init", "tini", "dumb-init")


def test_a_workload_is_in_a_cgroup_of_its_own_with_the_limits_of_its_spec(cluster: ComposeCluster) -> None:
    cluster.json("run", "/examples/service.toml", "--wait")
    placed = cluster.json("job", "show", "ticker")["allocations"]
    assert len(placed) == 3
    users = set()
    for allocation in placed:
        container = cluster.container(allocation["node"])
        name = f"{allocation['id'].replace('/', '_')}@{allocation['epoch']}"
        pids = processes_in(container, f"/{name}")
        assert pids, (allocation, name)
        for pid in pids:
            assert f"docker/{container}" in str(sorted(membership(pid).items()))
            assert limits_of(pid) == ("30000 100000", 64 << 20, 16)
        users |= {Path(f"/proc/{pid}").stat().st_uid for pid in pids}
    assert len(users) == 3, "each workload is a user of its own, also of those in other containers"
    assert min(users) >= 0x7000_0000, users


def test_a_workload_that_outgrows_its_memory_is_killed_alone_and_reported(cluster: ComposeCluster) -> None:
    cluster.cli("run", "/examples/memory-hog.toml", "--wait", code=1)
    [hog] = cluster.json("job", "show", "memory-hog")["allocations"]
    assert (hog["exit"]["signal"], hog["exit"]["reason"]) == (9, "oom")
    assert {node["state"] for node in cluster.json("status")["nodes"]} == {"ready"}


def test_chaos_through_the_cli_service_passes_and_its_trace_leaves_through_the_api(
    cluster: ComposeCluster, tmp_path: Path
) -> None:
    result = cluster.json("chaos", "run", "minority-leader", "--backend", "proxy", "--out", "/runs/first")
    assert (result["verdict"], result["trace"]) == ("pass", "/runs/first"), result
    assert result["metrics"]["acked"] > 50
    assert {row["ok"] for row in result["invariants"]} <= {True, None}
    addresses = ",".join(cluster.address(name) for name in ("n1", "n2", "n3"))
    token = cluster.command("docker", "exec", cluster.container("cli"), "cat", "/run/skerry/token").strip()
    fetched = subprocess.run(
        [sys.executable, "-m", "skerry", "trace", "fetch", "--out", str(tmp_path), "-o", "json",
         "--address", addresses, "--token", token],
        capture_output=True, text=True, timeout=COMMAND_S, env=cluster.environment,
    )  # fmt: skip
    assert fetched.returncode == 0, fetched.stderr
    writers = {path.name.split("-")[0] for path in tmp_path.iterdir()}
    assert writers == {"n1", "n2", "n3", "a1", "a2", "a3", "a4", "proxy"}
    assert json.loads(fetched.stdout)["unreachable"] == []


def test_a_replica_that_lost_its_volume_comes_back_empty_and_catches_up(cluster: ComposeCluster) -> None:
    cluster.command("docker", "rm", "--force", cluster.container("n3"))
    cluster.command("docker", "volume", "rm", f"{cluster.project}_n3")
    until(lambda: cluster.json("status")["survives"] == 0)
    cluster.command(*cluster.compose, "up", "-d", "n3")
    cluster.forget_containers()

    def whole() -> bool:
        status = cluster.json("status")
        return status["survives"] == 1 and len({row["digest"] for row in status["replicas"]}) == 1

    until(whole, 30.0)


def test_an_agent_killed_outright_leaves_no_cgroup_behind(cluster: ComposeCluster) -> None:
    """Last of all: its workloads run when it dies, and then everything goes down with others running."""
    node = cluster.json("job", "show", "ticker")["allocations"][0]["node"]
    container = cluster.container(node)
    assert cgroups_of(container)
    cluster.command("docker", "kill", "--signal", "KILL", container)
    until(lambda: cgroups_of(container) == [])
    assert processes_in(container, "ticker") == []
