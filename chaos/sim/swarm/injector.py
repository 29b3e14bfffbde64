"""Carrying out the faults of a plan, as leases that end.

Owns: when each fault begins and ends, its `fault` and `heal` events, and that no fault undoes another's work.
Must not know: the load, the phases of a run, or how the simulated machines do what they are told.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from typing import Any, Final, Protocol

from chaos.scenario.backend import Emitter
from chaos.sim.links import CUT, MS, US, Impairment
from chaos.sim.swarm.kinds import KINDS, Fault
from chaos.sim.swarm.targets import Pair, links_of, resolved

RULE: Final = {"rule": "simulator"}


class Stage(Protocol):
    """The simulated machines, as faults see them.  Every call takes effect at once and may be repeated."""

    replicas: tuple[str, ...]
    agents: tuple[str, ...]

    def leader(self) -> str | None:
        """Who leads the highest term among the replicas that run."""
        ...

    def impair(self, name: str, pairs: Sequence[Pair], impairment: Impairment) -> None:
        """Put an impairment on links, under a name."""
        ...

    def heal(self, name: str) -> None:
        """Take it off."""
        ...

    def reset(self, pairs: Sequence[Pair]) -> None:
        """Break the connections that the first of each pair dialled to the second."""
        ...

    def crash(self, name: str, process: str = "") -> None:
        """SIGKILL a machine's replica or agent, or its process of that name; harmless if it does not run."""
        ...

    def tear(self, name: str, step: int) -> None:
        """Kill a node's sandboxer in the middle of the next such step; see `chaos.sim.syscalls.STEPS`."""
        ...

    def stop(self, name: str) -> None:
        """Tell a replica to end."""
        ...

    def stop_agent(self, name: str) -> None:
        """Tell a node's agent to end."""
        ...

    def power_off(self, name: str) -> None:
        """Crash everything on a machine and lose what was not synced."""
        ...

    def boot(self, name: str) -> None:
        """Power on, and start what should run there and does not."""
        ...

    def pause(self, name: str) -> None:
        """Let a machine stand still."""
        ...

    def resume(self, name: str) -> None:
        """Let it go on."""
        ...

    def wipe(self, name: str) -> None:
        """Empty a machine's disk; a replica's must be off, a node's agent and sandboxer are killed."""
        ...

    def rot(self, name: str) -> bool:
        """Change a synced byte of a machine's log; it must be off.  False if there is none."""
        ...

    def disk_fault(self, name: str, kind: str, amount: int) -> None:
        """Put ``slow-disk`` (ms), ``hung-disk``, ``full-disk``, ``failing-disk`` or ``failing-journal`` into force."""
        ...

    def disk_heal(self, name: str, kind: str) -> None:
        """End it."""
        ...

    def step_clock(self, name: str, by_ms: int) -> None:
        """Let wall time jump."""
        ...

    def drift_clock(self, name: str, ppm: int | None) -> None:
        """Let all clocks of a machine run at another rate; None = its usual one."""
        ...


class Injector:
    """Fires and ends faults.

    Attributes:
        fired: how many have begun.
    """

    def __init__(self, stage: Stage, trace: Emitter) -> None:
        self._stage = stage
        self._trace = trace
        self._in_force: dict[int, Fault] = {}
        self._down: dict[str, set[int]] = {}
        self._still: dict[str, set[int]] = {}
        self._flapping: dict[int, asyncio.Task[None]] = {}
        self.fired = 0

    async def run(self, faults: Sequence[Fault]) -> None:
        """Carry a schedule out; returns when the last fault has ended."""
        loop = asyncio.get_running_loop()
        start = loop.time()
        moments = [(fault.at_ms, 1, number) for number, fault in enumerate(faults)]
        moments += [(fault.at_ms + fault.for_ms, 0, number) for number, fault in enumerate(faults)]
        for at_ms, begins, number in sorted(moments):
            await asyncio.sleep(start + at_ms / 1000 - loop.time())
            if begins:
                self.fire(number, faults[number])
            else:
                self.end(number)

    def fire(self, number: int, fault: Fault) -> None:
        """Put one fault into force."""
        fault = resolved(fault, self._stage.leader(), self._stage.replicas)
        self._in_force[number] = fault
        self.fired += 1
        self._tell("fault", number, fault)
        if KINDS[fault.kind].group == "network":
            self._break_links(number, fault)
        else:
            for name in fault.nodes:
                self._break(number, fault, name)

    def end(self, number: int) -> None:
        """End one fault; harmless if it is not in force."""
        fault = self._in_force.pop(number, None)
        if fault is None:
            return
        if KINDS[fault.kind].group == "network":
            self._heal_links(number)
        else:
            for name in fault.nodes:
                self._mend(number, fault, name)
        self._tell("heal", number, fault)

    def end_all(self, keep: Iterable[str] = ()) -> None:
        """End every fault in force but those that hit machines of `keep` alone."""
        kept = set(keep)
        for number, fault in list(self._in_force.items()):
            if not fault.nodes or not kept.issuperset((*fault.nodes, *fault.others)):
                self.end(number)

    # -- links --------------------------------------------------------------------------------

    def _break_links(self, number: int, fault: Fault) -> None:
        pairs = links_of(fault, self._stage.replicas, self._stage.agents)
        name = _name(number)
        match fault.kind:
            case "flap" | "reset":
                work = self._flap(name, pairs, fault) if fault.kind == "flap" else self._reset(pairs, fault)
                self._flapping[number] = asyncio.get_running_loop().create_task(work)
            case "refuse":
                self._stage.impair(name, pairs, Impairment(refuse=True))
                self._stage.reset(pairs)
            case _:
                self._stage.impair(name, pairs, impairment_of(fault))

    def _heal_links(self, number: int) -> None:
        task = self._flapping.pop(number, None)
        if task is not None:
            task.cancel()
        self._stage.heal(_name(number))

    async def _flap(self, name: str, pairs: Sequence[Pair], fault: Fault) -> None:
        while True:
            self._stage.impair(name, pairs, CUT)
            await asyncio.sleep(fault.amount / 1000)
            self._stage.heal(name)
            await asyncio.sleep(fault.amount / 1000)

    async def _reset(self, pairs: Sequence[Pair], fault: Fault) -> None:
        while True:
            self._stage.reset(pairs)
            await asyncio.sleep(fault.amount / 1000)

    # -- machines -----------------------------------------------------------------------------

    def _break(self, number: int, fault: Fault, name: str) -> None:
        stage = self._stage
        match fault.kind:
            case "kill" | "kill-agent":
                self._down.setdefault(name, set()).add(number)
                stage.crash(name)
            case "restart":
                self._down.setdefault(name, set()).add(number)
                stage.stop(name)
            case "kill-sandboxer":
                stage.crash(name, "sandboxer")
            case "kill-node" | "upgrade" | "wipe-agent":
                self._down.setdefault(name, set()).add(number)
                if fault.kind == "upgrade":
                    stage.stop_agent(name)
                elif fault.kind == "kill-node":
                    stage.crash(name, "both")
                else:
                    stage.wipe(name)
            case "tear-sandboxer":
                stage.tear(name, fault.amount)
            case "power" | "power-agent" | "power-all" | "wipe" | "rot":
                self._down.setdefault(name, set()).add(number)
                stage.power_off(name)
                if fault.kind == "wipe":
                    stage.wipe(name)
                elif fault.kind == "rot":
                    stage.rot(name)
            case "pause" | "stall":
                self._still.setdefault(name, set()).add(number)
                stage.pause(name)
            case "clock-step":
                stage.step_clock(name, fault.amount)
            case "clock-drift":
                stage.drift_clock(name, fault.amount)
            case _:
                stage.disk_fault(name, fault.kind, fault.amount)

    def _mend(self, number: int, fault: Fault, name: str) -> None:
        stage = self._stage
        match fault.kind:
            case "pause" | "stall":
                reasons = self._still[name]
                reasons.discard(number)
                if not reasons:
                    stage.resume(name)
            case "clock-step":
                stage.step_clock(name, -fault.amount)
            case "clock-drift":
                stage.drift_clock(name, None)
            case "slow-disk" | "hung-disk" | "full-disk" | "failing-disk":
                stage.disk_heal(name, fault.kind)
        reasons = self._down.get(name, set())
        reasons.discard(number)
        if not reasons:
            stage.boot(name)

    def _tell(self, event: str, number: int, fault: Fault) -> None:
        """One event a machine that is hit itself, one for a fault of links."""
        args: dict[str, Any] = {"amount": fault.amount, "fault": fault.kind}
        if fault.others:
            args |= {"groups": [fault.nodes, fault.others]}
        hits_links = KINDS[fault.kind].group == "network"
        for target in [",".join(fault.nodes)] if hits_links else fault.nodes:
            self._trace.emit(
                event, id=f"{_name(number)}:{target}", kind=WORDS.get(fault.kind, fault.kind), target=target,
                args=args, by=RULE,
            )  # fmt: skip


WORDS: Final = {
    "kill-agent": "kill",
    "kill-node": "kill",
    "restart": "kill",
    "upgrade": "kill",
    "wipe-agent": "kill",
    "power": "kill",
    "power-agent": "kill",
    "power-all": "kill",
    "wipe": "kill",
    "rot": "kill",
    "stall": "pause",
    "one-way-partition": "cut",
}
"""Where the trace's own word for what happened to a process or link is another one."""


def _name(number: int) -> str:
    return f"f{number}"


def impairment_of(fault: Fault) -> Impairment:
    """What a network fault does to each link that it hits."""
    match fault.kind:
        case "delay":
            return Impairment(delay_ns=fault.amount * US, jitter_ns=fault.amount * US // 2)
        case "loss":
            return Impairment(loss=fault.amount / 1000)
        case "throttle":
            return Impairment(bytes_per_s=fault.amount)
    return CUT


__all__ = ["MS", "Injector", "Stage", "impairment_of"]
