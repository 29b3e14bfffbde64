"""Chaos against a cluster of which only addresses are known: what is refused before anything is asked."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from scheduler.api.ready import unready
from scheduler.roster import Row
from skerry.dev.target import RemoteCluster
from skerry.errors import NoProcessControl, exit_code

NOWHERE = "127.0.0.1:9"


def skerry(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    clean = {key: value for key, value in os.environ.items() if not key.startswith("SKERRY_")}
    return subprocess.run(
        [sys.executable, "-m", "skerry", *arguments],
        capture_output=True, text=True, timeout=60, env=clean | environment,
    )  # fmt: skip


def problem(ran: subprocess.CompletedProcess[str]) -> tuple[int, str]:
    return ran.returncode, json.loads(ran.stdout)["error"]["code"]


def test_a_scenario_that_kills_is_refused_where_only_addresses_are_known() -> None:
    ran = skerry("chaos", "run", "leader-killed", "--address", NOWHERE, "--token", "t" * 8, "-o", "json")
    assert problem(ran) == (2, "no-process-control")
    assert "leader-killed needs kill" in ran.stderr


def test_without_a_chaos_proxy_nothing_is_broken() -> None:
    ran = skerry("chaos", "run", "minority-leader", "-o", "json", SKERRY_ADDRESS=NOWHERE, SKERRY_TOKEN="t" * 8)
    assert problem(ran) == (2, "usage")
    assert "--chaos-api" in ran.stderr


def test_a_token_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    missing = str(tmp_path / "token")
    ran = skerry("status", "-o", "json", SKERRY_ADDRESS=NOWHERE, SKERRY_TOKEN_FILE=missing)
    assert problem(ran) == (2, "usage")
    assert missing in ran.stderr


async def test_every_process_fault_is_refused_with_a_way_out(tmp_path: Path) -> None:
    cluster = RemoteCluster({}, token="", chaos_api="", chaos_token=None, trace=tmp_path)
    for fault in (cluster.kill, cluster.start, cluster.pause, cluster.resume):
        with pytest.raises(NoProcessControl, match="n1") as refused:
            await fault("n1")
        assert refused.value.hint
        assert exit_code(refused.value) == 2
    with pytest.raises(NoProcessControl):
        await cluster.pids()


@pytest.mark.parametrize(
    ("row", "why"),
    [
        (Row("n1", "follower", 2, "n2", 7, 7), ""),
        (Row("n1", "leader", 2, "n1", 7, 7), ""),
        (Row("n1", "pre-candidate", 2, None, 7, 7), "knows no leader"),
        (Row("n1", "follower", 2, "n2", 7, 5), "applied 5 of 7"),
        (Row("n1", "follower", 0, "n2", 0, 0), "applied nothing"),
    ],
)
def test_ready_means_a_leader_is_known_and_everything_committed_is_applied(row: Row, why: str) -> None:
    assert unready(row) == "" if not why else why in unready(row)
