"""The benchmark measures real processes and says what it measured."""

from __future__ import annotations

import pytest

from skerry import bench_raft
from skerry.bench_raft import markdown_table, run_bench


async def test_a_short_run_gives_every_figure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench_raft, "QUIET_PATIENCE_S", 0.0)
    result = await run_bench(runs=2, seconds=0.3, outstanding=[16, 1], failover_kills=2)
    assert set(result) == {"environment", "runs", "peers", "results", "ratios"}
    assert result["runs"] == 2
    for name in ("disk_p50_ms", "commits_per_s_1", "p99_ms_16", "loop_p99_ms_16", "failover_ms"):
        spread = result["results"][name]
        assert 0 < spread["min"] <= spread["median"] <= spread["max"]
    assert len(result["environment"]["conditions"]) == 2
    assert len(result["environment"]["failovers_ms"]) == 2
    assert result["results"]["failover_ms"]["max"] < 15_000
    assert result["ratios"]["batching_16_over_1"]["median"] > 1, "callers at the same time share writes"
    table = markdown_table(result)
    assert table.count("\n| 1 |") == 1
    assert "2 leaders killed" in table


def test_a_table_needs_no_failover() -> None:
    spread = {"median": 2.0, "min": 1.0, "max": 3.0}
    names = ("commits_per_s_1", "writes_per_s_1", "p50_ms_1", "p99_ms_1", "loop_p99_ms_1")
    floors = ("disk_p50_ms", "disk_p99_ms", "loopback_p50_ms")
    where = {
        "outstanding": [1],
        "conditions": [{"load_average": 1.0, "foreign_cpu": 0.125}],
        "seconds": 3.0,
        "value_bytes": 100,
        "replicas": 3,
        "cpus": 2,
        "cpu": "some processor",
        "kernel": "6.1",
        "python": "3.11",
    }
    table = markdown_table({"runs": 3, "environment": where, "results": dict.fromkeys(names + floors, spread)})
    assert "| 1 | 2 (1–3) | 2.00 | 2.00 | 1.0 | 2.00 |" in table
    assert "others used up to 12% of the machine" in table
    assert "Failover" not in table
