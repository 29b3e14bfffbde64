"""One simulated process's dealings with its machine's kernel: descriptors, and forking workloads.

Owns: the calls, and the steps at which the process can be made to die.  Numbers are `chaos.sim.descriptors`.
Must not know: what the process decides; it is the sandboxer's `surroundings.Kernel` and `surroundings.Spawner`.

A descriptor is a number; it dies with the process.  Whoever watches one is called back while there is something
to read, as by epoll.  `die_at` ends the process in the middle of what it does, at one of `STEPS`: no simulated fault
that comes between two callbacks can.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from random import Random
from typing import Final

from agents.sandboxer.birth import EXEC_MARK, FAILED_STATUS, WAITING_NAME, Plan
from agents.sandboxer.events import Status
from agents.sandboxer.linux import ProcessStat
from chaos.sim.descriptors import Callback, Descriptor, Descriptors
from chaos.sim.kernel import MS_NS, Kernel
from chaos.sim.processes import Emits, Process, Workload
from chaos.sim.programs import program_of

EXEC_NS_MAX: Final = 3 * MS_NS
GROUP_MADE, FORKED, RECORDED, LET_GO, WAITED = "group-made", "forked", "recorded", "let-go", "waited"
STEPS: Final = (GROUP_MADE, FORKED, RECORDED, LET_GO, WAITED)
"""Where a sandboxer can die: before its fork, after it, with the process ids on the group, after the exec was
allowed, and between reaping a workload and writing down how it ended."""


class Died(BaseException):
    """The process ends here; only whoever simulates it catches this."""


class Syscalls:
    """One life of one process.

    Args:
        kernel: of its machine, as it was booted last.
        defer: run a callback of this process in a later step, unless it died.
        tracer: of this process; keeps the order of what the kernel tells and what it concludes.
        dice: what its workloads do, by allocation and epoch; the same however the run goes.
    """

    def __init__(self, kernel: Kernel, defer: Callable[[Callback], None], tracer: Emits, dice: Callable[[str], Random]):
        self._kernel = kernel
        self._tracer = tracer
        self._dice = dice
        self._open = Descriptors(defer)
        self._waiting: dict[int, Process] = {}
        self._die_at = ""
        self._on_death: Callback = _nothing
        self.dead = False
        self.spent_ns = 0
        """What the present step of the process has taken so far: forking takes time, and others wait meanwhile."""

    # -- the process itself -----------------------------------------------------------------------

    def die_at(self, step: str, then: Callback) -> None:
        """Die at the next such step; `then` is told, once."""
        assert step in STEPS, f"no step {step!r}"
        self._die_at, self._on_death = step, then

    def die(self) -> None:
        """The process is gone: its descriptors, its unfinished children, its claim on the others."""
        if self.dead:
            return
        self.dead = True
        self._open.close_all()
        for process in list(self._waiting.values()):
            self._kernel.end(process, FAILED_STATUS << 8, "exit")
        self._kernel.orphan(self)

    def watch(self, fd: int, callback: Callback) -> None:
        """Call back while `fd` is readable."""
        self._open.watch(fd, callback)

    def unwatch(self, fd: int) -> None:
        """Stop that."""
        self._open.unwatch(fd)

    def hear(self) -> None:
        """What the kernel told before comes before what is concluded from it."""
        self._tracer.observe(*self._kernel.tracer.clocks())

    def tell(self) -> None:
        """What this process told before comes before what the kernel does for it."""
        self._kernel.tracer.observe(*self._tracer.clocks())

    # -- surroundings.Kernel --------------------------------------------------------------------------

    def boot_id(self) -> str:
        """See `kernel.Linux`."""
        return self._kernel.boot_id

    def wall_ms(self) -> int:
        """See `kernel.Linux`."""
        return self._kernel.timers.wall_ns() // MS_NS

    def stat(self, pid: int) -> ProcessStat | None:
        """See `kernel.Linux`."""
        return self._kernel.stat(pid)

    def open_process(self, pid: int) -> int:
        """See `kernel.Linux`."""
        process = self._kernel.find(pid)
        if process is None:
            raise ProcessLookupError(3, "no such process")
        return self._pidfd(process)

    def signal(self, pidfd: int, number: int) -> bool:
        """See `kernel.Linux`."""
        process = self._open.process(pidfd)
        self.tell()
        return self._kernel.signal(process, number)

    def wait(self, pidfd: int) -> Status | None:
        """See `kernel.Linux`."""
        process = self._open.process(pidfd)
        if process.parent is not self:
            raise ChildProcessError(10, "not a child")
        if process.alive:
            return None
        self._kernel.reap(process)
        self.hear()
        if process.workload is not None:
            self._step(WAITED)
        number = process.status & 0x7F
        return Status(None, number) if number else Status(process.status >> 8, None)

    def told(self, pidfd: int) -> int | None:
        """See `kernel.Linux`."""
        process = self._open.process(pidfd)
        self.hear()
        return process.status if process.reaped and self._kernel.traits.tells_exits else None

    def sees_zombies(self) -> bool:
        """See `kernel.Linux`."""
        return True

    def read(self, fd: int, size: int) -> bytes:
        """See `kernel.Linux`."""
        descriptor = self._open.of(fd)
        if not descriptor.said and not descriptor.ended:
            raise BlockingIOError(11, "nothing to read")
        data = bytes(descriptor.said[:size])
        del descriptor.said[:size]
        descriptor.pending = bool(descriptor.said) or descriptor.ended
        self.hear()
        return data

    def take_event(self, fd: int) -> None:
        """See `kernel.Linux`."""
        self._open.of(fd).pending = False

    def close(self, fd: int) -> None:
        """See `kernel.Linux`."""
        self._open.close(fd)

    def children(self) -> list[int]:
        """See `kernel.Linux`."""
        return [process.pid for process in self._kernel.children(self)]

    def reap(self, pid: int) -> None:
        """See `kernel.Linux`."""
        process = self._kernel.find(pid)
        if process is not None and process.parent is self and not process.alive:
            self._kernel.reap(process)

    # -- surroundings.Spawner -------------------------------------------------------------------------

    def spawn(self, plan: Plan) -> SimChild:
        """See `process.Spawner`: an init and, in its group, a main process that waits to be let through."""
        self._step(GROUP_MADE)
        self.spent_ns += self._kernel.fork_ns()
        init = self._kernel.fork("skerry-init", self, dies_with=self if plan.die_with_parent else None)
        try:
            main = self._kernel.fork(WAITING_NAME, self, init=init, group=_group_of(plan))
        except OSError:
            self._kernel.end(init, FAILED_STATUS << 8, "exit")
            self._kernel.reap(init)
            raise
        self._waiting[main.pid] = main
        report = self._open.add(Descriptor())
        child = SimChild(self, plan, main, init, report, self._pidfd(main), self._pidfd(init))
        main.watchers.append(lambda: self._main_ended(main, report))
        self._step(FORKED)
        return child

    def let_go(self, child: SimChild) -> None:
        """Have the program run, a moment from now."""
        self._step(RECORDED)
        self._waiting.pop(child.pid, None)
        env = child.plan.env
        key = f"{env['SKERRY_ALLOCATION']}:{env['SKERRY_EPOCH']}"
        dice = self._dice(f"work:{key}")
        program = program_of(child.plan.command, dice)
        token = env.get("SKERRY_FENCING_TOKEN", "")

        def execute() -> None:
            if not child.main.alive:
                return
            self.tell()
            if program is None:
                self._open.say(child.report, EXEC_MARK + json.dumps({"why": "executing it: No such file"}).encode())
                self._kernel.end(child.main, FAILED_STATUS << 8, "exit")
                return
            self._open.say(child.report, EXEC_MARK)
            workload = Workload(env["SKERRY_ALLOCATION"], int(env["SKERRY_EPOCH"]), token, program)
            self._kernel.execute(child.main, workload, child.plan.command[0].rpartition("/")[2][:15])
            self._open.hang_up(child.report)

        self._kernel.timers.after(self.spent_ns + dice.randrange(EXEC_NS_MAX), execute)
        self._step(LET_GO)

    def abandon(self, child: SimChild) -> None:
        """Never let it run."""
        self._waiting.pop(child.pid, None)
        for process in (child.main, child.init):
            self._kernel.end(process, 9, "kill")
            self._kernel.reap(process)
        for fd in (child.report, child.pidfd, child.init_pidfd):
            self.close(fd)

    # -- for backends and outputs ---------------------------------------------------------------------

    def watch_oom(self, name: str) -> int:
        """See `Backend.watch_oom`."""
        group = self._kernel.groups.group(name)
        if self._kernel.traits.oom_groups or group is None:
            return -1
        descriptor = Descriptor()
        fd = self._open.add(descriptor)
        group.watchers.append(lambda: self._open.pend(fd, descriptor))
        return fd

    def plain(self) -> int:
        """A descriptor that nothing is ever read from."""
        return self._open.add(Descriptor())

    # -- the inside -----------------------------------------------------------------------------------

    def _step(self, step: str) -> None:
        if self._die_at == step:
            self._die_at = ""
            self._on_death()
            raise Died(step)

    def _pidfd(self, process: Process) -> int:
        descriptor = Descriptor(process=process, pending=not process.alive)
        fd = self._open.add(descriptor)
        process.watchers.append(lambda: self._open.pend(fd, descriptor))
        return fd

    def _main_ended(self, main: Process, report: int) -> None:
        """Nobody holds the other end of the pipe any more."""
        self._waiting.pop(main.pid, None)
        self._open.hang_up(report)


class SimChild:
    """See `process.Child`."""

    __slots__ = ("_calls", "init", "init_pid", "init_pidfd", "main", "pid", "pidfd", "plan", "report")

    def __init__(
        self, calls: Syscalls, plan: Plan, main: Process, init: Process, report: int, pidfd: int, init_pidfd: int
    ) -> None:
        self._calls = calls
        self.plan = plan
        self.main = main
        self.init = init
        self.pid = main.pid
        self.init_pid = init.pid
        self.pidfd = pidfd
        self.init_pidfd = init_pidfd
        self.report = report

    def go(self) -> None:
        """See `process.Child.go`."""
        self._calls.let_go(self)

    def abandon(self) -> None:
        """See `process.Child.abandon`."""
        self._calls.abandon(self)


def _group_of(plan: Plan) -> str:
    """The group it joins has its output directory's name."""
    return plan.directory.rpartition("/")[2]


def _nothing() -> None:
    """Nobody is told."""
