"""Without privileges workloads still run, and the sandboxer says what it cannot promise."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.qemu.machine import PYTHON

HERE = Path(__file__).resolve().parent
NOBODY = 65534


@pytest.fixture
def public() -> Iterator[Path]:
    """A directory that nobody may read, with the sandboxer's code."""
    with tempfile.TemporaryDirectory(prefix="skerry-public-") as name:
        directory = Path(name)
        directory.chmod(0o755)
        shutil.copytree(HERE.parents[1] / "agents/sandboxer", directory / "agents/sandboxer")
        (directory / "agents/__init__.py").touch()
        for file in (HERE / "qemu/conformance.py", HERE / "unprivileged_run.py"):
            shutil.copy(file, directory)
        (directory / "node").mkdir()
        os.chown(directory / "node", NOBODY, NOBODY)
        yield directory


@pytest.mark.root
def test_workloads_run_unprivileged_and_the_level_is_degraded_with_every_reason(public: Path) -> None:
    done = subprocess.run(
        [str(PYTHON), "-S", "-s", "-B", str(public / "unprivileged_run.py"), str(public / "node")],
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(public), "PYTHONDONTWRITEBYTECODE": "1"},
        user=NOBODY,
        group=NOBODY,
        extra_groups=[],
        capture_output=True,
        text=True,
        timeout=90,
    )
    assert done.returncode == 0, done.stderr[-3000:] + (public / "node/log").read_text()[-2000:]
    told = json.loads(done.stdout)
    assert told["hello"]["isolation"] == "degraded"
    for reason in ("RLIMIT_AS", "CPU and pids are not bounded", "no bridge network (user id 65534"):
        assert reason in told["hello"]["isolation_why"]
    assert "no namespaces" not in told["hello"]["isolation_why"], "a user namespace gives them"
    processes, hostname, capabilities, addresses, mounted = told["inside"].split()
    assert int(processes) <= 4
    assert (hostname, capabilities, addresses, mounted) == ("inside-0", "0" * 16, "1", "refused")
    assert told["bridge"].startswith("preparing its sandbox: this node has no bridge network")
    exits = told["exits"]
    assert (exits["d/code.0"]["code"], exits["d/code.0"]["reason"]) == (4, "exited")
    assert (exits["d/tree.0"]["signal"], exits["d/tree.0"]["reason"]) == (9, "stopped")
    assert (exits["d/hog.0"]["code"], exits["d/hog.0"]["reason"]) == (1, "exited"), "MemoryError: RLIMIT_AS holds"
    assert (told["adopted"]["state"], told["left"]) == ("running", [])
