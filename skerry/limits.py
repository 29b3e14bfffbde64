"""What the kernel holds a process to: read from its cgroups, for `skerry job show --limits`.

Owns: reading cgroup v1, hybrid and v2 limit files of a pid (cgroups(7), cgroup-v2.rst).
Must not know: how the limits came to be set.
"""

from __future__ import annotations

from pathlib import Path

from msgspec import Struct

UNLIMITED_V1 = 1 << 62
"""Memory limits of v1 at or above this are "no limit"."""


class KernelLimits(Struct, frozen=True):
    """Limits in force; None = no limit, or not readable."""

    cgroup: str
    cpu_millicores: int | None
    memory_bytes: int | None
    pids: int | None


def kernel_limits(pid: int, proc: Path = Path("/proc"), root: Path = Path("/sys/fs/cgroup")) -> KernelLimits | None:
    """Limits of the cgroups that `pid` is in, or None where that process is not of this machine."""
    try:
        lines = (proc / str(pid) / "cgroup").read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    paths = {controller: path for line in lines for controller, path in _memberships(line)}
    if "memory" in paths:
        return KernelLimits(
            cgroup=paths["memory"],
            cpu_millicores=_quota_v1(root / "cpu" / paths.get("cpu", "/").lstrip("/")),
            memory_bytes=_number(root / "memory" / paths["memory"].lstrip("/") / "memory.limit_in_bytes"),
            pids=_number(root / "pids" / paths.get("pids", "/").lstrip("/") / "pids.max"),
        )
    unified = root / paths.get("", "/").lstrip("/")
    return KernelLimits(
        cgroup=paths.get("", "/"),
        cpu_millicores=_quota_v2(unified / "cpu.max"),
        memory_bytes=_number(unified / "memory.max"),
        pids=_number(unified / "pids.max"),
    )


def _memberships(line: str) -> list[tuple[str, str]]:
    """(controller, path) pairs of one line of /proc/PID/cgroup; the v2 hierarchy has controller ""."""
    _, controllers, path = line.split(":", 2)
    return [(controller, path) for controller in controllers.split(",")]


def _number(file: Path) -> int | None:
    try:
        text = file.read_text(encoding="utf-8").strip()
    except OSError:
        return None
    return None if text == "max" or int(text) >= UNLIMITED_V1 else int(text)


def _quota_v1(directory: Path) -> int | None:
    try:
        quota_us = int((directory / "cpu.cfs_quota_us").read_text(encoding="utf-8"))
        period_us = int((directory / "cpu.cfs_period_us").read_text(encoding="utf-8"))
    except OSError:
        return None
    return None if quota_us < 0 else quota_us * 1000 // period_us


def _quota_v2(file: Path) -> int | None:
    try:
        quota, period = file.read_text(encoding="utf-8").split()
    except (OSError, ValueError):
        return None
    return None if quota == "max" else int(quota) * 1000 // int(period)
