"""What this machine offers: capacity, boot id, the address others reach it at.

Owns: reading the kernel's own files about the machine.
Must not know: the cluster, the sandboxer, or what runs here.

The kernel's limits on the agent's own cgroup count too: an agent inside a container offers what
the container may use.  Configuration overrides each number, so that several agents can share one
machine, each with its part.
"""

from __future__ import annotations

import os
from pathlib import Path

from agents.errors import BadAgentConfig
from scheduler.model import Capacity

MEMORY_RESERVED_SHARE = 20
"""One part in this many of the memory is left to the system itself."""
PIDS_SHARE = 2
"""One process id in this many is offered to workloads."""
PIDS_OFFERED_MAX = 4_194_304


def boot_id(proc: Path = Path("/proc")) -> str:
    """The kernel's random id of this boot."""
    return (proc / "sys/kernel/random/boot_id").read_text(encoding="ascii").strip()


def capacity(
    *,
    cpu_millicores: int = 0,
    memory_bytes: int = 0,
    pids: int = 0,
    proc: Path = Path("/proc"),
    sys: Path = Path("/sys"),
) -> Capacity:
    """What workloads may book here; 0 = take the machine's, any other number is taken as it is.

    Raises:
        BadAgentConfig: a number is negative.
    """
    for name, value in (("cpu_millicores", cpu_millicores), ("memory_bytes", memory_bytes), ("pids", pids)):
        if value < 0:
            raise BadAgentConfig(f"agent.{name} is {value}", hint="use 0 for the machine's own capacity")
    return Capacity(
        cpu_millicores or machine_cpu_millicores(sys),
        memory_bytes or machine_memory_bytes(proc, sys),
        pids or machine_pids(proc, sys),
    )


def machine_cpu_millicores(sys: Path = Path("/sys")) -> int:
    """Processors that this process may run on, cut by the CPU quota of its control group."""
    count = len(os.sched_getaffinity(0)) * 1000
    quota = _quota_millicores(sys / "fs/cgroup")
    return max(1, min(count, quota) if quota else count)


def machine_memory_bytes(proc: Path = Path("/proc"), sys: Path = Path("/sys")) -> int:
    """Physical memory, cut by the limit of the own control group, less what the system keeps."""
    total = _meminfo_bytes(proc / "meminfo", "MemTotal")
    for limit in (sys / "fs/cgroup/memory.max", sys / "fs/cgroup/memory/memory.limit_in_bytes"):
        value = _number(limit)
        if value and value < total:
            total = value
    return total - total // MEMORY_RESERVED_SHARE


def machine_pids(proc: Path = Path("/proc"), sys: Path = Path("/sys")) -> int:
    """Process ids that workloads may hold at once."""
    total = _number(proc / "sys/kernel/pid_max") or 32_768
    for limit in (sys / "fs/cgroup/pids.max", sys / "fs/cgroup/pids/pids.max"):
        value = _number(limit)
        if value and value < total:
            total = value
    return max(1, min(total // PIDS_SHARE, PIDS_OFFERED_MAX))


def _quota_millicores(cgroup: Path) -> int:
    """CPU quota in millicores, 0 = none."""
    words = _text(cgroup / "cpu.max").split()
    if len(words) == 2 and words[0].isdigit() and int(words[1]) > 0:
        return int(words[0]) * 1000 // int(words[1])
    quota, period = _number(cgroup / "cpu/cpu.cfs_quota_us"), _number(cgroup / "cpu/cpu.cfs_period_us")
    return quota * 1000 // period if quota > 0 and period > 0 else 0


def _meminfo_bytes(path: Path, key: str) -> int:
    for line in path.read_text(encoding="ascii").splitlines():
        if line.startswith(f"{key}:"):
            return int(line.split()[1]) * 1024
    raise BadAgentConfig(f"{path} has no {key}", hint="set agent.memory_bytes")


def _number(path: Path) -> int:
    """A kernel file's one number; 0 for "max", "-1", nonsense or no such file."""
    text = _text(path)
    return int(text) if text.isdigit() else 0


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii").strip()
    except OSError:
        return ""
