"""An agent as a process of its own, with a configuration file, for tests that kill it."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

from agent_replica import TOKEN

from agents.sandbox_client import SandboxClient

START = """
import sys
from pathlib import Path
from agents.agent import main_agent
from cluster.config import load
from cluster.log import configure
loaded = load(Path(sys.argv[1]))
configure(level=loaded.config.log.level, form=loaded.config.log.format)
sys.exit(main_agent(loaded))
"""


class AgentProcess:
    """Start, kill and end the agent of one directory; `log` is what it wrote."""

    def __init__(
        self, directory: Path, node: str, cluster: str, replicas: list[str], *, token: str = TOKEN, **agent: object
    ) -> None:
        self.directory = directory
        self.node = node
        self.cluster = cluster
        self._config = directory.parent / f"{node}.toml"
        self._log_path = directory.parent / f"{node}.log"
        settings = {
            "id": node, "dir": str(directory), "replicas": replicas, "cpu": "1000m", "memory": "1Gi", "pids": 200,
            "heartbeat_ms": 100, "confirm_timeout_ms": 1500, "usage_ms": 100, **agent,
        }  # fmt: skip
        lines = ["[cluster]", f'name = "{cluster}"', "[security]", f'link_token = "{token}"', "[agent]"]
        lines += [f"{key} = {_toml(value)}" for key, value in settings.items()]
        lines += ["[trace]", f'dir = "{directory.parent / "trace"}"']
        self._config.write_text("\n".join(lines) + "\n")
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def log(self) -> str:
        return self._log_path.read_text()

    def start(self) -> None:
        with self._log_path.open("ab") as log:
            clean = {key: value for key, value in os.environ.items() if not key.startswith("SKERRY_")}
            self.process = subprocess.Popen(
                [sys.executable, "-c", START, str(self._config)], stdout=log, stderr=log, env=clean
            )

    async def end(self, number: int = signal.SIGTERM) -> int:
        """Send a signal and wait for the exit; returns the exit code."""
        assert self.process is not None
        self.process.send_signal(number)
        return await self.wait()

    async def wait(self) -> int:
        assert self.process is not None
        return await asyncio.to_thread(self.process.wait, 20)

    async def clean_up(self) -> None:
        """Leave nothing behind, however the test went."""
        if self.process is not None and self.process.poll() is None:
            await self.end(signal.SIGKILL)
        if (self.directory / "sandboxer.sock").exists():
            try:
                client = await SandboxClient.connect(self.directory, start_if_absent=False)
            except Exception:
                return
            try:
                async with asyncio.timeout(20):
                    await client.shutdown(stop_workloads=True)
            finally:
                await client.close()


def _toml(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return "[" + ", ".join(_toml(item) for item in value) + "]"
    return str(value) if isinstance(value, int) else f'"{value}"'
