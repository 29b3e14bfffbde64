"""cgroup v2: one hierarchy with every controller.

Owns: the v2 files and the delegation of controllers.  Must not know: v1.

Controllers reach a group only through its ancestors' ``cgroup.subtree_control``: the node's tree enables
them for its groups, its parent must have them enabled (it is asked to, once, if it has not: the only
write outside the tree).  Processes live in leaves alone.  ``memory.oom.group`` makes the kernel end an
attempt as a whole.  Swap is off.
"""

from __future__ import annotations

import contextlib
import os
from typing import Final

from agents.sandboxer.cgroups import base
from agents.sandboxer.cgroups.base import Backend, CgroupError, Limits

CONTROLLERS: Final = ("cpu", "memory", "pids")
PROBE: Final = "probe@0"


class V2(Backend):
    """The v2 backend.  `mount`: where cgroup2 is mounted."""

    kind = "cgroup-v2"

    def __init__(self, mount: str, tree: str) -> None:
        self._mount = mount
        self._tree = os.path.join(mount, tree)

    def prepare(self) -> None:
        """See `Backend.prepare`."""
        offered = _words(f"{self._mount}/cgroup.controllers")
        missing = [controller for controller in CONTROLLERS if controller not in offered]
        if missing:
            raise CgroupError(f"the v2 hierarchy lacks {', '.join(missing)}")
        try:
            self._delegate()
            base.make_tree(self._tree)
            _enable(self._tree)
            base.remove_directories(f"{self._tree}/{PROBE}")
            self.create(PROBE, Limits(500, 64 << 20, 16), b"{}")
            self.remove(PROBE)
        except OSError as error:
            with contextlib.suppress(OSError):
                self.remove(PROBE)
                self.remove_tree()
            raise CgroupError(f"{error.strerror}: {error.filename or 'a limit'}") from error

    def _delegate(self) -> None:
        """Enable the controllers from the mount point down to the tree's parent."""
        path = self._mount
        for part in ("", *os.path.relpath(os.path.dirname(self._tree), self._mount).split("/")):
            path = os.path.normpath(os.path.join(path, part))
            try:
                _enable(path)
            except OSError as error:
                raise CgroupError(
                    f"controllers cannot be enabled in {path}: {error.strerror}"
                    " (processes in a group that is not the root forbid it)"
                ) from error

    def create(self, name: str, limits: Limits, identity: bytes) -> None:
        """See `Backend.create`."""
        group = self.path(name)
        os.mkdir(group)
        try:
            base.set_identity(group, identity)
            if limits.cpu_millicores:
                base.write(f"{group}/cpu.max", f"{limits.quota_us} {base.PERIOD_US}")
            if limits.memory_bytes:
                base.write(f"{group}/memory.max", str(limits.memory_bytes))
            with contextlib.suppress(FileNotFoundError):  # a kernel without swap
                base.write(f"{group}/memory.swap.max", "0")
            base.write(f"{group}/memory.oom.group", "1")
            if limits.pids:
                base.write(f"{group}/pids.max", str(limits.pids))
        except OSError:
            self.remove(name)
            raise

    def join_fds(self, name: str) -> list[int]:
        """See `Backend.join_fds`."""
        return [os.open(f"{self.path(name)}/cgroup.procs", os.O_WRONLY | os.O_CLOEXEC)]

    def identity(self, name: str) -> bytes | None:
        """See `Backend.identity`."""
        return base.get_identity(self.path(name))

    def write_identity(self, name: str, identity: bytes) -> None:
        """See `Backend.write_identity`."""
        base.set_identity(self.path(name), identity)

    def names(self) -> list[str]:
        """See `Backend.names`."""
        return base.subdirectories(self._tree)

    def members(self, name: str) -> list[int]:
        """See `Backend.members`."""
        return sorted(base.processes(self.path(name)))

    def kill(self, name: str) -> None:
        """See `Backend.kill`."""
        try:
            base.write(f"{self.path(name)}/cgroup.kill", "1")
        except FileNotFoundError:
            if os.path.isdir(self.path(name)):
                self._kill_frozen(name)  # Linux < 5.14

    def _kill_frozen(self, name: str) -> None:
        freeze = f"{self.path(name)}/cgroup.freeze"
        with contextlib.suppress(OSError):
            base.write(freeze, "1")
        base.kill_members(self, name)
        with contextlib.suppress(OSError):
            base.write(freeze, "0")

    def usage(self, name: str) -> tuple[int, int, int]:
        """See `Backend.usage`."""
        group = self.path(name)
        return (
            base.read_number(f"{group}/cpu.stat", "usage_usec") * 1000,
            base.read_number(f"{group}/memory.current"),
            base.read_number(f"{group}/pids.current"),
        )

    def oom_kills(self, name: str) -> int:
        """See `Backend.oom_kills`."""
        return base.read_number(f"{self.path(name)}/memory.events", "oom_kill")

    def remove(self, name: str) -> bool:
        """See `Backend.remove`."""
        return base.remove_directories(self.path(name))

    def remove_tree(self) -> bool:
        """See `Backend.remove_tree`."""
        if self.names():
            return False
        return base.remove_directories(self._tree)

    def path(self, name: str) -> str:
        """See `Backend.path`."""
        return f"{self._tree}/{name}"

    def home(self) -> str:
        """See `Backend.home`."""
        return self._tree


def _words(path: str) -> list[str]:
    try:
        return base.read(path).split()
    except OSError as error:
        raise CgroupError(f"{path}: {error.strerror}") from error


def _enable(path: str) -> None:
    control = f"{path}/cgroup.subtree_control"
    enabled = base.read(control).split()
    wanted = [f"+{controller}" for controller in CONTROLLERS if controller not in enabled]
    if wanted:
        base.write(control, " ".join(wanted))
