"""Replicas that place, in one process and in virtual time: real states, placers and owner keepers over a plain log.

Consensus is replaced by a list: what is proposed while a leader is up is appended, and each replica
applies it a little later, in order.  A killed replica loses everything but the list.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import structlog

from cluster.dice import SeededDice
from raft.errors import NotLeader, OutcomeUnknown
from scheduler import commands
from scheduler.model import Capacity
from scheduler.placing import Placing
from scheduler.proposals import Applied
from scheduler.roster import Row
from scheduler.shards import OwnerKeeper
from scheduler.state import State
from tests.support.scheduler_world import GIB, job

EPOCH_MS = 1_700_000_000_000
HOP_MS_MAX = 20
ELECTION_S = 0.3
CATCH_UP_S = 0.3


class SimReplica:
    """One replica: a state, a placing side, and an owner keeper while it leads."""

    def __init__(self, cluster: ShardCluster, name: str) -> None:
        self.cluster = cluster
        self.name = name
        self.up = False
        self.started_s = 0.0
        self.reset()

    def reset(self) -> None:
        """An empty memory."""
        self.state = State()
        self.applied = asyncio.Event()
        self.placing = Placing(
            node=self.name, consensus=self, door=self, state=self.state, roster=self,  # type: ignore[arg-type]
            now_s=self.cluster.now_s, wall_ms=self.cluster.wall_ms, log=self.cluster.log,
        )  # fmt: skip
        self.tasks: list[asyncio.Task[None]] = []

    # What placing and the keeper ask of consensus, proposals and roster.

    @property
    def leader(self) -> str | None:
        return self.cluster.leader

    async def propose(self, command: commands.Command | bytes, *, timeout_s: float) -> Applied:
        return await self.cluster.propose(self, command)

    async def barrier(self, *, timeout_s: float) -> int:
        index = len(self.cluster.entries)
        await self.wait_applied(index, timeout_s=timeout_s)
        return index

    async def wait_applied(self, index: int, *, timeout_s: float) -> None:
        while self.state.index < index:
            await self.applied.wait()

    async def gather(self, *, timeout_s: float, digest: bool) -> list[Row]:
        return [Row(self.cluster.leader or self.name, "leader", sessions=self.cluster.sessions)]

    # Running.

    def start(self) -> None:
        self.up = True
        self.started_s = self.cluster.now_s()
        self.tasks = [asyncio.create_task(self._apply()), asyncio.create_task(self.placing.run())]
        self.placing.leader_changed()

    def lead(self) -> None:
        keeper = OwnerKeeper(
            node=self.name, consensus=self, state=self.state, members=lambda: self.cluster.names,
            following=self.cluster.following, count_live=self.placing.count_live, now_s=self.cluster.now_s,
            wall_ms=self.cluster.wall_ms, log=self.cluster.log,
        )  # fmt: skip

        async def reign() -> None:
            await self.barrier(timeout_s=5.0)
            await keeper.run()

        self.tasks.append(asyncio.create_task(reign()))

    async def kill(self) -> None:
        self.up = False
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)
        self.reset()

    async def _apply(self) -> None:
        """Apply what was appended, a few milliseconds late."""
        while True:
            if self.state.index == len(self.cluster.entries):
                await self.cluster.grown.wait()
                await self.cluster.hop()
            for data in self.cluster.entries[self.state.index :]:
                result = self.state.apply(self.state.index + 1, 1, data)
                self.cluster.saw(self.name, result)
            self.applied.set()
            self.applied = asyncio.Event()
            self.placing.applied(self.state.index)


class ShardCluster:
    """Replicas n1 … nN over one log, and the nodes that they place on."""

    def __init__(self, replicas: int, nodes: int, seed: int) -> None:
        self.dice = SeededDice(seed)
        self.log = structlog.get_logger()
        self.names = [f"n{number}" for number in range(1, replicas + 1)]
        self.entries: list[bytes] = []
        self.results: list[Any] = []
        self.grown = asyncio.Event()
        self.leader: str | None = None
        self.nodes = [f"node-{number:05}" for number in range(nodes)]
        self.sessions = dict.fromkeys(self.nodes, (0, 0))
        self.oracle = State()
        self.changes: list[tuple[float, str, dict[str, Any]]] = []
        """(virtual seconds, kind, fields) of every change, as the log has it."""
        self.replicas = {name: SimReplica(self, name) for name in self.names}
        for node in self.nodes:
            self.append(commands.encode(
                commands.RegisterNode(node, "i1", "b1", Capacity(1000, GIB, 100), "full", "", "10.0.0.1", EPOCH_MS)
            ))  # fmt: skip

    def now_s(self) -> float:
        return asyncio.get_running_loop().time()

    def wall_ms(self) -> int:
        return EPOCH_MS + int(self.now_s() * 1000)

    async def hop(self) -> None:
        await asyncio.sleep(self.dice.below(HOP_MS_MAX * 1000) / 1e6)

    def append(self, data: bytes) -> Any:
        """The log decides: apply to the oracle, keep its answer, wake the replicas."""
        result = self.oracle.apply(len(self.entries) + 1, 1, data)
        self.entries.append(data)
        self.results.append(result)
        self.changes += [(self.now_s(), kind, fields) for kind, fields in result.changes]
        self.grown.set()
        self.grown = asyncio.Event()
        return result

    def saw(self, name: str, result: Any) -> None:
        assert result == self.results[result.index - 1], f"{name} got another answer at {result.index}"

    async def propose(self, sender: SimReplica, command: commands.Command | bytes) -> Applied:
        data = command if isinstance(command, bytes) else commands.encode(command)
        if self.leader is None:
            await asyncio.sleep(ELECTION_S)
            raise NotLeader("no leader")
        to = self.leader
        done = asyncio.get_running_loop().create_future()
        asyncio.get_running_loop().call_later(
            self.dice.below(HOP_MS_MAX * 1000) / 1e6, self._arrive, to, data, done
        )  # goes on also when the sender dies meanwhile
        result = await done
        await self.hop()
        if sender.name == to:
            await sender.wait_applied(result.index, timeout_s=5.0)
        return Applied(result.index, 1, result)

    def _arrive(self, to: str, data: bytes, done: asyncio.Future[Any]) -> None:
        if self.leader == to:
            result = self.append(data)
            if not done.done():
                done.set_result(result)
        elif not done.done():
            done.set_exception(OutcomeUnknown(f"{to} is gone"))

    def following(self) -> list[str]:
        """The other replicas that are up and have caught up."""
        now_s = self.now_s()
        others = [replica for replica in self.replicas.values() if replica.up and replica.name != self.leader]
        return [replica.name for replica in others if now_s - replica.started_s > CATCH_UP_S]

    def start(self, *names: str) -> None:
        for name in names:
            self.replicas[name].start()

    def elect(self, name: str) -> None:
        self.leader = name
        self.replicas[name].lead()
        for replica in self.replicas.values():
            if replica.up:
                replica.placing.leader_changed()

    async def kill(self, name: str) -> None:
        """Kill a replica; another one leads shortly after if it led."""
        led = self.leader == name
        if led:
            self.leader = None
        await self.replicas[name].kill()
        if led:
            await asyncio.sleep(ELECTION_S)
            self.elect(next(other.name for other in self.replicas.values() if other.up))

    def submit(self, name: str, replicas: int, cpu_millicores: int = 100) -> None:
        spec = job(name, kind="batch", replicas=replicas, cpu_millicores=cpu_millicores)
        self.append(commands.encode(commands.SubmitJob(spec, f"r-{name}", -1, self.wall_ms())))

    def events(self, kind: str, **wanted: Any) -> Sequence[dict[str, Any]]:
        return [
            fields for _, found, fields in self.changes
            if found == kind and all(fields[key] == value for key, value in wanted.items())
        ]  # fmt: skip

    def owners(self) -> dict[str, str | None]:
        """Node to owner, as committed."""
        shards = self.oracle.books.shards
        return {node: shards.owner(node) for node in self.nodes}

    async def stop(self) -> None:
        for replica in self.replicas.values():
            await replica.kill()
