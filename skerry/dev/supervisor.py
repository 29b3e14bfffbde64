"""The supervisor of a development cluster: starts it, serves its control socket, cleans up after it.

Owns: the order of starting and stopping, and that nothing is left behind.
Must not know: what the processes decide.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

from agents.sandbox_client import SandboxClient, SandboxerGone, SandboxerUnavailable
from skerry.client import Client
from skerry.dev.control import SOCKET, ControlServer
from skerry.dev.detached import LOCK
from skerry.dev.layout import HOST, Plan, taken_ports, write_files, write_private
from skerry.dev.processes import Child
from skerry.errors import ApiError, DevError, Unreachable

READY_S = 60.0
POLL_S = 0.1
AGENT_GRACE_S = 15.0
GRACE_S = 5.0

Say = Callable[[str], None]


class Supervisor:
    """One development cluster in `directory`.

    Args:
        directory: absolute path of the cluster's directory.
        plan: names and ports.
        settings: extra configuration for every process, dotted key → value.
        say: prints one line of progress.
        breaks: role → deliberate bugs that its processes are started with.
    """

    def __init__(
        self,
        directory: Path,
        plan: Plan,
        settings: dict[str, str],
        say: Say,
        breaks: dict[str, list[str]] | None = None,
    ) -> None:
        self._directory = directory
        self._plan = plan
        self._settings = settings
        self._say = say
        self._breaks = breaks or {}
        self._children = {name: self._child(name) for name in plan.process_names()}
        self._control = ControlServer(directory, self._handle)
        self._stopping = asyncio.Event()

    def _child(self, name: str) -> Child:
        common = ["--die-with", str(os.getpid())]
        if name == "proxy":
            arguments = [
                "chaos", "proxy", "--listen", f"{HOST}:{self._plan.chaos_port}",
                "--proxies", str(self._directory / "proxy.json"),
                "--trace", str(self._directory / "trace"), *common,
            ]  # fmt: skip
        else:
            role = "agent" if name in self._plan.agents else "replica"
            arguments = [role, "--config", str(self._directory / f"{name}.toml"), *common]
            arguments += [word for each in self._breaks.get(role, ()) for word in ("--break", each)]
        environment = {k: v for k, v in os.environ.items() if not k.startswith("SKERRY_")}
        return Child(name, arguments, self._directory / "logs" / f"{name}.log", environment)

    async def run(self, ready: Callable[[dict[str, Any]], None]) -> None:
        """Start everything, call `ready`, and stay until asked to stop; always cleans up.

        Raises:
            DevError: the cluster did not become ready; the message holds the culprit's last words.
        """
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self._stopping.set)
        lock = self._take_lock()
        try:
            (self._directory / "dev.json").unlink(missing_ok=True)
            if taken := taken_ports(self._plan):
                raise DevError(
                    f"port {taken[0]} of this cluster is in use by another program",
                    hint=f"stop that program, or start anew in another --dir (ports are kept in {self._directory})",
                )
            write_files(self._directory, self._plan, self._settings)
            await self._start_all()
            if self._stopping.is_set():
                return
            facts = self._facts()
            write_private(self._directory / "dev.json", json.dumps(facts, indent=1))
            ready(facts)
            await self._stopping.wait()
        finally:
            await self._stop_all()
            os.close(lock)

    def _take_lock(self) -> int:
        lock = os.open(self._directory / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            raise DevError(
                f"a cluster runs in {self._directory} already",
                hint=f"use it, or end it with `skerry dev stop --dir {self._directory}`",
            ) from None
        return lock

    # --- starting ---------------------------------------------------------------------------

    async def _start_all(self) -> None:
        for role, names in self._breaks.items():
            self._say(f"WARNING: every {role} is DELIBERATELY BROKEN: {', '.join(names)}")
        await self._control.start()
        await self._children["proxy"].start()
        await self._until_chaos_api()
        for replica in self._plan.replicas:
            await self._children[replica.id].start()
        self._say(f"{len(self._plan.replicas)} replicas started; waiting for a leader")
        leader = await self._until(self._leader, "no leader was elected")
        if self._stopping.is_set():
            return
        self._say(f"{leader} leads")
        for agent in self._plan.agents:
            await self._children[agent].start()
        if self._plan.agents:
            self._say(f"{len(self._plan.agents)} agents started; waiting for them to register")
            await self._until(self._nodes_ready, "not all nodes registered")

    async def _until_chaos_api(self) -> None:
        async def listens() -> bool:
            try:
                _, writer = await asyncio.open_connection(HOST, self._plan.chaos_port)
            except OSError:
                return False
            writer.close()
            return True

        await self._until(listens, "the chaos proxy did not start")

    async def _until(self, ask: Callable[[], Any], failure: str) -> Any:
        """Poll `ask` until it is truthy, a child dies, or the time is up."""
        try:
            async with asyncio.timeout(READY_S):
                while not self._stopping.is_set():
                    if answer := await ask():
                        return answer
                    self._check_children(failure)
                    await asyncio.sleep(POLL_S)
        except TimeoutError:
            raise DevError(
                f"{failure} within {READY_S:g} s", hint=f"see the logs in {self._directory / 'logs'}"
            ) from None
        return None

    def _check_children(self, failure: str) -> None:
        for child in self._children.values():
            if child.returncode is not None:
                raise DevError(
                    f"{failure}: {child.name} ended with code {child.returncode}:\n{child.last_words()}",
                    hint=f"its log is {self._directory / 'logs' / (child.name + '.log')}",
                )

    async def _leader(self) -> str | None:
        status = await self._status()
        return status.get("leader") if status.get("healthy") else None

    async def _nodes_ready(self) -> bool:
        nodes = (await self._status()).get("nodes", [])
        return sum(1 for node in nodes if node["state"] == "ready" and node.get("session")) >= len(self._plan.agents)

    async def _status(self) -> dict[str, Any]:
        token = (self._directory / "token").read_text(encoding="utf-8").strip()
        try:
            async with Client(list(self._plan.apis().values()), token=token, timeout_s=2.0) as client:
                return await client.status()
        except (ApiError, Unreachable):
            return {}

    def _facts(self) -> dict[str, Any]:
        return {
            "v": 1,
            "ready": True,
            "dir": str(self._directory),
            "cluster": self._plan.cluster,
            "apis": self._plan.apis(),
            "chaos_api": f"http://{HOST}:{self._plan.chaos_port}",
            "token_file": str(self._directory / "token"),
            "trace": str(self._directory / "trace"),
            "control": str(self._directory / SOCKET),
            "pids": self._pids(),
            "supervisor": os.getpid(),
        }

    def _pids(self) -> dict[str, int]:
        return {name: child.pid for name, child in self._children.items() if child.pid is not None}

    # --- control ------------------------------------------------------------------------------

    async def _handle(self, op: str, name: str) -> dict[str, Any]:
        if op == "pids":
            return {"pids": self._pids()}
        if op == "stop":
            self._stopping.set()
            return {}
        if name not in self._children:
            raise DevError(f"there is no process {name!r}", hint=f"one of: {', '.join(self._children)}")
        child = self._children[name]
        match op:
            case "kill":
                child.send(signal.SIGKILL)
                if child.running:
                    await child.wait()
            case "start":
                await child.start()
                self._note_pids()
            case "pause":
                child.send(signal.SIGSTOP)
                child.paused = True
            case "resume":
                child.send(signal.SIGCONT)
                child.paused = False
            case _:
                raise DevError(f"unknown operation {op!r}", hint="kill, start, pause, resume, pids or stop")
        self._say(f"{op} {name}: {'pid ' + str(child.pid) if child.running else 'not running'}")
        return {"pid": child.pid}

    def _note_pids(self) -> None:
        if (self._directory / "dev.json").exists():
            write_private(self._directory / "dev.json", json.dumps(self._facts(), indent=1))

    # --- stopping -----------------------------------------------------------------------------

    async def _stop_all(self) -> None:
        """Agents first, so that they stop their workloads and still can report it; then the rest."""
        self._say("stopping: workloads and agents, then replicas")
        children = self._children
        await asyncio.gather(*(children[name].end(AGENT_GRACE_S) for name in self._plan.agents))
        for name in self._plan.agents:
            await _end_sandboxer(self._directory / name)
        await asyncio.gather(*(children[replica.id].end(GRACE_S) for replica in self._plan.replicas))
        await children["proxy"].end(GRACE_S)
        for child in children.values():
            child.close()
        await self._control.close()
        (self._directory / "dev.json").unlink(missing_ok=True)
        self._say("stopped")


async def _end_sandboxer(directory: Path) -> None:
    """End a sandboxer whose agent was killed and could not do it."""
    try:
        client = await SandboxClient.connect(directory, start_if_absent=False)
    except SandboxerUnavailable:
        return
    with contextlib.suppress(SandboxerGone):
        await client.shutdown(stop_workloads=True)
    await client.close()
