"""A cluster of containers for tests, driven by Docker's and Skerry's public commands alone."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import uuid
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
IMAGE = "skerry:test"
SERVICES = ("n1", "n2", "n3", "a1", "a2", "a3", "a4", "proxy", "cli")
COMMAND_S = 100
BUILD_S = 540
"""The very first build fetches packages; later ones take seconds."""
HIERARCHY = "pids"


def compose_command() -> list[str]:
    """The Compose of this machine: the plugin where present, else the older program."""
    if subprocess.run(["docker", "compose", "version"], capture_output=True).returncode == 0:
        return ["docker", "compose"]
    return ["docker-compose"]


def why_no_docker() -> str:
    """Why containers cannot be used here; "" if they can."""
    if shutil.which("docker") is None:
        return "needs docker"
    if subprocess.run(["docker", "info"], capture_output=True, timeout=30).returncode != 0:
        return "needs a Docker daemon that answers"
    if compose_command() == ["docker-compose"] and shutil.which("docker-compose") is None:
        return "needs docker-compose or the compose plugin"
    return ""


class ComposeCluster:
    """One project of docker-compose.yml, under a name and on ports of its own."""

    def __init__(self) -> None:
        self.project = f"skerry-test-{uuid.uuid4().hex[:8]}"
        clean = {key: value for key, value in os.environ.items() if not key.startswith(("SKERRY_", "COMPOSE_"))}
        ports = {f"SKERRY_PORT_N{n}": "" for n in (1, 2, 3)}  # empty: any free port
        self.environment = clean | ports | {"SKERRY_IMAGE": IMAGE, "COMPOSE_PROJECT_NAME": self.project}
        self.compose = compose_command()
        self._containers: dict[str, str] = {}

    def command(self, *arguments: str, code: int | None = 0, timeout_s: float = COMMAND_S) -> str:
        """Run one command in the repository; its exit code must be `code` (None: any)."""
        ran = subprocess.run(
            arguments, capture_output=True, text=True, timeout=timeout_s, env=self.environment, cwd=ROOT
        )
        assert code is None or ran.returncode == code, f"{arguments}: {ran.returncode}\n{ran.stdout}\n{ran.stderr}"
        return ran.stdout

    def build(self) -> None:
        """``make image``."""
        self.command("make", "image", f"IMAGE={IMAGE}", timeout_s=BUILD_S)

    def up(self) -> None:
        """``docker-compose up -d``: returns when the cluster is ready."""
        self.command(*self.compose, "up", "-d")

    def down(self) -> None:
        """``docker-compose down -v``."""
        self.command(*self.compose, "down", "-v")

    def cli(self, *arguments: str, code: int | None = 0) -> str:
        """Run ``skerry …`` in the service `cli`.

        As ``docker-compose exec -T cli skerry …`` does, without that program's own second of starting.
        """
        return self.command("docker", "exec", self.container("cli"), "skerry", *arguments, code=code)

    def json(self, *arguments: str, code: int = 0) -> dict[str, Any]:
        """Run ``skerry … -o json`` in the service `cli`."""
        answer: dict[str, Any] = json.loads(self.cli(*arguments, "-o", "json", code=code))
        assert answer["v"] == 1
        return answer

    def container(self, service: str) -> str:
        """The container id of a service."""
        if not self._containers:
            form = '{{.Label "com.docker.compose.service"}} {{.ID}}'
            label = f"label=com.docker.compose.project={self.project}"
            rows = self.command("docker", "ps", "--all", "--no-trunc", "--filter", label, "--format", form)
            self._containers = dict(row.split() for row in rows.splitlines())
        return self._containers[service]

    def forget_containers(self) -> None:
        """A container was made anew: ask for the ids again."""
        self._containers = {}

    def health(self) -> dict[str, str]:
        """Service → what Docker says of its health."""
        wanted = [service for service in SERVICES if service != "cli"]
        ids = [self.container(service) for service in wanted]
        said = self.command("docker", "inspect", "--format", "{{.State.Health.Status}}", *ids).split()
        return dict(zip(wanted, said, strict=True))

    def address(self, service: str) -> str:
        """Where the API of a replica is reached from this machine."""
        return self.command("docker", "port", self.container(service), "7200").split()[0]

    def left(self) -> list[str]:
        """What Docker still has of the project."""
        label = ("--filter", f"label=com.docker.compose.project={self.project}", "--quiet")
        found = self.command("docker", "ps", "--all", *label).split()
        found += self.command("docker", "volume", "ls", *label).split()
        return found + self.command("docker", "network", "ls", *label).split()


def cgroups_of(container: str) -> list[Path]:
    """This machine's cgroup directories of a container, and below."""
    return [Path(path) for path, _, _ in os.walk("/sys/fs/cgroup") if container in path]


def membership(pid: int) -> dict[str, str]:
    """Controller → cgroup of a process, as this machine sees it ("" is v2)."""
    rows = (line.split(":", 2) for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines())
    return {controller: path for _, controllers, path in rows for controller in controllers.split(",")}


def processes_in(container: str, part: str) -> list[int]:
    """Processes of this machine whose cgroup lies in the container's and names `part`."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                text = (entry / "cgroup").read_text()
            except OSError:
                continue
            if any(container in line and part in line for line in text.splitlines()):
                found.append(int(entry.name))
    return sorted(found)


def limits_of(pid: int) -> tuple[str, int, int]:
    """(CPU quota and period, memory bytes, processes) that the kernel enforces on a process."""
    groups = membership(pid)
    if "memory" in groups:
        cpu, memory, pids = (f"/sys/fs/cgroup/{name}{groups[name]}" for name in ("cpu", "memory", "pids"))
        files = (f"{cpu}/cpu.cfs_quota_us", f"{cpu}/cpu.cfs_period_us")
        quota = " ".join(Path(file).read_text().strip() for file in files)
        return quota, _number(f"{memory}/memory.limit_in_bytes"), _number(f"{pids}/pids.max")
    group = f"/sys/fs/cgroup{groups['']}"
    return Path(f"{group}/cpu.max").read_text().strip(), _number(f"{group}/memory.max"), _number(f"{group}/pids.max")


def _number(file: str) -> int:
    return int(Path(file).read_text())
