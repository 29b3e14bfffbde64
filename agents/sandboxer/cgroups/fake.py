"""No cgroups: files in a directory stand for groups, sessions for membership.

Owns: what remains where no hierarchy can be used (a run without privileges).
Must not know: cgroup files.

Nothing is limited here; the sandboxer says `degraded`.  A process that leaves its session leaves
its group too.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil

from agents.sandboxer import linux
from agents.sandboxer.cgroups import base
from agents.sandboxer.cgroups.base import Backend, Limits


class Fake(Backend):
    """The backend of last resort.  `directory` is the node's own."""

    kind = "no cgroups"
    confines = False

    def __init__(self, directory: str) -> None:
        self._directory = directory

    def prepare(self) -> None:
        """See `Backend.prepare`."""
        os.makedirs(self._directory, exist_ok=True)

    def create(self, name: str, limits: Limits, identity: bytes) -> None:
        """See `Backend.create`."""
        os.mkdir(self.path(name))
        self.write_identity(name, identity)

    def join_fds(self, name: str) -> list[int]:
        """See `Backend.join_fds`."""
        return []

    def identity(self, name: str) -> bytes | None:
        """See `Backend.identity`."""
        with contextlib.suppress(OSError), open(f"{self.path(name)}/identity", "rb") as file:
            return file.read()
        return None

    def write_identity(self, name: str, identity: bytes) -> None:
        """See `Backend.write_identity`."""
        aside = f"{self.path(name)}/identity.new"
        with open(aside, "wb") as file:
            file.write(identity)
        os.rename(aside, f"{self.path(name)}/identity")

    def names(self) -> list[str]:
        """See `Backend.names`."""
        return base.subdirectories(self._directory)

    def members(self, name: str) -> list[int]:
        """See `Backend.members`: the live processes of the main process's session."""
        session = self._session(name)
        if not session:
            return []
        found = []
        for entry in os.listdir("/proc"):
            stat = linux.process_stat(entry) if entry.isdigit() else None
            if stat is not None and stat.session == session and not stat.zombie:
                found.append(stat.pid)
        return found

    def _session(self, name: str) -> int:
        """The session id, which is the main process's pid; 0 when that pid now is another process's."""
        try:
            identity = json.loads(self.identity(name) or b"{}")
        except ValueError:
            return 0
        pid = int(identity.get("pid", 0))
        stat = linux.process_stat(pid) if pid else None
        if stat is not None and stat.start_ticks != identity.get("ticks"):
            return 0
        return pid

    def kill(self, name: str) -> None:
        """See `Backend.kill`; bounded, since without a cgroup a fork can outrun it."""
        for _ in range(16):
            if not base.kill_members(self, name):
                return

    def usage(self, name: str) -> tuple[int, int, int]:
        """See `Backend.usage`: of the processes alive now."""
        ticks = memory = 0
        members = self.members(name)
        for pid in members:
            with contextlib.suppress(OSError, ValueError, IndexError):
                with open(f"/proc/{pid}/stat", "rb") as file:
                    fields = file.read().rpartition(b")")[2].split()
                ticks += int(fields[11]) + int(fields[12])
                memory += int(fields[21]) * os.sysconf("SC_PAGE_SIZE")
        return ticks * (1_000_000_000 // os.sysconf("SC_CLK_TCK")), memory, len(members)

    def oom_kills(self, name: str) -> int:
        """See `Backend.oom_kills`."""
        return 0

    def remove(self, name: str) -> bool:
        """See `Backend.remove`."""
        if self.members(name):
            return False
        shutil.rmtree(self.path(name), ignore_errors=True)
        return True

    def remove_tree(self) -> bool:
        """See `Backend.remove_tree`."""
        if self.names():
            return False
        with contextlib.suppress(FileNotFoundError):
            os.unlink(f"{self._directory}/lease")
        with contextlib.suppress(FileNotFoundError):
            os.rmdir(self._directory)
        return True

    def path(self, name: str) -> str:
        """See `Backend.path`."""
        return f"{self._directory}/{name}"

    def home(self) -> str:
        """See `Backend.home`."""
        return self._directory

    def keep_lease(self, lease: bytes) -> None:
        """See `Backend.keep_lease`: a file, since not every file system takes attributes."""
        aside = f"{self._directory}/lease.new"
        with open(aside, "wb") as file:
            file.write(lease)
        os.rename(aside, f"{self._directory}/lease")

    def kept_lease(self) -> bytes | None:
        """See `Backend.kept_lease`."""
        with contextlib.suppress(OSError), open(f"{self._directory}/lease", "rb") as file:
            return file.read()
        return None
