"""The agents' sessions that this replica holds.

Owns: admission of agents (credentials, hello, registration), one session a node, and bounds.
Must not know: what happens inside a session (`scheduler.held_session`), or placement.

A node is registered by a committed command only when its registration differs from what the
state has: a reconnect after an election writes nothing to the log.  A second session of one
node replaces the first: an agent that dials again knows better than a half-open connection.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from cluster.network import Answer, Knock, NotAnUpgrade, OnKnock
from raft.errors import SkerryError
from scheduler.commands import RegisterNode
from scheduler.held_session import Door, HeldSession, Log, Renews
from scheduler.model import NAME_PATTERN
from scheduler.session import (
    FRAME_BYTES_MAX,
    PROTOCOL_VERSION,
    SESSION_PATH,
    AgentHello,
    SessionAccepted,
)
from scheduler.session_wire import BadFrame, SessionLost, SessionWire, Trace
from scheduler.state import State

SESSIONS_MAX = 10_000
HELLO_S = 5.0
BARRIER_S = 3.0
REGISTER_S = 5.0
GOODBYE_S = 1.0
CLOSE_S = 1.0
AMOUNT_MAX = 1 << 50

_NODE = re.compile(NAME_PATTERN)


class SessionDenied(SkerryError):
    """An agent is not admitted; the code says why."""

    def __init__(self, code: str, message: str, hint: str) -> None:
        super().__init__(message, hint=hint)
        self.code = code  # type: ignore[misc]  # per refusal, not per class


class Sessions:
    """All sessions of this replica.

    Args:
        replica: this replica's id.
        state: the replicated state, read-only here.
        door: proposals and barriers.
        authorize: raises SkerryError unless this Authorization header carries the link token.
        refused: turns such an error into an HTTP answer.
        cluster: (cluster id or "" before the cluster is formed, generation).
        leader: the leader as far as known.
        wait_applied: returns once an index is applied here.
        wall_ms: Unix milliseconds, for people.
        renewals: gets renewals confirmed.
        lease_ms: how long a renewal lasts, told to agents for their pace.
    """

    def __init__(
        self,
        *,
        replica: str,
        state: State,
        door: Door,
        trace: Trace,
        log: Log,
        authorize: Callable[[str], None],
        refused: Callable[[SkerryError], Answer],
        cluster: Callable[[], tuple[str, int]],
        leader: Callable[[], str | None],
        wait_applied: Callable[..., Awaitable[None]],
        wall_ms: Callable[[], int],
        renewals: Renews,
        lease_ms: int,
        sessions_max: int = SESSIONS_MAX,
    ) -> None:
        self._replica = replica
        self._state = state
        self._door = door
        self._trace = trace
        self._log = log
        self._authorize = authorize
        self._refused = refused
        self._cluster = cluster
        self._leader = leader
        self._wait_applied = wait_applied
        self._wall_ms = wall_ms
        self._renewals = renewals
        self._lease_ms = lease_ms
        self._sessions_max = sessions_max
        self._by_node: dict[str, HeldSession] = {}
        self._open = 0
        self._seen_index = 0
        self._stopping = False
        self._suspended = ""

    def sockets(self) -> dict[str, OnKnock]:
        """For the links listener."""
        return {SESSION_PATH: self._handle}

    def usage(self) -> dict[str, tuple[int, int]]:
        """Nodes whose session is held here, with (CPU nanoseconds, memory bytes) as last reported."""
        return {node: session.node_usage for node, session in sorted(self._by_node.items())}

    def held(self) -> Mapping[str, HeldSession]:
        """All sessions held here, by node."""
        return self._by_node

    def get(self, node: str) -> HeldSession | None:
        """The session of `node`, if it is held here."""
        return self._by_node.get(node)

    def applied(self, index: int) -> None:
        """The state has moved on to `index`: mark the sessions whose node it touched."""
        if self._by_node:
            for node in self._state.changed_nodes(self._seen_index):
                if (session := self._by_node.get(node)) is not None:
                    session.mark()
        self._seen_index = index

    async def close(self) -> None:
        """Send every agent elsewhere: the replica stops."""
        self._stopping = True
        await self._end_all("stopping")

    async def suspend(self, why: str) -> None:
        """Send every agent elsewhere, and admit none until `resume`."""
        self._suspended = why
        await self._end_all(why)

    async def _end_all(self, why: str) -> None:
        try:
            async with asyncio.timeout(GOODBYE_S):
                await asyncio.gather(*(session.end(why) for session in self._by_node.values()))
        except TimeoutError:
            pass

    def resume(self) -> None:
        """Admit agents again."""
        self._suspended = ""

    # --- one connection -------------------------------------------------------------------------

    async def _handle(self, knock: Knock) -> Answer | None:
        try:
            self._authorize(knock.header("Authorization"))
            self._admits(more=0)
        except SkerryError as error:
            return self._refused(error)
        self._open += 1
        try:
            channel = await knock.accept(frame_bytes_max=FRAME_BYTES_MAX, close_s=CLOSE_S)
            await self._talk(SessionWire(channel, self._trace))
        except NotAnUpgrade:
            return self._refused(SessionDenied("bad-hello", "not a WebSocket upgrade", "only agents dial this path"))
        except (ConnectionError, TimeoutError, SessionLost) as error:
            self._log.info("an agent's connection broke", why=repr(error))
            return Answer(400)  # nobody reads it
        finally:
            self._open -= 1
        return None

    def _admits(self, more: int = 1) -> None:
        """Raises SessionDenied unless this replica takes `more` agents now."""
        if self._suspended:
            raise SessionDenied("state-diverged", f"replica {self._replica}: {self._suspended}", "dial another one")
        if self._stopping or self._open + more > self._sessions_max:
            raise SessionDenied("overloaded", f"replica {self._replica} takes no more agents", "dial another one")

    async def _talk(self, wire: SessionWire) -> None:
        try:
            hello = await self._hello(wire)
            await self._register(hello)
            self._admits(more=0)
        except SkerryError as error:
            self._log.warning("an agent was not admitted", node=wire.peer, code=error.code, why=error.message)
            await wire.refuse(error.code, error.message, error.hint)
            return
        cluster_id, generation = self._cluster()
        session = HeldSession(
            wire=wire,
            hello=hello,
            generation=generation,
            state=self._state,
            door=self._door,
            log=self._log,
            wall_ms=self._wall_ms,
            wait_applied=self._wait_applied,
            renewals=self._renewals,
        )
        older = self._by_node.get(hello.node)
        self._by_node[hello.node] = session
        why = "broken"
        try:
            if older is not None:
                await older.end("replaced")
            await wire.send(SessionAccepted(cluster_id, self._replica, self._leader(), self._lease_ms))
            self._trace.emit("conn", peer=hello.node, what="opened", why="session")
            self._log.info("holding a session", node=hello.node, incarnation=hello.incarnation)
            why = await session.serve()
        finally:
            if self._by_node.get(hello.node) is session:
                del self._by_node[hello.node]
            self._trace.emit("conn", peer=hello.node, what="closed", why=why)
            self._log.info("a session ended", node=hello.node, why=why)

    async def _hello(self, wire: SessionWire) -> AgentHello:
        """The first frame, checked."""
        try:
            hello = await wire.receive(HELLO_S)
        except BadFrame as error:
            raise SessionDenied("bad-frame", f"the hello cannot be read: {error}", "is it another version?") from None
        if not isinstance(hello, AgentHello):
            raise SessionDenied("bad-frame", "a session begins with AgentHello", "only agents dial this path")
        wire.peer = hello.node
        self._check(hello)
        return hello

    def _check(self, hello: AgentHello) -> None:
        if hello.protocol != PROTOCOL_VERSION:
            raise SessionDenied(
                "protocol-version",
                f"the agent speaks session protocol {hello.protocol}, this replica {PROTOCOL_VERSION}",
                "run the same version everywhere",
            )
        cluster_id, _ = self._cluster()
        if not cluster_id:
            raise SessionDenied("not-formed", "the cluster is not formed yet", "try again shortly")
        if hello.cluster_id not in ("", cluster_id):
            raise SessionDenied(
                "wrong-cluster",
                f"the agent works for cluster {hello.cluster_id}, this is {cluster_id}",
                "point it at its own cluster, or give it a fresh directory",
            )
        amounts: Sequence[int] = (hello.capacity.cpu_millicores, hello.capacity.memory_bytes, hello.capacity.pids)
        if not _NODE.fullmatch(hello.node) or not all(0 <= amount < AMOUNT_MAX for amount in amounts):
            raise SessionDenied("bad-hello", "node name or capacity is out of range", "names are DNS labels")

    async def _register(self, hello: AgentHello) -> None:
        """Make the committed registration equal to the hello."""
        await self._door.barrier(timeout_s=BARRIER_S)
        known = self._state.registration(hello.node)
        if known is not None and not known.lost_index and _same(known, hello):
            return
        command = RegisterNode(
            hello.node,
            hello.incarnation,
            hello.boot_id,
            hello.capacity,
            hello.isolation,
            hello.isolation_why,
            hello.address,
            self._wall_ms(),
            labels=hello.labels,
            taints=hello.taints,
            installation=hello.installation,
        )
        applied = await self._door.propose(command, timeout_s=REGISTER_S)
        if applied.result.code:
            raise SessionDenied(applied.result.code, applied.result.message, applied.result.hint)
        await self._wait_applied(applied.index, timeout_s=REGISTER_S)


def _same(known: Any, hello: AgentHello) -> bool:
    """Whether the committed registration says what the hello says."""
    fields = (
        "incarnation", "boot_id", "capacity", "isolation", "isolation_why", "address", "labels", "taints",
        "installation",
    )  # fmt: skip
    return all(getattr(known, field) == getattr(hello, field) for field in fields)
