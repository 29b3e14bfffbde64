"""How a process ended that is not our child.

Owns: the rungs of the ladder below waitid.  Must not know: attempts.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from agents.sandboxer import events as ev

if TYPE_CHECKING:
    from agents.sandboxer.surroundings import Kernel


def of_stranger(kernel: Kernel, pid: int, pidfd: int) -> int | None:
    """An ended process's wait status: from the kernel once it is reaped, else from its zombie; None = ask again."""
    status = kernel.told(pidfd)
    return of_zombie(kernel, pid, pidfd) if status is None else status


def of_zombie(kernel: Kernel, pid: int, pidfd: int) -> int | None:
    """The wait status /proc shows of a process that ended and is not reaped yet; to root alone."""
    stat = kernel.stat(pid)
    if stat is None or not stat.zombie or not kernel.sees_zombies():
        return None
    return stat.wait_status if kernel.signal(pidfd, 0) else None  # until it is reaped the number is its own


def decoded(status: int | None) -> ev.Status:
    """A wait status in the words of the core; None = nobody knows."""
    if status is None:
        return ev.Status(None, None, "the kernel no longer knows how it ended")
    code = os.waitstatus_to_exitcode(status)
    return ev.Status(code, None) if code >= 0 else ev.Status(None, -code)
