"""Between fork and exec: what a workload's init and main process do to themselves, and in which order.

Owns: that order: cgroups, namespaces, network, descriptors, user, privileges.
Must not know: how they were forked (`process`), clients, journals, which cgroup backend made the descriptors.

The main process reports by a close-on-exec pipe: a failure with its step, or `EXEC_MARK` and then, once exec succeeded,
the end.
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

EXEC_MARK: Final = b"."
"""Written just before exec: an empty pipe means that the process died earlier."""
REPORT_BYTES_MAX: Final = 4096
REPARENT_CHECK_S: Final = 0.0002
FAILED_STATUS: Final = 127
WAITING_NAME: Final = "skerry-waits"
"""Name of a main process before its exec; a new sandboxer knows by it that the program never ran."""
STANDARD: Final = (0, 1, 2)
SIGNALS: Final = tuple(sorted(signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}))
NOT_ROOT_HERE: Final = (
    "; a workload is root inside, but an unprivileged user on this machine's files:"
    " its program, and every directory on the way to it, must be open to everybody"
)


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


@dataclass(frozen=True, slots=True)
class Ready:
    """What a sandboxer keeps ready for its children."""

    means: Means
    null: int
    image: int
    """Of the init."""
    files: tuple[int, int]
    """RLIMIT_NOFILE of workloads; the sandboxer's own is raised."""


def become_init(ready: Ready, plan: Plan, parent: int, helper: int, meeting: Meeting) -> NoReturn:
    """Be process 1 of a workload; `helper`: a process that forked us and ends, or -1."""
    try:
        _close_all_but(ready.null, ready.image, plan.claim, meeting.as_init())
        if plan.user:
            user_namespace.make(meeting)
            os.set_inheritable(plan.claim, True)
        if plan.die_with_parent:  # after a change of user, which would undo it
            _die_with(parent, helper)
        os.setsid()
        os.chdir("/")
        for fd in STANDARD:
            os.dup2(ready.null, fd, inheritable=True)
        _default_signals()
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # orphans of the namespace reap themselves
        if ready.means.capabilities:
            capabilities.drop_all()
        linux.prctl(linux.PR_SET_DUMPABLE, 0)  # as the image is: the program may be running before it
        if meeting.hear() == GO:
            init_image.run(ready.image, plan.claim)
    finally:
        os._exit(FAILED_STATUS)


def become_main(ready: Ready, plan: Plan, parent: int, gate: int, report: int, meeting: Meeting | None) -> NoReturn:
    """Be a workload's main process, and once the gate opens its program; no `meeting`: there is no init."""
    course = _Course(plan.command[0])
    try:
        if meeting is None:
            if plan.die_with_parent:
                _die_with(parent, -1)
        else:
            meeting.as_main()
        os.setsid()
        os.umask(0o022)
        course.step = "joining its cgroups"
        for fd in plan.join:
            os.write(fd, b"0")
        if ready.means.namespaces:
            _leave(plan, course)
        course.step = "setting limits"
        _limit(ready, plan)
        course.step = "opening its files"
        os.chdir(plan.directory)
        for fd, source in zip(STANDARD, (ready.null, plan.stdout, plan.stderr), strict=True):
            os.dup2(source, fd, inheritable=True)
        _default_signals()
        linux.set_name(WAITING_NAME)
        if meeting is not None and plan.user:
            course.step = "entering its user namespace"
            user_namespace.enter(meeting, plan.user)
        course.step = "giving up its privileges"
        _give_up(ready.means)
        if os.read(gate, 1) != b"g":
            os._exit(FAILED_STATUS)
        if meeting is not None:
            meeting.say(GO)
        os.write(report, EXEC_MARK)
        course.step = f"executing {plan.command[0]!r}"
        os.execvpe(plan.command[0], plan.command, plan.env)  # noqa: S606 - what a sandboxer is for
    except BaseException as error:
        with contextlib.suppress(OSError):
            os.write(report, json.dumps({"why": course.failure(error)}).encode()[:REPORT_BYTES_MAX])
    finally:
        os._exit(FAILED_STATUS)


@dataclass(slots=True)
class _Course:
    """How far a main process has come."""

    program: str
    step: str = "preparing"
    covered: str = ""
    """What of the machine's files was hidden."""

    def failure(self, error: BaseException) -> str:
        """What to report."""
        reason = error.strerror if isinstance(error, OSError) and error.strerror else repr(error)
        hidden = isinstance(error, FileNotFoundError) and self.program.startswith(f"{self.covered}/")
        may_be_there_for_root = isinstance(error, PermissionError) or hidden
        hint = NOT_ROOT_HERE if self.covered and self.step.startswith("executing") and may_be_there_for_root else ""
        return f"{self.step}: {reason}{hint}"


def _leave(plan: Plan, course: _Course) -> None:
    """Leave the node's namespaces, for a network as planned and a directory of its own."""
    course.step = "reaching the node's network"
    outside = network_link.Link() if plan.wiring else None
    course.step = "making its namespaces"
    namespaces.enter(plan.hostname, network=plan.own_network)
    course.step = "setting up its network"
    if plan.own_network:
        network_link.furnish(plan.wiring, outside)
    if plan.user:
        course.step = "covering the node's directory"
        course.covered = namespaces.cover(plan.hidden, plan.directory)


def _limit(ready: Ready, plan: Plan) -> None:
    resource.setrlimit(resource.RLIMIT_NOFILE, ready.files)
    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
    if plan.address_space_bytes:
        resource.setrlimit(resource.RLIMIT_AS, (plan.address_space_bytes, plan.address_space_bytes))


def _give_up(means: Means) -> None:
    """Capabilities, new privileges, and the system calls that nobody needs."""
    if means.capabilities:
        capabilities.drop_all()
    linux.prctl(linux.PR_SET_NO_NEW_PRIVS, 1)
    if means.filter is not None:
        means.filter.install()


def _die_with(parent: int, helper: int) -> None:
    """Be killed when the sandboxer dies; exit now if it already has.

    getppid() says 0 across a PID namespace; the host's /proc, still mounted here, knows.  A helper's child
    first waits until it is the sandboxer's: the signal comes at the death of whoever is the parent.
    """
    while (stat := linux.process_stat("self")) is not None and stat.parent == helper:
        time.sleep(REPARENT_CHECK_S)
    linux.prctl(linux.PR_SET_PDEATHSIG, signal.SIGKILL)
    stat = linux.process_stat("self")
    if stat is None or stat.parent != parent:
        os._exit(FAILED_STATUS)


def _default_signals() -> None:
    """Undo what Python and the sandboxer changed; exec would hand ignored signals on."""
    for number in SIGNALS:
        with contextlib.suppress(OSError, ValueError):
            signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def _close_all_but(*kept: int) -> None:
    """Close every descriptor but these and the standard ones: an init that waits must not hold a socket or a gate."""
    last = STANDARD[-1]
    for fd in (*sorted(fd for fd in kept if fd > last), os.sysconf("SC_OPEN_MAX")):
        os.closerange(last + 1, fd)
        last = fd
