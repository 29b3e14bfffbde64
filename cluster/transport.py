"""Links: everything replicas say to each other (DESIGN.md §3, Transport).

Owns: one outgoing link a peer, the gate for incoming ones, and where received items go.
Must not know: how a link is kept (`cluster.links`), admitted (`cluster.inbound`) or encoded
(`cluster.framing`), nor what consensus or a request means.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection

import structlog
from msgspec import Struct

from cluster.bell import Bell
from cluster.calls import Calls, not_reached
from cluster.dialing import LinkContext
from cluster.framing import LINK_PATH, Answer, Consensus, Failure, Identity, Item, Ping, Pong, Request
from cluster.inbound import LIVE_NS, Gate, Inbound
from cluster.links import PING_NS_DEFAULT, PeerLink
from cluster.network import Network, OnKnock
from cluster.trace import Tracer
from cluster.wire_trace import counter_of
from raft.messages import Message
from raft.protocols import Clock, Dice

SWEEP_S = 1.0
REQUESTS_MAX_DEFAULT = 256


class LinkIdentity(Struct, frozen=True):
    """Who this replica is to its peers.

    `cluster_id` is asked anew for every hello: "" until the cluster is formed.  So is `retired`: the stores that
    were replaced, whose hellos are refused.
    """

    node: str
    store_id: str
    cluster_name: str
    cluster_id: Callable[[], str]
    generation: int = 0
    retired: Callable[[], tuple[str, ...]] = tuple


class PeerStatus(Struct, frozen=True):
    """One peer as its links show it.  Ages and round trips in milliseconds; None = never."""

    peer: str
    address: str
    outgoing: bool
    incoming: bool
    why: str
    proven_age_ms: float | None
    heard_age_ms: float | None
    round_trip_ms: float | None
    sent_bytes: int
    received_bytes: int
    sent_messages: int
    dropped_messages: int


class Links:
    """Replica to replica; satisfies `raft.protocols.Transport`.

    One WebSocket for each directed pair: we send on the link that we dial, and hear on the links that peers
    dial (`sockets`).  Answers to requests come back on the reverse link, so each direction can be cut alone.

    Args:
        identity: who we are.
        peers: replica id to ``host:port``; our own id may be in it and is left out.
        token: the link token that everybody must show.
        tracer: send, recv, drop and conn events go there.
        clock: deadlines.
        dice: jitter.
        deliver: takes each consensus message, after its sender and before the store that the sender's hello named;
            must not block.
        serve: carries out a peer's request (sender, method, body); a SkerryError it raises reaches the asker
            as PeerError with the same code, hint, retryable and outcome.
        network: what carries the links.
        requests_max: peers' requests in progress at once.
        ping_ns: between proofs that a link is alive.
        routine: methods that are asked all the time, whose calls the trace samples.
    """

    def __init__(
        self,
        *,
        identity: LinkIdentity,
        peers: dict[str, str],
        token: str,
        tracer: Tracer,
        clock: Clock,
        dice: Dice,
        deliver: Callable[[str, Message, str], None],
        serve: Callable[[str, str, bytes], Awaitable[bytes]],
        network: Network,
        requests_max: int = REQUESTS_MAX_DEFAULT,
        ping_ns: int = PING_NS_DEFAULT,
        routine: Collection[str] = (),
    ) -> None:
        assert token, "links never run without a token"
        self._identity = identity
        self._addresses = {peer: peers[peer] for peer in sorted(peers) if peer != identity.node}
        self._tracer = tracer
        self._clock = clock
        self._network = network
        self._deliver = deliver
        self._log = structlog.get_logger("links").bind(node=identity.node)
        self._context = LinkContext(self._who, token, clock, dice, tracer, self._log, ping_ns)
        self._links: dict[str, PeerLink] = {}
        self._calls = Calls(
            tracer, serve, self._links.get, requests_max=requests_max, routine=frozenset(routine), log=self._log
        )
        for peer, address in self._addresses.items():
            self._links[peer] = PeerLink(self._context, peer, address, on_lost=self._calls.fail)
        self._gate = Gate(
            identity=self._who,
            peers=frozenset(self._addresses),
            token=token,
            clock=clock,
            tracer=tracer,
            on_item=self._received,
            log=self._log,
        )
        self._stopping = Bell()
        self._stopped: asyncio.Event = asyncio.Event()
        self._running = False

    def send(self, to: str, message: Message) -> None:
        """Queue a consensus message; never blocks, drops when there is no link or no room."""
        link = self._links.get(to)
        if link is not None:
            link.send(message)

    async def request(self, to: str, method: str, body: bytes, *, timeout_s: float) -> bytes:
        """Ask a peer and wait for its answer.

        Raises:
            PeerNotReached: it was certainly not sent (outcome ``not-done``).
            PeerUnreachable: it was sent, and no answer came (outcome ``unknown``).
            PeerError: the peer answered with an error.
        """
        link = self._links.get(to)
        if link is None:
            raise not_reached(to, method, "no such peer")
        return await self._calls.request(link, method, body, timeout_s=timeout_s)

    def sockets(self) -> dict[str, OnKnock]:
        """What the link port must serve for peers to reach us."""
        return {LINK_PATH: self._gate.handle}

    async def run(self) -> None:
        """Dial every peer and keep the links, until cancelled or closed."""
        assert not self._running, "links run once"
        self._running = True
        try:
            async with self._network.client() as client:
                self._context.client = client
                await self._run_links()
        finally:
            self._gate.close()
            await self._calls.close()
            self._context.client = None
            self._stopped.set()

    async def close(self) -> None:
        """End `run` and every link, in order."""
        self._stopping.ring()
        if self._running:
            await self._stopped.wait()

    def linked_peers(self) -> list[str]:
        """Peers that we have a link to, by id."""
        return [peer for peer in self._addresses if self._links[peer].session is not None]

    def proven_peers(self, within_ns: int) -> list[str]:
        """Peers with links both ways, and ours proved within the last `within_ns`; by id."""
        now_ns, found = self._clock.now_ns(), []
        for peer in self._addresses:
            session, heard_ns = self._links[peer].session, self._gate.heard_ns(peer)
            if (
                session is not None
                and now_ns - session.proven_ns < within_ns
                and heard_ns is not None
                and now_ns - heard_ns < LIVE_NS
            ):
                found.append(peer)
        return found

    def peers_status(self) -> list[PeerStatus]:
        """Every peer, by id."""
        return [self._peer_status(peer) for peer in self._addresses]

    async def _run_links(self) -> None:
        async with asyncio.TaskGroup() as group:
            tasks = [
                group.create_task(link.run(), name=f"link {self._identity.node}~{link.peer}")
                for link in self._links.values()
            ]
            self._gate.sweep()
            while not await self._stopping.wait(SWEEP_S):
                self._gate.sweep()
            for task in tasks:
                task.cancel()

    def _received(self, inbound: Inbound, item: Item, size_bytes: int) -> None:
        """Where every decoded item goes, most frequent first."""
        peer = inbound.peer
        link = self._links.get(peer)
        if link is None:
            return  # the gate admits only peers
        if isinstance(item, Consensus):
            if item.counter:
                link.trace.received(item.message, f"{peer}/{inbound.incarnation}/{item.counter}", size_bytes)
            self._deliver(peer, item.message, inbound.store_id)
        elif isinstance(item, Ping):
            link.send_pong(Pong(item.link, item.number))
        elif isinstance(item, Pong):
            link.proven(item.link, item.number)
        else:
            self._received_call(link, inbound, item, size_bytes)

    def _received_call(
        self, link: PeerLink, inbound: Inbound, call: Request | Answer | Failure, size_bytes: int
    ) -> None:
        counter = counter_of(call)
        link.trace.received_call(call, f"{inbound.peer}/{inbound.incarnation}/{counter}", size_bytes)
        if isinstance(call, Request):
            self._calls.serve(inbound.peer, call)
        else:
            self._calls.answered(inbound.peer, call)

    def _who(self) -> Identity:
        me = self._identity
        return Identity(
            node=me.node,
            store_id=me.store_id,
            incarnation=self._tracer.incarnation,
            cluster_name=me.cluster_name,
            cluster_id=me.cluster_id(),
            generation=me.generation,
            retired=me.retired(),
        )

    def _peer_status(self, peer: str) -> PeerStatus:
        link, now_ns = self._links.get(peer), self._clock.now_ns()
        session = link.session if link is not None else None
        heard_ns = self._gate.heard_ns(peer)
        heard_age_ns = None if heard_ns is None else now_ns - heard_ns
        return PeerStatus(
            peer=peer,
            address=self._addresses[peer],
            outgoing=session is not None,
            incoming=heard_age_ns is not None and heard_age_ns < LIVE_NS,
            why=link.why_down if link is not None else "not running",
            proven_age_ms=(now_ns - session.proven_ns) / 1e6 if session is not None else None,
            heard_age_ms=None if heard_age_ns is None else heard_age_ns / 1e6,
            round_trip_ms=link.rtt_ns / 1e6 if link is not None and link.rtt_ns else None,
            sent_bytes=link.sent_bytes if link is not None else 0,
            received_bytes=self._gate.received_bytes(peer),
            sent_messages=link.sent_messages if link is not None else 0,
            dropped_messages=link.trace.dropped if link is not None else 0,
        )
