"""One agent's session, as the replica that holds it sees it.

Owns: the loops of one WebSocket after the hello: pushing the desired set, confirming
heartbeats, committing reports, asking for output.  Must not know: other sessions, HTTP.

Level-triggered: `mark` says that the node's desired set may differ from what was sent; the
pusher then takes a read barrier and sends the whole set of that moment.  Whatever cannot be
confirmed is answered by silence: the agent resends, and after a third of its lease it moves on
to another replica.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import Any, Protocol

import msgspec

from raft.errors import Overloaded, SkerryError
from scheduler.commands import AllocationStatus, Command, ReportStatus, StopUnknown
from scheduler.errors import NodeUnreachable
from scheduler.proposals import Applied
from scheduler.renewals import GRANTED, HELLO_AGAIN, Grant, Renewal
from scheduler.session import (
    FRAME_BYTES_MAX,
    AgentHello,
    Assignment,
    Desired,
    Goodbye,
    Heartbeat,
    HeartbeatConfirmed,
    LogsReply,
    LogsRequest,
    SessionMessage,
    Status,
    StatusCommitted,
    StopOrder,
)
from scheduler.session_wire import BadFrame, SessionLost, SessionWire, kind_of
from scheduler.state import State

IDLE_S = 15.0
"""A session without a frame for this long is closed."""
BARRIER_S = 2.0
PROPOSE_S = 5.0
RETRY_S = 0.2
STATUSES_MAX = 16
REPORTS_MAX = 256
"""Reports in one command."""
LOGS_MAX = 64
"""Requests for output under way."""
DESIRED_BYTES_MAX = FRAME_BYTES_MAX * 3 // 4


Set = tuple[tuple[Assignment, ...], tuple[StopOrder, ...], int, tuple[tuple[str, int], ...]]
"""(assignments, stops, index of the registration, attempts to tell of again) of one node."""


class Door(Protocol):
    """What a session needs of `scheduler.proposals.Proposals`."""

    async def propose(self, command: Command, *, timeout_s: float) -> Applied:
        """Commit and apply."""
        ...

    async def barrier(self, *, timeout_s: float) -> int:
        """A linearizable read point, applied here."""
        ...


class Renews(Protocol):
    """What a session needs of `scheduler.renewals.Renewals`."""

    async def renew(self, renewal: Renewal) -> tuple[int, Grant]:
        """(confirmed index, grant)."""
        ...


class Log(Protocol):
    """The part of a logger that is used."""

    def info(self, event: str, **fields: Any) -> Any:
        """Say what happened."""
        ...

    def warning(self, event: str, **fields: Any) -> Any:
        """Say that something is odd."""
        ...


class HeldSession:
    """A session that was accepted.

    Args:
        wire: its hello has been read.
        hello: what the agent said.
        generation: generation of the cluster, orders `Desired` together with the index.
        wall_ms: Unix milliseconds, for people.
    """

    def __init__(
        self,
        *,
        wire: SessionWire,
        hello: AgentHello,
        generation: int,
        state: State,
        door: Door,
        log: Log,
        wall_ms: Callable[[], int],
        wait_applied: Callable[..., Awaitable[None]],
        renewals: Renews,
    ) -> None:
        self.node = hello.node
        self.hello = hello
        self.usage: dict[str, tuple[int, int, int]] = {}
        self.node_usage: tuple[int, int] = (0, 0)
        self._wire = wire
        self._generation = generation
        self._state = state
        self._door = door
        self._log = log
        self._wall_ms = wall_ms
        self._wait_applied = wait_applied
        self._renewals = renewals
        self._marked = asyncio.Event()
        self._marked.set()
        self._sent: Set | None = None
        self._heartbeat = 0
        self._beaten = asyncio.Event()
        self._statuses: asyncio.Queue[Status] = asyncio.Queue(STATUSES_MAX)
        self._asked: dict[int, asyncio.Future[LogsReply]] = {}
        self._requests = 0

    def mark(self) -> None:
        """The node's desired set may have changed."""
        self._marked.set()

    async def serve(self) -> str:
        """Run the session until it ends; returns why."""
        async with asyncio.TaskGroup() as group:
            loops = [group.create_task(loop()) for loop in (self._push, self._confirm, self._commit)]
            try:
                return await self._read()
            finally:
                for loop in loops:
                    loop.cancel()
                for future in self._asked.values():
                    if not future.done():
                        future.set_exception(NodeUnreachable(f"the session of {self.node} ended", node=self.node))

    async def end(self, why: str) -> None:
        """Say goodbye and close; `serve` then returns."""
        await self._wire.goodbye(why)

    async def logs(self, allocation: str, cursor: str, lines_max: int, wait_ms: int, *, timeout_s: float) -> LogsReply:
        """Ask the agent for output.

        Raises:
            NodeUnreachable: no answer in time, or the session ended.
            Overloaded: too many requests are under way.
        """
        if len(self._asked) >= LOGS_MAX:
            raise Overloaded(f"{LOGS_MAX} requests for output of {self.node} wait already", hint="ask again later")
        self._requests += 1
        number = self._requests
        future: asyncio.Future[LogsReply] = asyncio.get_running_loop().create_future()
        self._asked[number] = future
        try:
            await self._wire.send(LogsRequest(number, allocation, cursor, lines_max, wait_ms))
            async with asyncio.timeout(timeout_s + wait_ms / 1000):
                return await future
        except (TimeoutError, SessionLost):
            raise NodeUnreachable(
                f"node {self.node} did not answer in time", hint="is its agent running?", node=self.node
            ) from None
        finally:
            self._asked.pop(number, None)

    # --- frames -------------------------------------------------------------------------------

    async def _read(self) -> str:
        """Take messages in until the session ends; returns why."""
        while True:
            try:
                body = await self._wire.receive(IDLE_S)
            except TimeoutError:
                await self._wire.close("idle")
                return "idle"
            except BadFrame as error:
                self._log.warning("an agent sent a frame that cannot be read", node=self.node, why=str(error))
                await self._wire.refuse("bad-frame", f"a frame cannot be read: {error}", "run one version everywhere")
                return "bad-frame"
            if body is None:
                return "closed"
            if (ended := self._received(body)) is not None:
                return ended

    def _received(self, body: SessionMessage) -> str | None:
        """Take one message in; a reason when it ends the session."""
        match body:
            case Heartbeat():
                self._heartbeat = body.number
                self.usage, self.node_usage = body.usage, body.node_usage
                self._beaten.set()
            case Status():
                if not self._statuses.full():  # else the agent resends it
                    self._statuses.put_nowait(body)
            case LogsReply():
                future = self._asked.get(body.id)
                if future is not None and not future.done():
                    future.set_result(body)
            case Goodbye():
                return f"agent left: {body.why}"
            case _:
                return f"unexpected {kind_of(body)}"
        return None

    # --- desired set --------------------------------------------------------------------------

    async def _push(self) -> None:
        """Send the desired set whenever it has changed, after a read barrier."""
        while True:
            await self._marked.wait()
            self._marked.clear()
            if self._news() is None:
                continue  # as things stand here; whatever is applied later marks again
            try:
                await self._door.barrier(timeout_s=BARRIER_S)
            except SkerryError:
                self._marked.set()
                await asyncio.sleep(RETRY_S)
                continue
            news = self._news()
            if news is None:
                continue
            assignments, stops, registration, unsure = news
            index = self._state.index
            try:
                for part, more in _parts(assignments):
                    await self._wire.send(Desired(self._generation, index, part, stops, registration, unsure, more))
            except SessionLost:
                return
            self._sent = news

    def _news(self) -> Set | None:
        """The set as it is here now; None when it is what was sent, or the node is no longer this agent's.

        In the latter case its next renewal is told so.
        """
        known = self._state.registration(self.node)
        if known is None or known.incarnation != self.hello.incarnation or known.lost_index:
            return None
        assignments, stops = self._state.desired_for(self.node)
        news = (assignments, stops, known.registered_index, self._state.unsure_on(self.node))
        return None if news == self._sent else news

    async def _confirm(self) -> None:
        """Confirm the newest renewal by a quorum round that the leader began after it got it."""
        while True:
            await self._beaten.wait()
            self._beaten.clear()
            number = self._heartbeat
            try:
                async with asyncio.timeout(BARRIER_S):
                    index, grant = await self._renewals.renew(Renewal(self.node, self.hello.incarnation, number))
            except (SkerryError, TimeoutError):
                continue
            if grant.code in HELLO_AGAIN:
                await self._wire.refuse(grant.code, "the node has to register again", "say hello again")
                return
            if grant.code != GRANTED:
                continue
            try:
                await self._wire.send(HeartbeatConfirmed(number, index, grant.lease_ms, grant.registration))
            except SessionLost:
                return

    # --- reports --------------------------------------------------------------------------------

    async def _commit(self) -> None:
        """Commit reports in order, and acknowledge them at an applied index."""
        while True:
            status = await self._statuses.get()
            try:
                await self._wait_applied(status.known_index, timeout_s=PROPOSE_S)
                index = await self._commit_reports(status.reports)
                index = max(index, await self._answer_unknown(status.unknown))
                if not index:
                    index = await self._door.barrier(timeout_s=BARRIER_S)
            except StaleIncarnation as error:
                await self._wire.refuse("stale-incarnation", str(error), "say hello again")
                return
            except SkerryError as error:
                self._log.warning("a status could not be committed", node=self.node, code=error.code, why=error.message)
                continue
            try:
                await self._wire.send(StatusCommitted(status.number, index))
            except SessionLost:
                return

    async def _commit_reports(self, reports: Sequence[AllocationStatus]) -> int:
        index = 0
        for first in range(0, len(reports), REPORTS_MAX):
            part = tuple(reports[first : first + REPORTS_MAX])
            command = ReportStatus(self.node, self.hello.incarnation, part, self._wall_ms())
            applied = await self._door.propose(command, timeout_s=PROPOSE_S)
            if applied.result.code in HELLO_AGAIN:
                raise StaleIncarnation(applied.result.message)
            index = applied.index
            unknown = getattr(applied.result, "unknown", ())
            if unknown:
                await self._wait_applied(index, timeout_s=PROPOSE_S)
                await self._answer_unknown(unknown)
        return index

    async def _answer_unknown(self, pairs: Sequence[tuple[str, int]]) -> int:
        """Commit stop records for what runs there and shall not; what shall run is pushed again."""
        if not pairs:
            return 0
        assignments, stops = self._state.desired_for(self.node)
        known = {(item.allocation, item.epoch) for item in assignments}
        known.update((item.allocation, item.epoch) for item in stops)
        strangers = tuple(pair for pair in pairs if pair not in known)
        self._sent = None  # say it again even if it is what was said
        self.mark()
        if not strangers:
            return 0
        command = StopUnknown(self.node, strangers, self._wall_ms())
        applied = await self._door.propose(command, timeout_s=PROPOSE_S)
        self.mark()
        return applied.index


class StaleIncarnation(SkerryError):
    """The node registered with another sandboxer meanwhile."""

    code = "stale-incarnation"
    retryable = True


def _parts(assignments: Sequence[Assignment]) -> Iterator[tuple[tuple[Assignment, ...], bool]]:
    """Cut a set into frames; with each, whether another follows."""
    part: list[Assignment] = []
    size = 0
    for assignment in assignments:
        length = len(msgspec.msgpack.encode(assignment))
        if part and size + length > DESIRED_BYTES_MAX:
            yield tuple(part), True
            part, size = [], 0
        part.append(assignment)
        size += length
    yield tuple(part), False
