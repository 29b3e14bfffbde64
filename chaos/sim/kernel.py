"""The kernel of one simulated machine: its processes, from a boot to the end of power.

Owns: process ids (which come back as soon as they may), start ticks, zombies, who is whose parent, how processes end,
and what really ran, told to the trace.  Must not know: sandboxers' decisions, journals, the cluster.

Processes of workloads end by themselves, by a signal, by memory running out, with their init, or with their parent
(`PR_SET_PDEATHSIG`).  A number is free once its process was reaped; sometimes a stranger takes it, as soon as the
clock tick has changed: (number, start tick) names one process of a boot, on Linux as here.

The trace hears the truth as `run` events of the machine itself, which a sandboxer's claims can be held against:
``began`` (the program runs), ``ended`` (its main process did; code, signal, why), ``emptied`` (none of its processes is
left) and ``harmed`` (somebody signalled a process that is no workload's).
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from random import Random
from signal import SIGKILL, SIGTERM
from typing import Any, Final

from agents.sandboxer.linux import ProcessStat
from chaos.sim.cgroups import Groups
from chaos.sim.processes import Emits, Process, Timers, Traits, Workload
from chaos.sim.programs import FOREVER_NS, IGNORES, OBEYS

MS_NS: Final = 1_000_000
TICK_NS: Final = 10 * MS_NS
PID_FIRST: Final = 300
PID_MAX: Final = 4_096
FORK_NS: Final = (MS_NS // 2, 2 * MS_NS)
FORK_NS_BUSY: Final = (2 * MS_NS, 100 * MS_NS)
BUSY_PERCENT: Final = 5
REAP_NS_MAX: Final = 5 * MS_NS
REAP_AT_ONCE_PERCENT: Final = 30
STRANGER_PERCENT: Final = 30
STRANGER_NS: Final = (500 * MS_NS, 10_000 * MS_NS)


class Kernel:
    """One boot of one machine.

    Args:
        node: the machine's name in the trace.
        boot_id: of this boot.
        timers: its time.
        dice: chance.
        tracer: takes the truth.
        traits: what it is like.
        write: an effect of a workload: (key, token, node, pid).
    """

    def __init__(
        self,
        node: str,
        boot_id: str,
        timers: Timers,
        dice: Random,
        tracer: Emits,
        traits: Traits,
        write: Callable[[str, str, str, int], object],
    ) -> None:
        self.node = node
        self.boot_id = boot_id
        self.timers = timers
        self.dice = dice
        self.tracer = tracer
        self.traits = traits
        self.groups = Groups(self)
        self._write = write
        self._processes: dict[int, Process] = {}
        self._last_tick: dict[int, int] = {}
        self._next_pid = PID_FIRST
        self._off = False

    # -- who is there -----------------------------------------------------------------------------

    def fork(self, name: str, parent: object | None, **more: Any) -> Process:
        """A new process."""
        ticks = self.timers.now_ns() // TICK_NS
        process = Process(self._free_pid(ticks), ticks, name, parent, **more)
        self._processes[process.pid] = process
        self._last_tick[process.pid] = ticks
        return process

    def fork_ns(self) -> int:
        """How long forking a workload takes; at times the machine is busy with something else."""
        return self.dice.randrange(*(FORK_NS_BUSY if self.dice.randrange(100) < BUSY_PERCENT else FORK_NS))

    def find(self, pid: int) -> Process | None:
        """Who has this number, alive or a zombie."""
        return self._processes.get(pid)

    def stat(self, pid: int) -> ProcessStat | None:
        """/proc/PID/stat."""
        process = self._processes.get(pid)
        if process is None:
            return None
        state, status = ("S", 0) if process.alive else ("Z", process.status)
        return ProcessStat(pid, process.name, state, 1, pid, process.ticks, status)

    def children(self, parent: object) -> list[Process]:
        """Whose parent this is, zombies too."""
        return [process for process in self._processes.values() if process.parent is parent]

    def members(self, group: str) -> list[Process]:
        """Who lives in a group."""
        return [process for process in self._processes.values() if process.group == group and process.alive]

    def running(self) -> list[Workload]:
        """Workloads with a process left."""
        found: dict[int, Workload] = {}
        for process in self._processes.values():
            if process.workload is not None and process.workload.left:
                found[id(process.workload)] = process.workload
        return list(found.values())

    # -- a program's life -------------------------------------------------------------------------

    def execute(self, process: Process, workload: Workload, name: str) -> None:
        """The program takes over its main process."""
        process.name = name
        process.workload, workload.main = workload, process
        workload.running, workload.left = True, 1
        self._tell("began", workload, ticks=process.ticks, token=workload.token)
        program = workload.program
        for _ in range(program.helpers):
            self.fork(name, None, init=process.init, group=process.group, workload=workload)
            workload.left += 1
        if program.runs_ns < FOREVER_NS:
            self.timers.after(program.runs_ns, lambda: self.end(process, program.code << 8, "exit"))
        if program.oom_ns < FOREVER_NS:
            self.timers.after(program.oom_ns, lambda: self._out_of_memory(process))
        if program.effect_ns:
            self._effect(process)

    def signal(self, process: Process, number: int) -> bool:
        """Deliver a signal; False when the process was reaped."""
        if process.reaped:
            return False
        if number and process.alive:
            if process.foreign:
                self.tracer.emit("run", do="harmed", pid=process.pid, name=process.name, signal=int(number))
            self._delivered(process, number)
        return True

    def kill_group(self, group: str) -> None:
        """SIGKILL everybody in a group."""
        for process in self.members(group):
            self.end(process, int(SIGKILL), "kill")

    def end(self, process: Process, status: int, why: str) -> None:
        """A process ends; its namespace with it, if it is that one's init."""
        if not process.alive or self._off:
            return
        process.alive = False
        process.status = status
        workload = process.workload
        if workload is not None and workload.running:
            self._left(process, workload, status, why)
        for other in list(self._processes.values()):
            if other.init is process and other.alive:
                self.end(other, int(SIGKILL), why)
        if process.parent is None:
            self._reap_soon(process)
        for watcher in list(process.watchers):
            watcher()

    def reap(self, process: Process) -> None:
        """Its number is free."""
        if process.reaped:
            return
        process.reaped = True
        del self._processes[process.pid]
        if process.workload is not None and self.dice.randrange(100) < STRANGER_PERCENT:
            self.timers.after(TICK_NS, lambda: self._stranger(process.pid))

    def orphan(self, parent: object) -> None:
        """`parent` ended: its children are init's, which reaps them soon; what was to die with it dies."""
        for process in self.children(parent):
            process.parent = None
            if not process.alive:
                self._reap_soon(process)
        for process in list(self._processes.values()):
            if process.alive and process.dies_with is parent:
                self.end(process, int(SIGKILL), "parent")

    def power_off(self) -> None:
        """Everything ends at once, and nothing is reaped any more."""
        for workload in self.running():
            if workload.running:
                self._tell("ended", workload, code=None, signal=None, why="power")
            self._tell("emptied", workload)
        self._off = True

    # -- the inside ---------------------------------------------------------------------------

    def _free_pid(self, ticks: int) -> int:
        """The lowest free number or the next one, as the dice have it; none twice within a tick."""
        start = PID_FIRST if self.dice.random() < 0.5 else self._next_pid
        for pid in itertools.chain(range(start, PID_MAX), range(PID_FIRST, start)):
            if pid not in self._processes and self._last_tick.get(pid, -1) < ticks:
                self._next_pid = pid + 1 if pid + 1 < PID_MAX else PID_FIRST
                return pid
        raise OSError(11, "no process id is free")

    def _delivered(self, process: Process, number: int) -> None:
        workload = process.workload
        if number != SIGTERM or workload is None:
            self.end(process, int(number), "kill")
            return
        program = workload.program
        if program.term == OBEYS:
            self.timers.after(program.term_ns, lambda: self.end(process, 0, "exit"))
        elif program.term != IGNORES:
            self.end(process, int(SIGTERM), "kill")

    def _left(self, process: Process, workload: Workload, status: int, why: str) -> None:
        workload.left -= 1
        if process is workload.main:
            code, number = (status >> 8, None) if status & 0x7F == 0 else (None, status & 0x7F)
            self._tell("ended", workload, code=code, signal=number, why="oom" if workload.memory_gone else why)
        if workload.left == 0:
            workload.running = False
            self._tell("emptied", workload)

    def _out_of_memory(self, process: Process) -> None:
        workload = process.workload
        if not process.alive or workload is None:
            return
        workload.memory_gone = True
        self.groups.count_oom(process.group)
        if self.traits.oom_groups:
            self.kill_group(process.group)
        else:
            self.end(process, int(SIGKILL), "oom")

    def _effect(self, process: Process) -> None:
        workload = process.workload
        if not process.alive or workload is None or self._off:
            return
        self._write(workload.allocation, workload.token, self.node, process.pid)
        self.timers.after(workload.program.effect_ns, lambda: self._effect(process))

    def _reap_soon(self, process: Process) -> None:
        """The machine's init reaps: at times before anybody else could look at the zombie."""
        if self.dice.randrange(100) < REAP_AT_ONCE_PERCENT:
            self.reap(process)
            return
        self.timers.after(self.dice.randrange(REAP_NS_MAX), lambda: self.reap(process))

    def _stranger(self, pid: int) -> None:
        """Somebody else gets the number of a workload that is gone."""
        ticks = self.timers.now_ns() // TICK_NS
        if self._off or pid in self._processes or self._last_tick[pid] >= ticks:
            return
        stranger = self._processes[pid] = Process(pid, ticks, "stranger", None, foreign=True)
        self._last_tick[pid] = ticks
        self.timers.after(self.dice.randrange(*STRANGER_NS), lambda: self.end(stranger, 0, "exit"))

    def _tell(self, do: str, workload: Workload, **fields: Any) -> None:
        pid = workload.main.pid if workload.main is not None else 0
        self.tracer.emit("run", do=do, allocation=workload.allocation, epoch=workload.epoch, pid=pid, **fields)
