from __future__ import annotations

import pytest
from dev_cluster import EXAMPLES

pytestmark = pytest.mark.root


def test_the_service_runs_in_cgroups_whose_limits_equal_its_file(cluster):
    cluster.json("run", str(EXAMPLES / "service.toml"), "--wait")
    shown = cluster.json("job", "show", "ticker", "--limits")
    running = [a for a in shown["allocations"] if a["state"] == "running"]
    assert len(running) == 3
    for allocation in running:
        kernel = allocation["kernel"]
        assert kernel["equals_spec"]
        assert (kernel["cpu_millicores"], kernel["memory_bytes"], kernel["pids"]) == (300, 64 << 20, 16)
        assert cluster.name in kernel["cgroup"]
    lines = cluster.json("logs", "ticker")["lines"]
    assert any(line["text"].startswith("tick ") for line in lines)


def test_the_batch_of_fifty_completes(cluster):
    answer = cluster.json("run", str(EXAMPLES / "batch.toml"), "--wait", "--wait-timeout", "90")
    assert answer["state"] == "complete"
    shown = cluster.json("job", "show", "squares")
    assert sum(1 for a in shown["allocations"] if a["state"] == "complete") == 50
    assert cluster.json("logs", "default/squares.7")["lines"][0]["text"] == "42"


def test_the_memory_hog_is_killed_alone_reported_oom_and_restarted_by_its_policy(cluster):
    cluster.json("run", str(EXAMPLES / "service.toml"), "--wait")
    before = {
        a["id"]: a["pid"] for a in cluster.json("job", "show", "ticker")["allocations"] if a["state"] == "running"
    }
    cluster.json("run", str(EXAMPLES / "memory-hog.toml"), "--wait", code=1)
    attempts = cluster.json("job", "show", "memory-hog")["allocations"]
    assert [a["attempt"] for a in attempts] == [2], "its policy starts it once more, and no more"
    end = attempts[0]["exit"]
    assert (end["reason"], end["status_known"], end["signal"]) == ("oom", True, 9)
    after = {a["id"]: a["pid"] for a in cluster.json("job", "show", "ticker")["allocations"] if a["state"] == "running"}
    assert after == before


def test_the_impossible_job_is_refused_at_submit_with_the_nearest_miss(cluster):
    answer = cluster.json("run", str(EXAMPLES / "impossible.toml"), code=1)
    assert answer["error"]["code"] == "never-fits"
    assert answer["error"]["nearest"]["node"].startswith("a")
    assert answer["error"]["nearest"]["change"]
    assert "default/impossible" not in [row["job"] for row in cluster.json("job", "ls")["jobs"]]


def test_the_waiting_job_is_accepted_not_placed_in_time_and_explained(cluster):
    answer = cluster.json("run", str(EXAMPLES / "waiting.toml"), "--wait", "--wait-timeout", "2", code=3)
    assert answer["error"]["code"] == "not-placed"
    explained = cluster.json("explain", "crowd")
    assert not explained["placed"]
    assert explained["nearest"]["node"] in {"a1", "a2", "a3", "a4"}
    assert any(row["filter"] == "cpu" for row in explained["nodes"])
    cluster.json("stop", "crowd")
