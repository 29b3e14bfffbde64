"""One seed is one run: in two processes with different hash seeds, and twice in one process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from sim_traffic import digest_of_traffic

ROOT = Path(__file__).resolve().parents[2]
TRAFFIC = [f"{policy}/{transport}" for policy in ("fifo", "random", "pct") for transport in ("direct", "http")]


def elsewhere(hash_seed: str, names: list[str]) -> dict[str, dict[str, Any]]:
    """What a process of its own finds."""
    environment = {
        **os.environ,
        "PYTHONHASHSEED": hash_seed,
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests" / "support")]),
    }
    program = ROOT / "tests" / "support" / "sim_traffic.py"
    command = [sys.executable, "-P", str(program), *names]  # its folder has modules called as packages are
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=True, timeout=110)
    found: dict[str, dict[str, Any]] = json.loads(done.stdout)
    return found


def test_real_aiohttp_and_direct_messages_repeat_under_every_order_and_hash_seed() -> None:
    one, other = elsewhere("0", TRAFFIC), elsewhere("1", list(reversed(TRAFFIC)))
    assert one == other
    assert all(each["events"] > 300 for each in one.values())
    assert len({each["digest"] for each in one.values()}) == len(TRAFFIC)


@pytest.mark.parametrize("transport", ["direct", "http"])
def test_a_run_repeats_in_one_process_and_another_seed_is_another_run(transport: str) -> None:
    first = digest_of_traffic(1, "random", transport)
    assert digest_of_traffic(1, "random", transport) == first
    assert digest_of_traffic(2, "random", transport)["digest"] != first["digest"]
