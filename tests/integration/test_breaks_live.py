"""`--break absence-stops` on a real agent with real workloads: it does what production must not, and is found out."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from agent_process import AgentProcess
from agent_replica import ReplicaHalf

from chaos.trace.check import check_directory
from scheduler.model import Limits, Workload
from scheduler.session import Assignment

pytestmark = pytest.mark.root

ALLOCATION = "default/web.0"


class BrokenAgent(AgentProcess):
    """Started by the public command, with a break."""

    breaks: tuple[str, ...] = ()

    def start(self) -> None:
        words = [word for name in self.breaks for word in ("--break", name)]
        with self._log_path.open("ab") as log:
            clean = {key: value for key, value in os.environ.items() if not key.startswith("SKERRY_")}
            command = [sys.executable, "-m", "skerry", "agent", "--config", str(self._config), *words]
            self.process = subprocess.Popen(command, stdout=log, stderr=log, env=clean)


@pytest.fixture
async def replica() -> AsyncIterator[ReplicaHalf]:
    one = await ReplicaHalf().open()
    yield one
    await one.close()


@pytest.fixture
async def agent(tmp_path: Path, replica: ReplicaHalf) -> AsyncIterator[BrokenAgent]:
    one = BrokenAgent(tmp_path / "a1", "a1", f"b{os.getpid()}", [replica.address])
    yield one
    await one.clean_up()


def _web(epoch: int, name: str = ALLOCATION) -> Assignment:
    work = Workload("web", "default", "service", ("/bin/sleep", "60"), {}, Limits(0, 0, 0), (), 1, "keep")
    return Assignment(name, epoch, 1, work)


async def _runs(replica: ReplicaHalf, name: str) -> None:
    await replica.until(lambda: any(report.state == "running" for report in replica.reports(name)))


async def _ran_into_an_empty_set(agent: BrokenAgent, replica: ReplicaHalf) -> None:
    """The agent runs a workload, then gets a set that does not name it, and then works on."""
    agent.start()
    await replica.until(lambda: replica.connected)
    replica.assignments = [_web(50)]
    await replica.push()
    await _runs(replica, ALLOCATION)
    replica.assignments = [_web(60, "default/other.0")]
    await replica.push()
    await _runs(replica, "default/other.0")  # so the set was taken in


async def test_a_broken_agent_stops_what_no_set_names_and_the_checker_names_the_stop(agent, replica, tmp_path):
    agent.breaks = ("absence-stops",)
    await _ran_into_an_empty_set(agent, replica)
    await replica.until(lambda: any(report.state == "exited" for report in replica.reports(ALLOCATION)))
    assert "DELIBERATELY BROKEN" in agent.log
    await agent.end()
    found = {each.name: each for each in check_directory(tmp_path / "trace").invariants}["absence-never-stops"]
    assert found.ok is False
    assert ALLOCATION in found.detail
    assert any("absence-stops" in file.read_text().splitlines()[0] for file in (tmp_path / "trace").glob("a1-*.jsonl"))


async def test_an_honest_agent_lets_it_run(agent, replica, tmp_path):
    await _ran_into_an_empty_set(agent, replica)
    assert not any(report.state == "exited" for report in replica.reports(ALLOCATION))
    await agent.end()
    found = {each.name: each for each in check_directory(tmp_path / "trace").invariants}["absence-never-stops"]
    assert found.ok is not False
