"""The outgoing half of a link: dialling one peer, keeping the link proven, writing frames.

Owns: when to dial, when a link counts as dead, and how waiting items become frames.
Must not know: what consensus messages mean, who asked for a request, or the inbound side.

Rules, each with its reason:
- The dial attempt that succeeds replaces the old link; a link without proof is *not* closed first. In a
  one-way cut the old link may still carry its direction although no proof can come back, and a
  new one could not be made.
- A new attempt starts every 150 ms or so even while earlier ones hang: a partition that swallows bytes leaves
  attempts hanging, and after it heals the next one must not wait for their time-outs.
- Pings travel on this link, pongs on the reverse one; a ping that is due soon goes with whatever is sent. No proof
  for `SUSPECT_NS`: dial another. A write stuck for `STUCK_NS`: cut this one.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

from cluster.bell import Bell
from cluster.dialing import LinkContext, dial
from cluster.framing import (
    BATCH_BYTES,
    DUPLICATE_STORE,
    REFUSED_HEADER,
    Consensus,
    Ping,
    Pong,
    Welcome,
    encode_frame,
    encode_item,
)
from cluster.network import BROKEN, GOING_AWAY, NORMAL, Channel, ChannelClosed, DialRefused
from cluster.outbox import Call, Outbox
from cluster.wire_trace import WireTrace
from raft.errors import ProtocolViolation
from raft.messages import Message

PING_NS_DEFAULT = 250_000_000
SUSPECT_NS = 1_000_000_000
SUSPECT_PINGS = 2.5
"""A link without proof for `SUSPECT_NS`, or this many pings if that is longer, is suspect."""
UNPROVEN_NS = 3_000_000_000
STUCK_NS = 2_000_000_000
ATTEMPTS_MAX = 16
ATTEMPT_DEADLINE_S = 5.0
DELAY_FIRST_MS, DELAY_MAX_MS, DELAY_REFUSED_MS = 25, 150, 500
CALL_BATCH_BYTES = 256 << 10


class Session:
    """One established outgoing WebSocket."""

    __slots__ = ("channel", "number", "opened_ns", "proven_ns", "tasks", "welcome", "writing_since_ns")

    def __init__(self, channel: Channel, number: int, welcome: Welcome, now_ns: int) -> None:
        self.channel = channel
        self.number = number
        self.welcome = welcome
        self.opened_ns = now_ns
        self.proven_ns = now_ns
        self.writing_since_ns = 0
        self.tasks: list[asyncio.Task[None]] = []


class PeerLink:
    """Everything this process sends to one peer.

    Args:
        context: identity, token, clock, dice, tracer and client of this process.
        peer: replica id.
        address: ``host:port`` of its link port.
        on_lost: called with the reason when calls already sent can no longer be trusted to be answered.
    """

    def __init__(self, context: LinkContext, peer: str, address: str, *, on_lost: Callable[[str, str], None]) -> None:
        self.peer = peer
        self.address = address
        self.outbox = Outbox()
        self.trace = WireTrace(context.tracer, peer)
        self.session: Session | None = None
        self.sent_bytes = 0
        self.sent_messages = 0
        self.rtt_ns = 0
        self.why_down = "not dialled yet"
        self._context = context
        self._suspect_ns = max(SUSPECT_NS, int(SUSPECT_PINGS * context.ping_ns))
        self._on_lost = on_lost
        self._log = context.log.bind(peer=peer, address=address)
        self._attempts: deque[asyncio.Task[None]] = deque()
        self._failures = 0
        self._refused = ""
        self._sessions = 0
        self._pings = 0
        self._ping_sent_ns = self._ping_due_ns = 0
        self._unproven_reported = False
        self._changed = Bell()
        self._writer_wakes: asyncio.Future[None] | None = None
        self._up_waiters: set[asyncio.Future[None]] = set()
        self._group: asyncio.TaskGroup | None = None

    # ---- what others call -------------------------------------------------------------

    def send(self, message: Message) -> None:
        """Queue a consensus message, or drop it: without a link it would be stale when one is up."""
        if self.session is None:
            self.trace.drop(message, "down")
        elif self.outbox.put_consensus(message):
            self._wake_writer()
        else:
            self.trace.drop(message, "full")

    def send_call(self, call: Call) -> bool:
        """Queue a request or answer; False = too many wait already."""
        accepted = self.outbox.put_call(call)
        self._wake_writer()
        return accepted

    def send_pong(self, pong: Pong) -> None:
        """Queue proof of the peer's own link; it goes with what else this turn of the loop has to say."""
        if self.session is not None:
            self.outbox.put_control(pong)
            asyncio.get_running_loop().call_soon(self._wake_writer)

    def proven(self, link: int, number: int) -> None:
        """A pong for our ping `number` on link `link` arrived."""
        session = self.session
        if session is not None and session.number == link:
            session.proven_ns = self._context.clock.now_ns()
            self._unproven_reported = False
            if number == self._pings:
                self.rtt_ns = session.proven_ns - self._ping_sent_ns

    async def wait_up(self, timeout_s: float) -> bool:
        """Whether the link is up within `timeout_s`."""
        if self.session is not None:
            return True
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._up_waiters.add(waiter)
        try:
            async with asyncio.timeout(timeout_s):
                await waiter
        except TimeoutError:
            return False
        finally:
            self._up_waiters.discard(waiter)
        return True

    async def run(self) -> None:
        """Dial and keep the link until cancelled."""
        try:
            async with asyncio.TaskGroup() as self._group:
                while True:
                    await self._changed.wait(self._tend())
        finally:
            if (session := self.session) is not None:
                self.session = None
                await session.channel.hang_up()

    # ---- keeping it -------------------------------------------------------------------

    def _tend(self) -> float:
        """Look after the link once; returns seconds until the next look."""
        session, now_ns = self.session, self._context.clock.now_ns()
        if session is None:
            self._start_attempt()
            return self._delay_s()
        if session.writing_since_ns and now_ns - session.writing_since_ns > STUCK_NS:
            self._lost(session, "stuck")
            return 0.0
        silence_ns = now_ns - session.proven_ns
        if silence_ns > UNPROVEN_NS and not self._unproven_reported:
            self._unproven_reported = True
            self._on_lost(self.peer, "no proof of life for 3 s")
        # A fresh link without any pong has proved itself by its welcome: then the reverse link is to blame.
        suspect = silence_ns > (self._suspect_ns if session.proven_ns > session.opened_ns else UNPROVEN_NS)
        if suspect:
            self._start_attempt()
        if self._ping_due_ns <= now_ns:
            self._ping(session, now_ns)
            self._wake_writer()
        if suspect:
            return self._delay_s()
        return (self._ping_due_ns - now_ns) / 1e9

    def _ping(self, session: Session, now_ns: int) -> None:
        self._pings += 1
        self._ping_sent_ns, self._ping_due_ns = now_ns, now_ns + self._context.ping_ns
        self.outbox.put_control(Ping(session.number, self._pings))

    def _delay_s(self) -> float:
        """Jittered pause before the next attempt: at most about 190 ms, 625 ms after a refusal by code."""
        base_ms = min(DELAY_MAX_MS, DELAY_FIRST_MS << min(self._failures, 8))
        if self._refused and self._refused != DUPLICATE_STORE:
            base_ms = DELAY_REFUSED_MS
        return base_ms * (75 + self._context.dice.below(51)) / 100_000

    # ---- dialling ---------------------------------------------------------------------

    def _start_attempt(self) -> None:
        assert self._group is not None, "dialling before run()"
        while len(self._attempts) >= ATTEMPTS_MAX:
            self._attempts.popleft().cancel()
        task = self._group.create_task(self._attempt())
        self._attempts.append(task)
        task.add_done_callback(lambda done: self._attempts.remove(done) if done in self._attempts else None)
        if self._failures < 8:
            self._failures += 1  # an attempt that hangs counts as failed until it succeeds

    async def _attempt(self) -> None:
        try:
            async with asyncio.timeout(ATTEMPT_DEADLINE_S):
                channel, welcome = await dial(self._context, self.peer, self.address)
        except DialRefused as error:
            self._note_refused(error)
        except TimeoutError:
            self._note_failure("timeout")
        except ConnectionError as error:
            self._note_failure(str(error))
        except ProtocolViolation as error:
            self._note_failure(str(error))
        else:
            self._adopt(channel, welcome)

    def _adopt(self, channel: Channel, welcome: Welcome) -> None:
        """A new link replaces the old one; what is queued goes out on the new one."""
        assert self._group is not None, "adopting before run()"
        old, self._sessions = self.session, self._sessions + 1
        session = Session(channel, self._sessions, welcome, self._context.clock.now_ns())
        self.session = session
        self._failures, self._refused, self.why_down = 0, "", ""
        self._ping_sent_ns = self._ping_due_ns = 0
        if old is not None:
            self._retire(old)
            if old.welcome.incarnation != welcome.incarnation:
                self._on_lost(self.peer, "the peer restarted")
        current = asyncio.current_task()
        for attempt in tuple(self._attempts):
            if attempt is not current:
                attempt.cancel()
        session.tasks = [
            self._group.create_task(self._write(session)),
            self._group.create_task(self._watch(session)),
        ]
        self.trace.connection("opened", "replaced" if old is not None else "")
        self._log.info("link up", replaced=old is not None)
        for waiter in self._up_waiters:
            if not waiter.done():
                waiter.set_result(None)
        self._changed.ring()

    def _note_refused(self, error: DialRefused) -> None:
        code = error.header(REFUSED_HEADER) or f"http-{error.status}"
        if self._refused != code:
            self._log.error("link refused by the peer", code=code, status=error.status)
        self._refused = code
        self._note_failure(code)

    def _note_failure(self, why: str) -> None:
        self.trace.connection_refused(why, self._context.clock.now_ns())
        if self.session is None:
            if why != self.why_down:
                self._log.warning("no link", why=why)
            self.why_down = why

    # ---- one session ------------------------------------------------------------------

    async def _write(self, session: Session) -> None:
        """Turn what waits into frames; everything sent within one turn of the loop shares one."""
        clock = self._context.clock
        try:
            while self.session is session:
                if not self.outbox:
                    self._writer_wakes = asyncio.get_running_loop().create_future()
                    await self._writer_wakes
                    continue
                frame = self._next_frame(session)
                self.sent_bytes += len(frame)
                session.writing_since_ns = clock.now_ns()
                await session.channel.send_bytes(frame)
                session.writing_since_ns = 0
        except ConnectionError as error:
            self._lost(session, error.reason if isinstance(error, ChannelClosed) else str(error))

    def _next_frame(self, session: Session) -> bytes:
        """Up to a megabyte of waiting items, control first; a ping that is due soon goes along."""
        outbox, trace, now_ns = self.outbox, self.trace, self._context.clock.now_ns()
        if now_ns - self._ping_sent_ns >= self._context.ping_ns // 2:
            self._ping(session, now_ns)
        items: list[bytes] = []
        size = 0
        while (control := outbox.next_control()) is not None:
            items.append(encode_item(control))
        while size < BATCH_BYTES and (message := outbox.next_consensus()) is not None:
            counter = trace.number(message)
            data = encode_item(Consensus(counter, message))
            if counter:
                trace.sent(message, counter, len(data))
            items.append(data)
            size += len(data)
            self.sent_messages += 1
        calls = 0
        while calls < CALL_BATCH_BYTES and (call := outbox.next_call()) is not None:
            data = encode_item(call)
            trace.sent_call(call, len(data))
            items.append(data)
            calls += len(data)
        lc, hlc = self._context.tracer.clocks()
        return encode_frame(lc, hlc, items)

    async def _watch(self, session: Session) -> None:
        """Notice the end of the connection; the peer never sends data on our link."""
        try:
            await session.channel.receive()
            why = "protocol-violation"
        except ProtocolViolation:
            why = "protocol-violation"
        except ChannelClosed as error:
            why = _words(error)
        self._lost(session, why)

    def _lost(self, session: Session, why: str) -> None:
        if self.session is not session:
            return
        self.session = None
        self.why_down = why
        self._failures = 0
        self._retire(session)
        for message in self.outbox.clear_link_bound():
            self.trace.drop(message, "reset")
        self.trace.connection("closed" if why == "closed" else "reset", why)
        self._log.warning("link down", why=why)
        self._on_lost(self.peer, why)
        self._changed.ring()

    def _retire(self, session: Session) -> None:
        current = asyncio.current_task()
        for task in session.tasks:
            if task is not current:
                task.cancel()
        self._hang_up(session.channel)

    def _hang_up(self, channel: Channel) -> None:
        assert self._group is not None, "hanging up before run()"
        channel.cut()
        self._group.create_task(channel.hang_up())

    def _wake_writer(self) -> None:
        waiter = self._writer_wakes
        if waiter is not None and not waiter.done():
            waiter.set_result(None)


def _words(ended: ChannelClosed) -> str:
    """Why a channel ended, in short; "closed" when that was in order, or nobody knows better."""
    if ended.code in (NORMAL, GOING_AWAY):
        return "closed"
    if ended.code == BROKEN:
        return ended.reason or "closed"
    return f"closed by the peer ({ended.reason or ended.code})"
