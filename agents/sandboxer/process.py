"""Starting a workload's processes.

Owns: what happens between fork and exec, and in which order: cgroups, namespaces, network, descriptors, privileges.
Must not know: clients, journals, which cgroup backend made the descriptors.

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
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NoReturn

from agents.sandboxer import capabilities, init_image, linux, namespaces, network_link, seccomp, user_namespace
from agents.sandboxer.meeting import GO, Meeting

DEFAULT_PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
EXEC_MARK: Final = b"."
"""Written just before exec: an empty pipe means that the process died earlier."""
REPORT_BYTES_MAX: Final = 4096
REPARENT_CHECK_S: Final = 0.0002
FAILED_STATUS: Final = 127
WAITING_NAME: Final = "skerry-waits"
"""Name of a main process before its exec; a new sandboxer knows by it that the program never ran."""
STANDARD: Final = (0, 1, 2)
NOT_ROOT_HERE: Final = (
    "; a workload is root inside, but an unprivileged user on this machine's files:"
    " its program, and every directory on the way to it, must be open to everybody"
)
_SIGNALS: Final = tuple(sorted(signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}))


@dataclass(frozen=True, slots=True)
class Means:
    """What this machine lets us confine workloads with."""

    namespaces: bool
    user_namespace: bool = False
    """Whether the namespaces need one around them."""
    capabilities: bool = False
    """Whether all of them can be given up."""
    filter: seccomp.Filter | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything a child needs, worked out before the fork."""

    command: tuple[str, ...]
    env: dict[str, str]
    directory: str
    stdout: int
    stderr: int
    join: Sequence[int]
    """Open ``cgroup.procs`` files."""
    die_with_parent: bool
    hostname: str = ""
    own_network: bool = False
    wiring: network_link.Wiring | None = None
    """How its own network is connected; None: not at all."""
    address_space_bytes: int = 0
    """RLIMIT_AS where no cgroup bounds memory; 0 = none."""
    user: int = 0
    """Who it is outside its user namespace; 0 = it has none."""
    hidden: str = ""
    """The node's directory, of which it sees `directory` alone; with `user`."""
    claim: int = -1
    """Descriptor that its init keeps open; with `user`."""


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
        self._null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
        self._init_image = init_image.memory_file()
        self._files = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (self._files[1], self._files[1]))  # some descriptors a workload

    def spawn(self, plan: Plan) -> Child:
        """Fork init and main process.

        Raises:
            OSError: namespaces or processes could not be made; nothing is left behind.
        """
        gate_read, gate_write = os.pipe2(os.O_CLOEXEC)
        report_read, report_write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        child = Child(0, -1, 0, -1, report_read, gate_write)
        parent = os.getpid()
        blocked = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
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
                self._become_init(plan, parent, meeting)
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
            self._become_main(plan, parent, gate_read, report_write, meeting)

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

    def _become_init(self, plan: Plan, parent: int, meeting: Meeting) -> NoReturn:
        try:
            _close_all_but(self._null, self._init_image, plan.claim, meeting.as_init())
            if plan.user:
                user_namespace.make(meeting)
                os.set_inheritable(plan.claim, True)
            if plan.die_with_parent:  # after a change of user, which would undo it
                self._die_with(parent)
            os.setsid()
            os.chdir("/")
            for fd in STANDARD:
                os.dup2(self._null, fd, inheritable=True)
            _default_signals()
            signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # orphans of the namespace reap themselves
            if self._means.capabilities:
                capabilities.drop_all()
            linux.prctl(linux.PR_SET_DUMPABLE, 0)  # as the image is: the program may be running before it
            if meeting.hear() != GO:
                os._exit(FAILED_STATUS)
            init_image.run(self._init_image, plan.claim)
        finally:
            os._exit(FAILED_STATUS)

    def _die_with(self, parent: int) -> None:
        """Be killed when the sandboxer dies; exit now if it already has.

        getppid() says 0 across a PID namespace; the host's /proc, still mounted here, knows.  A helper's child
        first waits until it is the sandboxer's: the signal comes at the death of whoever is the parent.
        """
        while (stat := linux.process_stat("self")) is not None and stat.parent == self._helper:
            time.sleep(REPARENT_CHECK_S)
        linux.prctl(linux.PR_SET_PDEATHSIG, signal.SIGKILL)
        stat = linux.process_stat("self")
        if stat is None or stat.parent != parent:
            os._exit(FAILED_STATUS)

    def _become_main(self, plan: Plan, parent: int, gate: int, report: int, meeting: Meeting | None) -> NoReturn:
        step, covered = "preparing", ""
        try:
            if meeting is not None:
                meeting.as_main()
            if plan.die_with_parent and not self._means.namespaces:
                self._die_with(parent)
            os.setsid()
            os.umask(0o022)
            step = "joining its cgroups"
            for fd in plan.join:
                os.write(fd, b"0")
            if self._means.namespaces:
                step = "reaching the node's network"
                outside = network_link.Link() if plan.wiring else None
                step = "making its namespaces"
                namespaces.enter(plan.hostname, network=plan.own_network)
                step = "setting up its network"
                if plan.own_network:
                    network_link.furnish(plan.wiring, outside)
            if plan.user:
                step = "covering the node's directory"
                covered = namespaces.cover(plan.hidden, plan.directory)
            step = "setting limits"
            resource.setrlimit(resource.RLIMIT_NOFILE, self._files)
            resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
            if plan.address_space_bytes:
                resource.setrlimit(resource.RLIMIT_AS, (plan.address_space_bytes, plan.address_space_bytes))
            step = "opening its files"
            os.chdir(plan.directory)
            for fd, source in ((0, self._null), (1, plan.stdout), (2, plan.stderr)):
                os.dup2(source, fd, inheritable=True)
            _default_signals()
            linux.set_name(WAITING_NAME)
            if meeting is not None and plan.user:
                step = "entering its user namespace"
                user_namespace.enter(meeting, plan.user)
            step = "giving up its privileges"
            if self._means.capabilities:
                capabilities.drop_all()
            linux.prctl(linux.PR_SET_NO_NEW_PRIVS, 1)
            if self._means.filter is not None:
                self._means.filter.install()
            if os.read(gate, 1) != b"g":
                os._exit(FAILED_STATUS)
            if meeting is not None:
                meeting.say(GO)
            os.write(report, EXEC_MARK)
            step = f"executing {plan.command[0]!r}"
            os.execvpe(plan.command[0], plan.command, plan.env)  # noqa: S606 - what a sandboxer is for
        except BaseException as error:
            reason = error.strerror if isinstance(error, OSError) and error.strerror else repr(error)
            if covered and _may_be_there_for_root(step, error, plan.command[0], covered):
                reason += NOT_ROOT_HERE
            with contextlib.suppress(OSError):
                os.write(report, json.dumps({"why": f"{step}: {reason}"}).encode()[:REPORT_BYTES_MAX])
        finally:
            os._exit(FAILED_STATUS)


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


def _default_signals() -> None:
    """Undo what Python and the sandboxer changed; exec would hand ignored signals on."""
    for number in _SIGNALS:
        with contextlib.suppress(OSError, ValueError):
            signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def _may_be_there_for_root(step: str, error: BaseException, program: str, covered: str) -> bool:
    """Whether a failure to execute may be one of permission."""
    hidden = isinstance(error, FileNotFoundError) and program.startswith(f"{covered}/")
    return step.startswith("executing") and (isinstance(error, PermissionError) or hidden)


def _close_all_but(*kept: int) -> None:
    """Close every descriptor but these and the standard ones: an init that waits must not hold a socket or a gate."""
    last = STANDARD[-1]
    for fd in (*sorted(fd for fd in kept if fd > last), os.sysconf("SC_OPEN_MAX")):
        os.closerange(last + 1, fd)
        last = fd


def _kill_and_reap(pidfd: int) -> None:
    if pidfd < 0:
        return
    with contextlib.suppress(ProcessLookupError):
        signal.pidfd_send_signal(pidfd, signal.SIGKILL)
    with contextlib.suppress(ChildProcessError):
        os.waitid(os.P_PIDFD, pidfd, os.WEXITED)
    os.close(pidfd)
