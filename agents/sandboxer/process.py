"""Starting a workload's processes.

Owns: forking them, and the parent's ends of what they are told and tell.
Must not know: what they do to themselves before exec (`birth`), clients, journals, cgroups.

A workload with namespaces is two children of the sandboxer in a new PID namespace: its *init*
(pid 1: a few bytes of machine code that wait for ever; `init_image`) and its *main* process
(pid 2: the program).  So the program keeps the signal defaults that pid 1 would lose, its exit
status is the sandboxer's to wait for, and killing the init kills whatever the program left.
The init of a `stop` workload dies with the sandboxer (PR_SET_PDEATHSIG), and all with it.

The main process prepares itself, then waits for `Child.go`: until the sandboxer has recorded the
process ids on the cgroup nothing of the user's runs, and if the sandboxer dies first nothing
ever does.

Where the workload gets a user namespace (`user_namespace`), its init makes it and the main process completes it, as
the last thing that it does with privileges.

An ordinary user's sandboxer makes namespaces inside a user namespace, which it must not enter itself: a helper does,
forks init and main there, and ends; both then are the sandboxer's children, since it is their subreaper.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import signal
from dataclasses import dataclass
from typing import Final

from agents.sandboxer import birth, init_image, linux, namespaces
from agents.sandboxer.birth import EXEC_MARK, REPORT_BYTES_MAX, Means, Plan, Ready
from agents.sandboxer.meeting import Meeting

DEFAULT_PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass(slots=True)
class Child:
    """A forked workload that waits for `go`."""

    pid: int
    pidfd: int
    init_pid: int
    init_pidfd: int
    report: int
    """Reads `EXEC_MARK` and the end of file once exec succeeded, else a failure."""
    gate: int

    def go(self) -> None:
        """Let the program run."""
        with contextlib.suppress(BrokenPipeError):
            os.write(self.gate, b"g")
        os.close(self.gate)
        self.gate = -1

    def abandon(self) -> None:
        """Never let it run; kill and reap what was forked."""
        for fd in (self.gate, self.report):
            if fd >= 0:
                os.close(fd)
        for pid, fd in ((self.pid, self.pidfd), (self.init_pid, self.init_pidfd)):
            if pid:
                _kill_and_reap(fd)


class Spawner:
    """Forks workloads.  One per sandboxer; single-threaded."""

    def __init__(self, means: Means) -> None:
        self._means = means
        self._helper = -1
        self._own_namespace = os.open("/proc/self/ns/pid", os.O_RDONLY | os.O_CLOEXEC)
        null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
        files = resource.getrlimit(resource.RLIMIT_NOFILE)
        self._ready = Ready(means, null, init_image.memory_file(), files)
        resource.setrlimit(resource.RLIMIT_NOFILE, (files[1], files[1]))  # some descriptors a workload

    def spawn(self, plan: Plan) -> Child:
        """Fork init and main process.

        Raises:
            OSError: namespaces or processes could not be made; nothing is left behind.
        """
        gate_read, gate_write = os.pipe2(os.O_CLOEXEC)
        report_read, report_write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        child = Child(0, -1, 0, -1, report_read, gate_write)
        parent = os.getpid()
        blocked = signal.pthread_sigmask(signal.SIG_BLOCK, birth.SIGNALS)
        main = (gate_read, gate_write, report_write)
        try:
            if self._means.user_namespace:
                self._fork_in_user_namespace(plan, parent, child, main)
            elif self._means.namespaces:
                linux.unshare(linux.CLONE_NEWPID)
                self._fork(plan, parent, child, main)
            else:
                self._fork_main(plan, parent, child, main)
            if child.init_pid:
                child.init_pidfd = os.pidfd_open(child.init_pid)
            child.pidfd = os.pidfd_open(child.pid)
        except BaseException:
            child.abandon()
            raise
        finally:
            if self._means.namespaces and not self._means.user_namespace:
                linux.setns(self._own_namespace, linux.CLONE_NEWPID)
            signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
            os.close(gate_read)
            os.close(report_write)
        return child

    def _fork(self, plan: Plan, parent: int, child: Child, main: tuple[int, int, int]) -> None:
        """Fork init, then main, into the PID namespace of children."""
        meeting = Meeting()
        try:
            child.init_pid = os.fork()
            if child.init_pid == 0:
                birth.become_init(self._ready, plan, parent, self._helper, meeting)
            self._fork_main(plan, parent, child, main, meeting)
        finally:
            meeting.close()

    def _fork_main(
        self, plan: Plan, parent: int, child: Child, main: tuple[int, int, int], meeting: Meeting | None = None
    ) -> None:
        gate_read, gate_write, report_write = main
        child.pid = os.fork()
        if child.pid == 0:
            os.close(gate_write)
            birth.become_main(self._ready, plan, parent, gate_read, report_write, meeting)

    def _fork_in_user_namespace(self, plan: Plan, parent: int, child: Child, main: tuple[int, int, int]) -> None:
        """Have a helper enter a user namespace and fork there; its orphans come to us."""
        read, write = os.pipe2(os.O_CLOEXEC)
        helper = os.fork()
        if helper == 0:
            try:
                self._helper = os.getpid()
                namespaces.enter_user(os.geteuid(), os.getegid())
                linux.unshare(linux.CLONE_NEWPID)
                self._fork(plan, parent, child, main)
                os.write(write, json.dumps({"init": child.init_pid, "pid": child.pid}).encode())
            except BaseException as error:
                if child.init_pid:
                    os.kill(child.init_pid, signal.SIGKILL)
                os.write(write, json.dumps({"why": str(error)}).encode())
            finally:
                os._exit(0)
        os.close(write)
        os.waitpid(helper, 0)
        os.set_blocking(read, False)  # its children have the other end until they exec
        with open(read, "rb", buffering=0) as pipe:
            said = json.loads(pipe.read(REPORT_BYTES_MAX) or b'{"why": "the helper was killed"}')
        if "why" in said:
            raise OSError(f"user namespace: {said['why']}")
        child.init_pid, child.pid = said["init"], said["pid"]


def read_report(data: bytes) -> str | None:
    """Meaning of everything read from `Child.report` until its end.

    Returns:
        "" after exec, the failure, or None if the process died without a word.
    """
    failure = data[1:] if data.startswith(EXEC_MARK) else data
    if failure:
        try:
            return str(json.loads(failure)["why"])
        except (ValueError, KeyError, TypeError):
            return "it failed before its program ran"
    return "" if data else None


def workload_environment(env: dict[str, str], extra: dict[str, str]) -> dict[str, str]:
    """A clean environment: a PATH, the fencing token and names in `extra`, and what the job sets."""
    return {"PATH": DEFAULT_PATH, **extra, **env}


def _kill_and_reap(pidfd: int) -> None:
    if pidfd < 0:
        return
    with contextlib.suppress(ProcessLookupError):
        signal.pidfd_send_signal(pidfd, signal.SIGKILL)
    with contextlib.suppress(ChildProcessError):
        os.waitid(os.P_PIDFD, pidfd, os.WEXITED)
    os.close(pidfd)
