"""cgroup v1: one hierarchy a controller.

Owns: the v1 files.  Must not know: cgroup v2.

The `pids` hierarchy is the one that names, membership and identity are read from; it is made first
and removed last.  Swap is off: memory and memory+swap get the same limit.  v1 has no kill file:
the freezer holds the group still while its members are signalled, so that no fork escapes.
"""

from __future__ import annotations

import contextlib
import os
import time
from typing import Final

from agents.sandboxer.cgroups import base
from agents.sandboxer.cgroups.base import Backend, CgroupError, Limits

CONTROLLERS: Final = ("pids", "memory", "cpu", "cpuacct", "freezer")
FREEZE_NS_MAX: Final = 200_000_000
PROBE: Final = "probe@0"


class V1(Backend):
    """The v1 backend.  `mounts`: controller → mount point."""

    kind = "cgroup-v1"

    def __init__(self, mounts: dict[str, str], tree: str) -> None:
        missing = [controller for controller in CONTROLLERS if controller not in mounts]
        if missing:
            raise CgroupError(f"no v1 hierarchy of {', '.join(missing)}")
        self._trees = {controller: os.path.join(mounts[controller], tree) for controller in CONTROLLERS}
        self._distinct = sorted(set(self._trees.values()) - {self._trees["pids"]})

    def prepare(self) -> None:
        """See `Backend.prepare`."""
        try:
            for tree in (self._trees["pids"], *self._distinct):
                base.make_tree(tree)
            self._sweep()
            base.remove_directories(self._dir("pids", PROBE))
            self.create(PROBE, Limits(500, 64 << 20, 16), b"{}")
            self.remove(PROBE)
        except OSError as error:
            with contextlib.suppress(OSError):
                self.remove(PROBE)
                self.remove_tree()
            raise CgroupError(f"{error.strerror}: {error.filename or 'a limit'}") from error

    def create(self, name: str, limits: Limits, identity: bytes) -> None:
        """See `Backend.create`."""
        try:
            for tree in (self._trees["pids"], *self._distinct):
                os.mkdir(f"{tree}/{name}")
            base.set_identity(self._dir("pids", name), identity)
            self._limit(name, limits)
        except OSError:
            self.remove(name)
            raise

    def _limit(self, name: str, limits: Limits) -> None:
        cpu, memory = self._dir("cpu", name), self._dir("memory", name)
        if limits.cpu_millicores:
            base.write(f"{cpu}/cpu.cfs_period_us", str(base.PERIOD_US))
            base.write(f"{cpu}/cpu.cfs_quota_us", str(limits.quota_us))
        if limits.memory_bytes:
            base.write(f"{memory}/memory.limit_in_bytes", str(limits.memory_bytes))
            with contextlib.suppress(FileNotFoundError):  # a kernel without swap accounting
                base.write(f"{memory}/memory.memsw.limit_in_bytes", str(limits.memory_bytes))
        with contextlib.suppress(OSError):
            base.write(f"{memory}/memory.swappiness", "0")
        if limits.pids:
            base.write(f"{self._dir('pids', name)}/pids.max", str(limits.pids))

    def join_fds(self, name: str) -> list[int]:
        """See `Backend.join_fds`."""
        files = [f"{tree}/{name}/cgroup.procs" for tree in (self._trees["pids"], *self._distinct)]
        return _open_all(files)

    def identity(self, name: str) -> bytes | None:
        """See `Backend.identity`."""
        return base.get_identity(self._dir("pids", name))

    def write_identity(self, name: str, identity: bytes) -> None:
        """See `Backend.write_identity`."""
        base.set_identity(self._dir("pids", name), identity)

    def names(self) -> list[str]:
        """See `Backend.names`."""
        return base.subdirectories(self._trees["pids"])

    def members(self, name: str) -> list[int]:
        """See `Backend.members`: of every hierarchy, since a process may have joined only some."""
        found: set[int] = set()
        for tree in (self._trees["pids"], *self._distinct):
            found.update(base.processes(f"{tree}/{name}"))
        return sorted(found)

    def kill(self, name: str) -> None:
        """See `Backend.kill`."""
        if not self.members(name):
            return
        freezer = f"{self._dir('freezer', name)}/freezer.state"
        try:
            self._freeze(freezer)
            base.kill_members(self, name)
        finally:
            with contextlib.suppress(FileNotFoundError):
                base.write(freezer, "THAWED")  # a frozen process takes even SIGKILL only when thawed

    def _freeze(self, freezer: str) -> None:
        deadline = time.monotonic_ns() + FREEZE_NS_MAX
        with contextlib.suppress(OSError):
            base.write(freezer, "FROZEN")
            while base.read(freezer) != "FROZEN" and time.monotonic_ns() < deadline:
                base.write(freezer, "FROZEN")

    def usage(self, name: str) -> tuple[int, int, int]:
        """See `Backend.usage`."""
        return (
            base.read_number(f"{self._dir('cpuacct', name)}/cpuacct.usage"),
            base.read_number(f"{self._dir('memory', name)}/memory.usage_in_bytes"),
            base.read_number(f"{self._dir('pids', name)}/pids.current"),
        )

    def oom_kills(self, name: str) -> int:
        """See `Backend.oom_kills`."""
        return base.read_number(f"{self._dir('memory', name)}/memory.oom_control", "oom_kill")

    def watch_oom(self, name: str) -> int:
        """See `Backend.watch_oom`: an eventfd, signalled when the group runs out of memory."""
        memory = self._dir("memory", name)
        event = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        try:
            control = os.open(f"{memory}/memory.oom_control", os.O_RDONLY | os.O_CLOEXEC)
            try:
                base.write(f"{memory}/cgroup.event_control", f"{event} {control}")
            finally:
                os.close(control)
        except OSError:
            os.close(event)
            return -1
        return event

    def remove(self, name: str) -> bool:
        """See `Backend.remove`."""
        removed = [base.remove_directories(f"{tree}/{name}") for tree in self._distinct]
        return all(removed) and base.remove_directories(self._dir("pids", name))

    def remove_tree(self) -> bool:
        """See `Backend.remove_tree`."""
        self._sweep()
        if self.names():
            return False
        removed = [_rmdir(tree) for tree in (*self._distinct, self._trees["pids"])]
        return all(removed)

    def path(self, name: str) -> str:
        """See `Backend.path`."""
        return self._dir("pids", name)

    def home(self) -> str:
        """See `Backend.home`."""
        return self._trees["pids"]

    def _dir(self, controller: str, name: str) -> str:
        return f"{self._trees[controller]}/{name}"

    def _sweep(self) -> None:
        """Remove what a crash between two mkdirs or rmdirs left behind in the other hierarchies."""
        named = self.names()
        for tree in self._distinct:
            for name in base.subdirectories(tree):
                if name not in named:
                    base.remove_directories(f"{tree}/{name}")


def _open_all(files: list[str]) -> list[int]:
    opened: list[int] = []
    try:
        for file in files:
            opened.append(os.open(file, os.O_WRONLY | os.O_CLOEXEC))
    except OSError:
        for fd in opened:
            os.close(fd)
        raise
    return opened


def _rmdir(path: str) -> bool:
    try:
        os.rmdir(path)
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True
