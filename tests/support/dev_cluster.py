"""A development cluster for tests, driven by public commands alone."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
COMMAND_S = 100


class Cluster:
    """Runs ``skerry`` against one directory."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        clean = {k: v for k, v in os.environ.items() if not k.startswith("SKERRY_")}
        self.environment = clean | {"SKERRY_DIR": str(directory)}

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run one command to its end."""
        return subprocess.run(
            [sys.executable, "-m", "skerry", *arguments],
            capture_output=True, text=True, timeout=COMMAND_S, env=self.environment,
        )  # fmt: skip

    def json(self, *arguments: str, code: int = 0) -> dict[str, Any]:
        """Run one command with ``-o json``; its exit code must be `code`."""
        ran = self.run(*arguments, "-o", "json")
        assert ran.returncode == code, f"{arguments}: exit {ran.returncode}\n{ran.stdout}\n{ran.stderr}"
        answer: dict[str, Any] = json.loads(ran.stdout)
        assert answer["v"] == 1
        return answer

    def start(self, *arguments: str) -> dict[str, Any]:
        """``skerry dev --detach``."""
        return self.json("dev", "--detach", *arguments)

    @property
    def name(self) -> str:
        """The cluster's name, part of every cgroup it makes."""
        name: str = json.loads((self.directory / "plan.json").read_text())["cluster"]
        return name

    def cgroups(self) -> list[str]:
        """Cgroup directories that carry the cluster's name."""
        found = subprocess.run(
            ["find", "/sys/fs/cgroup", "-type", "d", "-name", f"*{self.name}*"], capture_output=True, text=True
        )
        return found.stdout.split()
