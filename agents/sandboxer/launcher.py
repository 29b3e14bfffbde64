"""Launching one attempt: its group, its output, its processes, in the order that a crash allows.

Owns: that order (group with identity, fork, process ids recorded, go).  Must not know: the core.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from agents.sandboxer import adoption, fence, namespaces, process
from agents.sandboxer.birth import Plan
from agents.sandboxer.cgroups.base import Backend, Limits
from agents.sandboxer.network import Connection
from agents.sandboxer.output import TEMPORARY
from agents.sandboxer.spec import Card, Spec

if TYPE_CHECKING:
    from agents.sandboxer.surroundings import Child, Kernel, Network, Outputs, Spawner
    from agents.sandboxer.users import Users


class Launcher:
    """Launches attempts of one node.  `environment`: variables every workload gets."""

    def __init__(
        self,
        backend: Backend,
        outputs: Outputs,
        network: Network,
        kernel: Kernel,
        spawner: Spawner,
        environment: dict[str, str],
        users: Users | None,
    ) -> None:
        self._backend = backend
        self._outputs = outputs
        self._network = network
        self._environment = environment
        self._users = users
        for name, user in outputs.owners().items() if users else ():
            self.adopt(name, user)
        self._kernel = kernel
        self._spawner = spawner
        self._boot_id = kernel.boot_id()

    def launch(self, spec: Spec, name: str, may_run: Callable[[], bool]) -> Child:
        """Make group and processes, record them, and let the program run; OSError, and nothing left, if not.

        `may_run` is asked last of all; LeaseOver (an OSError) when it says no.
        """
        limits = Limits(spec.cpu_millicores, spec.memory_bytes, spec.pids)
        self._backend.create(name, limits, adoption.identity_bytes(spec.card, self._boot_id, {}))
        opened: list[int] = []
        try:
            connection = self._network.connect(name, spec.network, spec.ports)
            user = 0 if self._users is None else self._users.take(name)
            opened += self._outputs.open(name, user)
            join = self._backend.join_fds(name)
            opened += join
            child = self._spawner.spawn(self._plan(spec, name, (opened[0], opened[1]), join, connection, user))
            try:
                self._record(spec.card, name, child, connection, user)
                if not may_run():
                    raise fence.LeaseOver
                child.go()
            except OSError:
                child.abandon()
                raise
        except OSError:
            self._network.disconnect(name)
            self._backend.kill(name)
            self._backend.remove(name)
            raise
        finally:
            for fd in opened:
                self._kernel.close(fd)
        return child

    def _plan(
        self, spec: Spec, name: str, output: tuple[int, int], join: list[int], connection: Connection, user: int
    ) -> Plan:
        work = self._outputs.work(name)
        extra = {
            "HOME": work,
            "TMPDIR": f"{work}/{TEMPORARY}",
            **self._environment,
            "SKERRY_ALLOCATION": spec.card.allocation,
            "SKERRY_EPOCH": str(spec.card.epoch),
            "SKERRY_ATTEMPT": str(spec.card.attempt),
            **connection.environment,
        }
        return Plan(
            command=spec.command,
            env=process.workload_environment(spec.env, extra),
            directory=work,
            stdout=output[0],
            stderr=output[1],
            join=join,
            hostname=namespaces.hostname_of(spec.card.allocation),
            own_network=connection.own,
            wiring=connection.wiring,
            die_with_parent=spec.card.on_disconnect == "stop",
            address_space_bytes=0 if self._backend.confines else spec.memory_bytes,
            user=user,
            hidden=self._outputs.parent,
            claim=-1 if self._users is None else self._users.lock,
        )

    def adopt(self, name: str, user: int) -> None:
        """Attempt `name` is kept, or still runs, as `user` (0 = has none of its own)."""
        if self._users is not None and user:
            self._users.adopt(name, user)

    def discard(self, name: str) -> None:
        """Remove what is kept of an attempt, whose user is free then."""
        self._outputs.discard(name)
        if self._users is not None:
            self._users.free(name)

    def _record(self, card: Card, name: str, child: Child, connection: Connection, user: int) -> None:
        """Write the processes' identities on the cgroup, before the program may run."""
        processes: dict[str, Any] = {"t": self._kernel.wall_ms()}
        if user:
            processes["user"] = user
        if connection.address:
            processes["net"] = connection.record()
        for role, pid in (("", child.pid), ("init", child.init_pid)):
            stat = self._kernel.stat(pid) if pid else None
            if stat is not None:
                processes |= {role or "pid": pid, f"{role}_ticks" if role else "ticks": stat.start_ticks}
        self._backend.write_identity(name, adoption.identity_bytes(card, self._boot_id, processes))
