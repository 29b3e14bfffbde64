"""One session: a WebSocket to one replica, from the hello to its end.

Owns: frames on the wire, the bounded outbox, heartbeats and their confirmation, log requests.
Must not know: which replica comes next (`agents.dialer`), what a desired set means
(`agents.reconcile`), or how a report became one (`agents.reporter`).

Everything a replica sends is checked; what no correct replica sends ends the session with
`BadFrame`, never the agent.  Each renewal's deadline counts from its own *send* (DESIGN.md §6).
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any, Protocol

import msgspec
import structlog

from agents import lease
from agents.errors import BadFrame, SessionLost, SessionRejected, sole
from cluster.network import Channel, ChannelClosed, Client, DialRefused
from raft.errors import ProtocolViolation
from scheduler.session import (
    FRAME_BYTES_MAX,
    OWNER_IS,
    SESSION_PATH,
    AgentHello,
    Desired,
    Frame,
    Goodbye,
    Heartbeat,
    HeartbeatConfirmed,
    LogsReply,
    LogsRequest,
    SessionAccepted,
    SessionMessage,
    SessionRefused,
    Status,
    StatusCommitted,
    decode_frame,
    encode_frame,
)

log = structlog.get_logger(__name__)

OUTBOX_FRAMES_MAX = 64
LOGS_ANSWERED_MAX = 32
"""Log requests held at once; more are answered ``overloaded``."""
SEND_TIMEOUT_S = 5.0
DIAL_TIMEOUT_S = 2.0
HELLO_TIMEOUT_S = 5.0
"""The replica commits a new registration before it accepts."""
GOODBYE_TIMEOUT_S = 0.5
CLOSE_S = 10.0
"""How long an orderly close waits where nothing cuts it short."""


class SessionTracer(Protocol):
    """The part of `cluster.trace.Tracer` that a session uses."""

    heartbeat_sample: int

    def emit(self, kind: str, /, **fields: Any) -> str:
        """Record one event."""
        ...

    def stamp_send(self) -> tuple[str, int, int]:
        """(message id, Lamport clock, hybrid clock) of a message being sent."""
        ...

    def observe(self, lc: int, hlc: int) -> None:
        """Merge the clocks of a received message."""
        ...


class Host(Protocol):
    """What the session needs from the agent behind it."""

    news: asyncio.Event
    """Set when `next_status` may have something."""

    def now_ns(self) -> int:
        """Nanoseconds on CLOCK_BOOTTIME, which leases count on."""
        ...

    def hello(self) -> AgentHello:
        """Who this node is now."""
        ...

    def accepted(self, answer: SessionAccepted) -> None:
        """The session stands; raises SkerryError to end it."""
        ...

    def next_heartbeat(self) -> Heartbeat:
        """The next renewal, numbered."""
        ...

    def confirmed(self, message: HeartbeatConfirmed, sent_ns: int) -> None:
        """A renewal of this session that was sent at `sent_ns` (CLOCK_BOOTTIME) was confirmed."""
        ...

    def desired(self, wanted: Desired) -> None:
        """A set arrived."""
        ...

    def next_status(self, now_s: float) -> Status | None:
        """The status to send now, if any."""
        ...

    def status_due_in(self, now_s: float) -> float | None:
        """Seconds until `next_status` has to be asked again; None = when `news` is set."""
        ...

    def status_committed(self, number: int, index: int) -> None:
        """A status is in the log."""
        ...

    async def logs(self, request: LogsRequest) -> LogsReply:
        """Answer a log request."""
        ...


class Session:
    """A session that `dial` has established; `run` serves it until it ends."""

    def __init__(self, channel: Channel, peer: str, host: Host, tracer: SessionTracer) -> None:
        self._channel = channel
        self._peer = peer
        self._host = host
        self._tracer = tracer
        self._outbox: asyncio.Queue[SessionMessage] = asyncio.Queue(OUTBOX_FRAMES_MAX)
        self._sent_ns: dict[int, int] = {}
        self._confirmed_ns = 0
        self.lease_ms = 0
        """How long a renewal will last, as the replica says; 0 = it does not."""
        self._beats = 0
        self._logs_open = 0
        self._replica = ""

    @property
    def replica(self) -> str:
        """Id of the replica that accepted this session; "" before."""
        return self._replica

    async def greet(self) -> None:
        """Say hello and wait for the answer.

        Raises:
            SessionRejected: the replica refuses; ``details["refusal"]`` is its code.
            BadFrame, SessionLost: it does not speak the protocol, or went away.
        """
        await self._send(self._host.hello())
        answer = await self._receive()
        if isinstance(answer, SessionRefused):
            raise SessionRejected(answer.message, hint=answer.hint, refusal=answer.code)
        if not isinstance(answer, SessionAccepted):
            raise BadFrame(f"{self._peer} answered the hello with {type(answer).__name__}")
        self._host.accepted(answer)
        self._replica = answer.replica
        self.lease_ms = answer.lease_ms
        self._tracer.emit("conn", peer=answer.replica, what="opened", why="session")
        log.info("session opened", replica=answer.replica, address=self._peer, leader=answer.leader)

    async def run(self, *, heartbeat_s: float, confirm_timeout_s: float) -> None:
        """Serve until the session ends; always raises, `SessionLost` when the link or replica failed.

        Args:
            heartbeat_s: between renewals, at most; an eighth of the lease if that is shorter.
            confirm_timeout_s: patience without a confirmation; 0 = a third of the lease.
        """
        heartbeat_s, confirm_timeout_s = lease.pace(self.lease_ms, heartbeat_s, confirm_timeout_s)
        self._confirmed_ns = self._host.now_ns()
        why = "this agent ends it"
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._read(tasks))
                tasks.create_task(self._write())
                tasks.create_task(self._beat(heartbeat_s, confirm_timeout_s))
                tasks.create_task(self._report())
        except BaseExceptionGroup as group:
            error = sole(group, SessionLost)
            why = error.message
            raise error from None
        finally:
            self._tracer.emit("conn", peer=self._replica, what="closed", why=why)

    async def goodbye(self, why: str) -> None:
        """End in order, as far as the link still works; never raises."""
        with contextlib.suppress(SessionLost, TimeoutError):
            async with asyncio.timeout(GOODBYE_TIMEOUT_S):
                await self._send(Goodbye(why))
        await _drop(self._channel)

    async def _read(self, tasks: asyncio.TaskGroup) -> None:
        while True:
            message = await self._receive()
            match message:
                case HeartbeatConfirmed():
                    self._confirm(message)
                case Desired():
                    self._host.desired(message)
                case StatusCommitted():
                    self._host.status_committed(message.number, message.index)
                case LogsRequest():
                    self._answer_logs(message, tasks)
                case Goodbye():
                    owner = message.why.removeprefix(OWNER_IS) if message.why.startswith(OWNER_IS) else ""
                    raise SessionLost(f"{self._replica} says goodbye: {message.why}", owner=owner)
                case _:
                    raise BadFrame(f"{self._replica} sent {type(message).__name__} in a session")

    async def _write(self) -> None:
        while True:
            await self._send(await self._outbox.get())

    async def _beat(self, heartbeat_s: float, confirm_timeout_s: float) -> None:
        while True:
            silent_s = (self._host.now_ns() - self._confirmed_ns) / 1e9
            if silent_s > confirm_timeout_s:
                raise SessionLost(f"{self._replica} confirmed no heartbeat for {silent_s:.1f} s")
            if not self._outbox.full():
                beat = self._host.next_heartbeat()
                self._sent_ns[beat.number] = self._host.now_ns()
                self._outbox.put_nowait(beat)
            await asyncio.sleep(heartbeat_s)

    async def _report(self) -> None:
        """Send statuses as they come up, each again until it is committed."""
        loop = asyncio.get_running_loop()
        while True:
            self._host.news.clear()
            status = self._host.next_status(loop.time())
            if status is not None:
                await self._outbox.put(status)
            try:
                async with asyncio.timeout(self._host.status_due_in(loop.time())):
                    await self._host.news.wait()
            except TimeoutError:
                continue

    def _confirm(self, message: HeartbeatConfirmed) -> None:
        sent_ns = self._sent_ns.get(message.number)
        if sent_ns is None:
            return
        self._confirmed_ns = max(self._confirmed_ns, sent_ns)
        self._sent_ns = {number: at for number, at in self._sent_ns.items() if number > message.number}
        self._host.confirmed(message, sent_ns)

    def _answer_logs(self, request: LogsRequest, tasks: asyncio.TaskGroup) -> None:
        if self._logs_open >= LOGS_ANSWERED_MAX:
            if not self._outbox.full():
                self._outbox.put_nowait(LogsReply(request.id, (), request.cursor, True, "overloaded"))
            return
        self._logs_open += 1
        tasks.create_task(self._logs(request))

    async def _logs(self, request: LogsRequest) -> None:
        try:
            await self._outbox.put(await self._host.logs(request))
        finally:
            self._logs_open -= 1

    async def _send(self, message: SessionMessage) -> None:
        m, lc, hlc = self._tracer.stamp_send()
        if not self._traced(message):
            m = ""
        data = encode_frame(Frame(m, lc, hlc, message))
        if m:
            self._tracer.emit("send", m=m, to=self._replica or self._peer, type=type(message).__name__, bytes=len(data))
        try:
            async with asyncio.timeout(SEND_TIMEOUT_S):
                await self._channel.send_bytes(data)
        except TimeoutError:
            raise SessionLost(f"{self._peer} takes nothing for {SEND_TIMEOUT_S} s") from None
        except ConnectionError as error:
            raise SessionLost(f"sending to {self._peer} failed: {error}") from None

    async def _receive(self) -> SessionMessage:
        try:
            data = await self._channel.receive()
        except ChannelClosed as error:
            raise SessionLost(f"{self._peer} closed the link ({error.code})") from None
        except ProtocolViolation as error:
            raise BadFrame(f"{self._peer} broke the protocol: {error.message}") from None
        try:
            frame = decode_frame(data)
        except (msgspec.DecodeError, RecursionError) as error:
            raise BadFrame(f"{self._peer} sent a frame that cannot be read: {error}") from None
        self._tracer.observe(frame.lc, frame.hlc)
        if frame.m:
            kind = type(frame.body).__name__
            self._tracer.emit("recv", m=frame.m, fr=self._replica or self._peer, type=kind, bytes=len(data))
        return frame.body

    def _traced(self, message: SessionMessage) -> bool:
        """All but heartbeats are traced; of those, one in `heartbeat_sample`."""
        if not isinstance(message, Heartbeat):
            return True
        self._beats += 1
        sample = self._tracer.heartbeat_sample
        return sample > 0 and self._beats % sample == 1 % sample


async def dial(client: Client, address: str, token: str, host: Host, tracer: SessionTracer) -> Session:
    """A greeted session with the replica at `address` (``host:port``).

    Raises:
        SessionRejected: it refused; SessionLost: it cannot be reached, or does not speak the protocol.
        SkerryError: what `Host.accepted` raised.
    """
    channel = await _upgrade(client, address, token)
    session = Session(channel, address, host, tracer)
    try:
        async with asyncio.timeout(HELLO_TIMEOUT_S):
            await session.greet()
    except TimeoutError:
        await _drop(channel)
        raise SessionLost(f"{address} did not answer the hello within {HELLO_TIMEOUT_S} s") from None
    except BaseException:
        await _drop(channel)
        raise
    return session


async def _upgrade(client: Client, address: str, token: str) -> Channel:
    headers = {"Authorization": f"Bearer {token}"}
    try:
        async with asyncio.timeout(DIAL_TIMEOUT_S):
            return await client.dial(
                address, SESSION_PATH, headers=headers, frame_bytes_max=FRAME_BYTES_MAX, close_s=CLOSE_S
            )
    except DialRefused as error:
        raise _refused_upgrade(address, error.status) from None
    except TimeoutError:
        raise SessionLost(f"{address} did not answer within {DIAL_TIMEOUT_S} s") from None
    except ConnectionError as error:
        raise SessionLost(f"{address} cannot be reached: {error}") from None


def _refused_upgrade(address: str, status: int) -> SessionRejected | SessionLost:
    if status in (401, 403):
        return SessionRejected(
            f"{address} does not accept this agent's link token",
            hint="give the agent the cluster's token in security.link_token",
            refusal="bad-token",
        )
    return SessionLost(f"{address} answered HTTP {status} where a session was asked for")


async def _drop(channel: Channel) -> None:
    """Close without waiting long for the other side."""
    with contextlib.suppress(TimeoutError, ConnectionError):
        async with asyncio.timeout(GOODBYE_TIMEOUT_S):
            await channel.close()
