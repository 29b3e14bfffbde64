"""How a process ended that is not our child.

Owns: the rungs of the ladder below waitid.  Must not know: attempts.
"""

from __future__ import annotations

import os
import signal

from agents.sandboxer import events as ev
from agents.sandboxer import linux


def of_stranger(pid: int, pidfd: int) -> int | None:
    """An ended process's wait status: from the kernel once it is reaped, else from its zombie; None = ask again."""
    status = linux.exit_status_of_pidfd(pidfd)
    return of_zombie(pid, pidfd) if status is None else status


def of_zombie(pid: int, pidfd: int) -> int | None:
    """The wait status /proc shows of a process that ended and is not reaped yet; to root alone."""
    stat = linux.process_stat(pid)
    if stat is None or not stat.zombie or os.geteuid() != 0:
        return None
    try:
        signal.pidfd_send_signal(pidfd, 0)  # works until it is reaped: until then the number is its own
    except ProcessLookupError:
        return None
    return stat.wait_status


def decoded(status: int | None) -> ev.Status:
    """A wait status in the words of the core; None = nobody knows."""
    if status is None:
        return ev.Status(None, None, "the kernel no longer knows how it ended")
    code = os.waitstatus_to_exitcode(status)
    return ev.Status(code, None) if code >= 0 else ev.Status(None, -code)
