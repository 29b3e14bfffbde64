"""Carrying out the faults of a scenario, as leases that end.

Owns: from selector to nodes at fire time, from fault to links or processes, and undoing it.
Must not know: the load, the verdict.
"""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import Any

from chaos.links import Pair
from chaos.scenario.backend import Backend
from chaos.scenario.model import Lease, Step, seconds
from chaos.scenario.selectors import Roles, resolve, resolve_groups
from chaos.scenario.view import View
from raft.errors import SkerryError


class Injector:
    """Fires and heals; remembers what is in force, so that everything can be healed.

    Attributes:
        fired: fault id → the nodes it hit.
    """

    def __init__(self, backend: Backend, view: View, dice: Random, run: str) -> None:
        self._processes = backend.processes
        self._links = backend.links
        self._view = view
        self._trace = backend.tracer
        self._dice = dice
        self._run = run
        self._in_force: dict[str, tuple[Step, tuple[str, ...]]] = {}
        self.fired: dict[str, tuple[str, ...]] = {}

    async def fire(self, lease: Lease) -> str:
        """Put a fault into force; returns what it hit, in words.

        Raises:
            SkerryError: nobody holds the role, no such link, or the backend refuses.
        """
        step, fault = lease.step, f"{self._run}-{lease.id}"
        if step.fault in ("kill", "pause"):
            nodes = resolve(step.target or "", await self._view.roles(), self._dice)
            self._tell("fault", fault, step, nodes, {"target": step.target})
            self._in_force[lease.id] = (step, nodes)
            for node in nodes:
                await (self._processes.kill(node) if step.fault == "kill" else self._processes.pause(node))
            words = f"{step.fault} {', '.join(nodes)}"
        else:
            nodes, pairs, args = await self._links_of(step)
            self._tell("fault", fault, step, nodes, args | {"links": [f"{a}~{b}" for a, b in pairs]})
            self._in_force[lease.id] = (step, nodes)
            if step.fault == "delay":
                latency, jitter = (round(seconds(text or "0ms", "") * 1000) for text in (step.latency, step.jitter))
                await self._links.delay(fault, pairs, latency_ms=latency, jitter_ms=jitter)
            else:
                await self._links.cut(fault, pairs)
            words = f"{step.fault} {', '.join(nodes)}: {len(pairs)} links"
        self.fired[lease.id] = nodes
        return words

    async def heal(self, id: str) -> None:
        """End one fault; harmless if it is not in force."""
        found = self._in_force.get(id)
        if found is None:
            return
        step, nodes = found
        fault = f"{self._run}-{id}"
        if step.fault == "kill":
            running = await self._processes.pids()
            for node in nodes:
                if node not in running:
                    await self._processes.start(node)
        elif step.fault == "pause":
            for node in nodes:
                await self._processes.resume(node)
        else:
            await self._links.heal(fault)
        self._in_force.pop(id, None)
        self._tell("heal", fault, step, nodes, {})

    async def heal_all(self) -> list[str]:
        """End every fault in force, whatever fails in between; returns what could not be healed."""
        failures = []
        for id in list(self._in_force):
            try:
                await self.heal(id)
            except (SkerryError, OSError, TimeoutError) as error:
                failures.append(f"{id}: {error}")
        return failures

    async def _links_of(self, step: Step) -> tuple[tuple[str, ...], Sequence[Pair], dict[str, Any]]:
        """(nodes told as the target, links, arguments for the trace)."""
        roles, matrix = await self._view.roles(), await self._links.matrix()
        if step.fault == "partition":
            bridge = resolve(step.bridge, roles, self._dice) if step.bridge else ()
            apart = Roles(roles.leader, tuple(r for r in roles.replicas if r not in bridge), roles.agents)
            groups = resolve_groups(step.groups, apart, self._dice)
            told = {"groups": groups, "selectors": step.groups, "bridge": list(bridge)}
            return groups[0], matrix.between(groups), told
        if step.fault == "isolate":
            nodes = resolve(step.target or "", roles, self._dice)
            others = [node for node in (*roles.replicas, *roles.agents) if node not in nodes]
            return nodes, matrix.between([nodes, others]), {"target": step.target}
        sources = resolve(step.from_ or "", roles, self._dice)
        targets = resolve(step.to or "", roles, self._dice, taken=sources)
        args = {"from": list(sources), "to": list(targets), "selectors": [step.from_, step.to]}
        return sources, matrix.directed(sources, targets), args

    def _tell(self, kind: str, fault: str, step: Step, nodes: Sequence[str], args: dict[str, Any]) -> None:
        """A process fault is told once a node, a link fault once (its proxies tell theirs)."""
        rule = {"kill": "SIGKILL", "pause": "SIGSTOP"}.get(step.fault or "", "scenario")
        targets = list(nodes) if step.fault in ("kill", "pause") else [",".join(nodes)]
        for target in targets:
            fields: dict[str, Any] = {"id": f"{fault}:{target}", "kind": step.fault, "target": target}
            self._trace.emit(kind, args=args, by={"rule": rule}, **fields)
