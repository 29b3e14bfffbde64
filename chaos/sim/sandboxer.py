"""The sandboxer's process in the simulator: production code over a simulated kernel.

Owns: putting one together, in the order of `agents.sandboxer.__main__`, and what of it dies with the process.
Must not know: any rule; those are `agents.sandboxer`'s own modules: core, runtime, launcher, adoption, requests.

What is not simulated: namespaces, networks (every workload has the host's), the output that workloads write.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from contextvars import Context, copy_context
from random import Random
from typing import Any, Final

from agents.sandboxer import adoption, protocol
from agents.sandboxer import events as ev
from agents.sandboxer.core import Core
from agents.sandboxer.journal_file import LOCK_WAIT_S
from agents.sandboxer.requests import Desk
from agents.sandboxer.runtime import Runtime
from chaos.sim.host import Process, ProcessHost
from chaos.sim.journal import DIRECTORY, Journal, read_journal, rewrite_journal
from chaos.sim.kernel import Kernel
from chaos.sim.lives import Life
from chaos.sim.local_socket import AgentEnd, End, connect
from chaos.sim.sandbox_parts import HostNetwork, Loop, Outputs, SandboxTracer
from chaos.sim.syscalls import Died, Syscalls

START_S: Final = (0.03, 0.15)
INCARNATION_BYTES: Final = 8


class Sandboxer:
    """One life of a node's sandboxer.  `main` is its process; `ready` is done once it listens."""

    def __init__(self, node: str, cluster: str, kernel: Kernel, before: Process | None, dice: Random) -> None:
        self.node = node
        self.cluster = cluster
        self.ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.process: Process
        self.journal: Journal | None = None
        self._kernel = kernel
        self._before = before
        self._dice = dice
        self._busy: deque[Callable[[], None]] = deque()
        """What comes while a step still takes its time, in order."""
        self._clients: dict[int, End] = {}
        self._next_client = 1
        self._context: Context
        self._life: Life
        self._calls: Syscalls | None = None
        self._desk: Desk
        self._tracer: SandboxTracer
        self._ended = False

    # -- its process ------------------------------------------------------------------------------

    async def main(self, host: ProcessHost) -> None:
        """Run until it is told to end."""
        self._context, self._life = copy_context(), host.life
        await asyncio.sleep(self._dice.uniform(*START_S))
        await self._former_child()
        try:
            self._begin(host)
        except Died:
            return
        self.ready.set_result(None)
        await self._finished

    async def _former_child(self) -> None:
        """Wait for the journal's child of the sandboxer before; its lock is on the file until then."""
        if self._before is not None:
            await asyncio.wait({self._before.exited}, timeout=LOCK_WAIT_S)
            if not self._before.exited.done():
                raise OSError("the journal is still being written by another process")

    def _begin(self, host: ProcessHost) -> None:
        kernel = self._kernel
        self._finished: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        incarnation = host.dice.token(INCARNATION_BYTES).hex()
        tracer = host.tracer(self.node, "sim", roll_bytes=0, heartbeat_sample=0, meta={"process": "sandboxer"})
        self._tracer = SandboxTracer(tracer)
        calls = self._calls = Syscalls(kernel, self._defer, tracer, host.machine.world.stream)
        kernel.groups.holder = calls
        self._life.sockets[self] = None
        disk = host.disk(DIRECTORY)
        recall = adoption.recover(kernel.groups, read_journal(disk).records, calls)
        rewrite_journal(disk, recall.records)
        loop = Loop(host, self._context, self._guarded, calls)
        self.journal = Journal(
            host.machine,
            self._context,
            durable=lambda sequence: self._dispatch(ev.Journaled(sequence)),
            failed=lambda why: self._dispatch(ev.JournalFailed(why)),
            recovered=lambda: self._dispatch(ev.JournalRecovered()),
        )
        core = Core(recall.memory, loop.now_ns())
        self._desk = Desk(loop, core, self._hello(incarnation), self._send)
        self._runtime = Runtime(
            loop=loop,
            core=core,
            backend=kernel.groups,
            journal=self.journal,
            outputs=Outputs(calls),
            tracer=self._tracer,
            network=HostNetwork(),
            kernel=calls,
            spawner=calls,
            environment={"SKERRY_NODE": self.node, "SKERRY_CLUSTER": self.cluster},
            users=None,
            recall=recall,
            say=self._desk.say,
        )
        self.journal.open()
        self._desk.open(self._runtime, self._finish)
        self._runtime.begin()

    def _hello(self, incarnation: str) -> dict[str, Any]:
        return {
            "protocol": protocol.PROTOCOL_VERSION,
            "incarnation": incarnation,
            "pid": 1,
            "boot_id": self._kernel.boot_id,
            "node": self.node,
            "cluster": self.cluster,
            "isolation": "simulated",
            "isolation_why": "",
        }

    def _finish(self, finish: ev.Finish) -> None:
        groups = self._kernel.groups
        if finish.clean:
            for name in groups.names():
                groups.remove(name)
            groups.remove_tree()
        for caller in finish.callers:
            self._desk.answer(caller, {})
        for end in tuple(self._clients.values()):
            end.close()
        if not self._finished.done():
            self._finished.set_result(None)

    def died(self) -> None:
        """The life ended, the machine goes on (an entry of `Life.sockets`)."""
        if self._calls is not None:
            self._calls.die()
        if self.journal is not None:
            self.journal.close()

    def went_dark(self) -> None:
        """The machine lost power."""

    # -- clients ----------------------------------------------------------------------------------

    def accept(self, agent: Context) -> AgentEnd:
        """Connect an agent."""
        loop = self.process.host.world.loop
        mine, theirs, incoming = connect(loop, self._dice, agent=agent, sandboxer=self._context)
        number, self._next_client = self._next_client, self._next_client + 1
        self._clients[number] = theirs
        incoming.deliver = lambda message: self._guarded(lambda: self._take(number, message))
        return mine

    def _take(self, number: int, message: dict[str, Any] | None) -> None:
        if message is None:
            self._drop(number)
            return
        if number not in self._clients:
            return
        self._tracer.observe(message.get("lc"), message.get("hlc"))
        try:
            self._desk.take(number, message)
        except protocol.ProtocolError:
            self._drop(number)

    def _drop(self, number: int) -> None:
        end = self._clients.pop(number, None)
        if end is not None:
            end.close()
            self._desk.left(number)

    def _send(self, number: int, message: dict[str, Any]) -> None:
        end = self._clients.get(number)
        if end is not None:
            message["lc"], message["hlc"] = self._tracer.tick()
            end.send(message)

    # -- dying in the middle ----------------------------------------------------------------------

    def die_at(self, step: str) -> None:
        """Be killed in the middle of the next `syscalls.STEPS` of that name."""
        assert self._calls is not None, "it runs"
        self._calls.die_at(step, self.process.crash)

    def _defer(self, callback: Callable[[], None]) -> None:
        self.process.host.world.loop.call_soon(self._guarded, callback, context=self._context)

    def _guarded(self, callback: Callable[[], None]) -> None:
        """Every step of this process begins here, once the one before has taken its time."""
        self._busy.append(callback)
        if len(self._busy) == 1:
            self._steps()

    def _steps(self) -> None:
        """Take the steps that wait, until one takes time; where the process dies, the rest is not taken."""
        calls = self._calls
        assert calls is not None, "steps come after the beginning"
        while self._busy and not self._life.dead:
            try:
                self._busy[0]()
            except Died:
                return
            except Exception:
                self.process.crash()  # what its loop does not catch ends a real one, too
                raise
            spent_ns, calls.spent_ns = calls.spent_ns, 0
            if spent_ns:
                self._go_on_in(spent_ns)
                return
            self._busy.popleft()

    def _go_on_in(self, spent_ns: int) -> None:
        host = self.process.host

        def go_on() -> None:
            self._busy.popleft()
            self._steps()

        loop = host.world.loop
        loop.at(loop.now + host.clock.true_delay_ns(spent_ns), go_on, context=self._context)

    def _dispatch(self, event: ev.Event) -> None:
        self._guarded(lambda: self._runtime.dispatch(event))
