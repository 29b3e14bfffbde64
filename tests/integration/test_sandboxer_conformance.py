"""The conformance suite that also runs on cgroup v2 in the virtual machine, on this machine's cgroups."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.integration.sandbox_rig import Decoys

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.root
@pytest.mark.parametrize("kind", ["hybrid", "v1"])
def test_the_conformance_suite_passes_on_this_machine(kind: str, tmp_path: Path, other_cgroups: Decoys) -> None:
    command = [sys.executable, "-S", "-s", str(ROOT / "tests/integration/qemu/conformance.py"), kind, str(tmp_path)]
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=110)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    summary = json.loads(done.stdout.splitlines()[-1].removeprefix("CONFORMANCE "))
    assert (summary["kind"], summary["ran"], summary["failed"], summary["skipped"]) == (kind, 10, [], 0)
