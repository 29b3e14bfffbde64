"""What supervising asks of the kernel about processes: who one is, that it ends, how it ended.

Owns: those questions, as Linux answers them.  Must not know: attempts, groups, the journal, what is concluded.

Everything that decides by these answers takes them through an object of this kind (`surroundings.Kernel`), so
that the simulator's kernel, with its process ids that come back soon, can stand in.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from typing import Final

from agents.sandboxer import linux
from agents.sandboxer.events import Status


class Linux:
    """The kernel this process runs on.  Processes are named by pidfds wherever it matters."""

    def boot_id(self) -> str:
        """Random id of this boot."""
        return linux.boot_id()

    def wall_ms(self) -> int:
        """Unix time, for people."""
        return time.time_ns() // 1_000_000

    def stat(self, pid: int) -> linux.ProcessStat | None:
        """Who has this number now; None = nobody."""
        return linux.process_stat(pid)

    def open_process(self, pid: int) -> int:
        """A pidfd of whoever has this number now; OSError when nobody has."""
        return os.pidfd_open(pid)

    def signal(self, pidfd: int, number: int) -> bool:
        """Signal a process (0: only ask); False when it was reaped already."""
        try:
            signal.pidfd_send_signal(pidfd, number)
        except ProcessLookupError:
            return False
        return True

    def wait(self, pidfd: int) -> Status | None:
        """Reap a child that ended; None = it has not.  ChildProcessError: it is not our child."""
        ended = os.waitid(os.P_PIDFD, pidfd, os.WEXITED | os.WNOHANG)
        if ended is None:
            return None
        code = ended.si_status if ended.si_code == os.CLD_EXITED else None
        return Status(code, None if code is not None else ended.si_status)

    def told(self, pidfd: int) -> int | None:
        """Wait status of whoever was reaped by anybody; None = not reaped yet, or the kernel cannot tell."""
        return linux.exit_status_of_pidfd(pidfd)

    def sees_zombies(self) -> bool:
        """Whether wait statuses of others' zombies are shown to us."""
        return os.geteuid() == 0

    def read(self, fd: int, size: int) -> bytes:
        """What a child says, b"" at its end; BlockingIOError when it says nothing now."""
        return os.read(fd, size)

    def take_event(self, fd: int) -> None:
        """Take what an eventfd counted."""
        with contextlib.suppress(OSError):
            os.eventfd_read(fd)

    def close(self, fd: int) -> None:
        """Close a descriptor."""
        os.close(fd)

    def children(self) -> list[int]:
        """Our children, ended ones too; OSError where /proc cannot tell."""
        with open(f"/proc/self/task/{os.getpid()}/children", encoding="ascii") as file:
            return [int(pid) for pid in file.read().split()]

    def reap(self, pid: int) -> None:
        """Reap a child if it ended."""
        with contextlib.suppress(ChildProcessError):
            os.waitpid(pid, os.WNOHANG)


LINUX: Final = Linux()
