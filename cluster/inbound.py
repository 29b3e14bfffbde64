"""The incoming half of links: letting dialers in, decoding what they send, cutting silent ones.

Owns: the upgrade handler, the registry of accepted links, refusals.
Must not know: the outgoing side, or what any item means; items go to one callback.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from cluster.framing import (
    BAD_HELLO,
    BAD_TOKEN,
    FRAME_BYTES_MAX,
    HELLO_HEADER,
    PROTOCOL_VERSION,
    REFUSED_HEADER,
    RETIRED_STORE,
    TOO_MANY_LINKS,
    Hello,
    Identity,
    Item,
    LiveLink,
    Refusal,
    Welcome,
    decode_frame,
    decode_hello,
    decode_item,
    encode_welcome,
    judge,
)
from cluster.network import Answer, Channel, ChannelClosed, Knock, NotAnUpgrade
from cluster.problems import PROBLEM_TYPE
from cluster.security import bearer, tokens_equal
from cluster.trace import Tracer
from raft.errors import ProtocolViolation
from raft.protocols import Clock

LIVE_NS = 1_500_000_000
"""A link that carried something this recently belongs to a live process (dialers ping every 250 ms)."""
SILENT_NS = 10_000_000_000
"""A link that carried nothing for this long is cut."""
LINKS_PER_PEER_MAX = 64
REFUSALS_LOGGED_NS = 5_000_000_000
CLOSE_S = 0.2
_ONLY_REPLICAS = "only replicas of Skerry dial this path"

OnItem = Callable[["Inbound", Item, int], None]


class Inbound:
    """One accepted link of a peer."""

    __slots__ = ("channel", "heard_ns", "incarnation", "peer", "received_bytes", "store_id")

    def __init__(self, hello: Hello, channel: Channel, now_ns: int) -> None:
        self.peer = hello.node
        self.store_id = hello.store_id
        self.incarnation = hello.incarnation
        self.channel = channel
        self.heard_ns = now_ns
        self.received_bytes = 0

    def cut(self) -> None:
        """End the connection now, whatever is in its buffers."""
        self.channel.cut()


class Gate:
    """Accepts links at ``/v1/links``.

    Args:
        identity: who this process is at this moment.
        peers: replica ids that may dial.
        token: the link token.
        on_item: called for every decoded item with its link and its size in bytes.
    """

    def __init__(
        self,
        *,
        identity: Callable[[], Identity],
        peers: frozenset[str],
        token: str,
        clock: Clock,
        tracer: Tracer,
        on_item: OnItem,
        log: Any,
    ) -> None:
        self._identity = identity
        self._peers = peers
        self._token = token
        self._clock = clock
        self._tracer = tracer
        self._on_item = on_item
        self._log = log
        self._links: dict[str, list[Inbound]] = {}
        self._refusals: dict[tuple[str, str], int] = {}
        self._closing = False

    def heard_ns(self, peer: str) -> int | None:
        """When the newest link of `peer` last carried a frame; None without a link."""
        return max((link.heard_ns for link in self._links.get(peer, ())), default=None)

    def count(self, peer: str) -> int:
        """Open links of `peer`."""
        return len(self._links.get(peer, ()))

    def received_bytes(self, peer: str) -> int:
        """Frame bytes over the open links of `peer`."""
        return sum(link.received_bytes for link in self._links.get(peer, ()))

    async def handle(self, knock: Knock) -> Answer | None:
        """The upgrade: judge the hello, then take frames until the link ends."""
        try:
            hello = decode_hello(knock.header(HELLO_HEADER))
        except ProtocolViolation as error:
            return self._refuse("?", Refusal(BAD_HELLO, str(error), _ONLY_REPLICAS), knock)
        refusal = self._judge(hello, knock)
        if refusal is not None:
            return self._refuse(hello.node, refusal, knock)
        try:
            channel = await knock.accept(frame_bytes_max=FRAME_BYTES_MAX, close_s=CLOSE_S)
        except NotAnUpgrade as error:
            return self._refuse(hello.node, Refusal(BAD_HELLO, str(error), _ONLY_REPLICAS), knock)
        except ConnectionError:  # the dialer gave this attempt up meanwhile
            return Answer(400)
        link = Inbound(hello, channel, self._clock.now_ns())
        self._enter(link)
        try:
            await self._welcome(channel)
            await self._receive(link)
        except ConnectionError as error:
            self._log.info("link ended early", peer=link.peer, why=type(error).__name__)
        finally:
            self._leave(link)
        return None

    def sweep(self) -> None:
        """Cut links that carried nothing for long, and those of replaced stores; call about once a second."""
        now_ns, retired = self._clock.now_ns(), self._identity().retired
        for links in list(self._links.values()):
            for link in tuple(links):
                if now_ns - link.heard_ns > SILENT_NS:
                    self._log.info("cutting a silent link", peer=link.peer)
                    link.cut()
                elif link.store_id in retired:
                    self._log.error("cutting the link of a replaced store", peer=link.peer, code=RETIRED_STORE)
                    link.cut()

    def close(self) -> None:
        """Refuse new links and cut all."""
        self._closing = True
        for links in list(self._links.values()):
            for link in tuple(links):
                link.cut()

    def _judge(self, hello: Hello, knock: Knock) -> Refusal | None:
        given = bearer(knock.header("Authorization"))
        if not tokens_equal(given or "", self._token):
            return Refusal(BAD_TOKEN, f"{hello.node} sent a wrong or no link token", "give all the same link token")
        links = self._links.get(hello.node, ())
        if self._closing or len(links) >= LINKS_PER_PEER_MAX:
            return Refusal(TOO_MANY_LINKS, f"{hello.node} has {len(links)} links open", "retry")
        now_ns = self._clock.now_ns()
        live = tuple(
            LiveLink(link.peer, link.incarnation, link.store_id)
            for each in self._links.values()
            for link in each
            if now_ns - link.heard_ns < LIVE_NS
        )
        return judge(hello, self._identity(), self._peers, live)

    def _refuse(self, node: str, refusal: Refusal, knock: Knock) -> Answer:
        now_ns = self._clock.now_ns()
        key = (node if node in self._peers else "?", refusal.code)
        if now_ns - self._refusals.get(key, -REFUSALS_LOGGED_NS) >= REFUSALS_LOGGED_NS:
            self._refusals[key] = now_ns
            self._log.error(
                "link refused", peer=node, code=refusal.code, why=refusal.message, hint=refusal.hint, ip=knock.remote
            )
            self._tracer.emit("conn", peer=node, what="refused", why=refusal.code, by=self._tracer.node)
        status = 401 if refusal.code == BAD_TOKEN else 400 if refusal.code == BAD_HELLO else 409
        document = {
            "type": f"urn:skerry:problem:{refusal.code}",
            "title": refusal.code,
            "status": status,
            "detail": refusal.message,
            "code": refusal.code,
            "hint": refusal.hint,
            "retryable": False,
            "outcome": "not-done",
        }
        return Answer(status, msgspec.json.encode(document), PROBLEM_TYPE, {REFUSED_HEADER: refusal.code})

    async def _welcome(self, channel: Channel) -> None:
        me = self._identity()
        welcome = Welcome(PROTOCOL_VERSION, me.node, me.store_id, me.incarnation, me.cluster_id)
        await channel.send_bytes(encode_welcome(welcome))

    def _enter(self, link: Inbound) -> None:
        """Several links of one process may be open: its dialer closes the older ones itself, once the new one works."""
        links = self._links.setdefault(link.peer, [])
        for other in tuple(links):
            if other.incarnation != link.incarnation:
                other.cut()  # its process is gone: `judge` found no life in it
        links.append(link)

    def _leave(self, link: Inbound) -> None:
        self._links[link.peer].remove(link)

    async def _receive(self, link: Inbound) -> None:
        channel = link.channel
        try:
            while True:
                self._take_frame(link, await channel.receive())
        except ChannelClosed:
            return
        except ProtocolViolation as error:
            self._violation(link, str(error))
            link.cut()

    def _take_frame(self, link: Inbound, data: bytes) -> None:
        """Decode a frame and hand on its items; raises ProtocolViolation."""
        link.heard_ns = self._clock.now_ns()
        link.received_bytes += len(data)
        frame = decode_frame(data)
        self._tracer.observe(frame.lc, frame.hlc)
        for raw in frame.items:
            self._on_item(link, decode_item(raw), memoryview(raw).nbytes)

    def _violation(self, link: Inbound, why: str) -> None:
        self._log.error("link cut: the peer broke the protocol", peer=link.peer, why=why[:300])
        self._tracer.emit("conn", peer=link.peer, what="closed", why="protocol-violation")
