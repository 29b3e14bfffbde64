from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from dev_cluster import COMMAND_S, EXAMPLES, Cluster

pytestmark = pytest.mark.root


def end(pids: list[int]) -> None:
    """SIGKILL these processes of ours, and wait until they are gone."""
    for pid in pids:
        try:
            descriptor = os.pidfd_open(pid)
        except ProcessLookupError:
            continue
        signal.pidfd_send_signal(descriptor, signal.SIGKILL)
        select.select([descriptor], [], [], 10)
        os.close(descriptor)


def alive(pid: int) -> bool:
    """Whether the process still runs; one that only waits to be reaped does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def sandboxers(cluster: Cluster) -> list[int]:
    """Pids of the cluster's sandboxers, by their command lines."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                words = (entry / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if b"agents.sandboxer" in words and any(str(cluster.directory).encode() in word for word in words):
                found.append(int(entry.name))
    return found


def test_ctrl_c_stops_all_workloads_and_removes_every_cgroup(tmp_path):
    cluster = Cluster(tmp_path / "c")
    child = subprocess.Popen(
        [sys.executable, "-m", "skerry", "dev", "--replicas", "1", "--agents", "1"],
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=cluster.environment,
    )  # fmt: skip
    try:
        assert child.stdout is not None
        assert child.stdout.readline().startswith("ready:")
        cluster.json("run", str(EXAMPLES / "service.toml"), "--wait")
        pids = [a["pid"] for a in cluster.json("job", "show", "ticker")["allocations"]]
        assert len(pids) == 3
        assert cluster.cgroups()
        workers = sandboxers(cluster)
        assert workers
        child.send_signal(signal.SIGINT)
        assert child.wait(COMMAND_S) == 0
    finally:
        child.kill()
        child.wait()
        assert child.stdout is not None
        child.stdout.close()
    assert cluster.cgroups() == []
    assert [pid for pid in [*pids, *workers] if alive(pid)] == []
    assert list(cluster.directory.rglob("*.sock")) == []
    assert not (cluster.directory / "dev.json").exists()


def test_sigkill_of_everything_then_a_restart_finds_what_was_acknowledged(tmp_path):
    cluster = Cluster(tmp_path / "c")
    facts = cluster.start("--replicas", "3", "--agents", "1")
    acknowledged = [
        cluster.json("run", str(EXAMPLES / "service.toml"), "--request-id", "first", "--wait"),
        cluster.json("run", str(EXAMPLES / "waiting.toml"), "--request-id", "second"),
    ]
    end([facts["supervisor"], *facts["pids"].values(), *sandboxers(cluster)])
    cluster.start("--replicas", "3", "--agents", "1")
    try:
        jobs = {row["job"]: row["version"] for row in cluster.json("job", "ls")["jobs"]}
        assert jobs == {answer["job"]: answer["version"] for answer in acknowledged}
        again = cluster.json("run", str(EXAMPLES / "service.toml"), "--request-id", "first")
        assert again["index"] == acknowledged[0]["index"]
    finally:
        cluster.json("dev", "stop")
    assert cluster.cgroups() == []


def test_a_second_cluster_in_the_same_directory_and_another_shape_are_refused(cluster):
    again = cluster.json("dev", code=1)
    assert again["error"]["code"] == "dev"
    assert "already" in again["error"]["message"]
    other = cluster.json("dev", "--replicas", "1", code=1)
    assert "3 replicas" in other["error"]["message"]
    assert cluster.json("status")["healthy"], "the refused command leaves the running cluster alone"


def test_a_missing_or_wrong_token_is_not_allowed(cluster):
    wrong = cluster.json("status", "--token", "wrong", code=5)
    assert wrong["error"]["code"] in {"bad-token", "unauthorized"}
    assert wrong["error"]["hint"]


def test_stopping_what_does_not_run_says_so(tmp_path):
    answer = Cluster(tmp_path / "nothing").json("dev", "stop", code=1)
    assert "no cluster runs" in answer["error"]["message"]
