"""The network of a world: hosts, addresses, listeners, links, and making connections.

Owns: the directed link matrix, names and ports, the handshake, resets.
Must not know: what travels over a connection (`streams`, `messages`), or who injects faults.

There are two matrices.  `link(a, b)` is packets from `a` to `b`, whoever dialled: the truth of a cable.  `route(a, b)`
is the connections that `a` dials to `b`, in both directions: what a proxy in front of `b` can do, and what a one-way
cut of scenarios means (`chaos.links`).
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterable
from contextvars import Context, copy_context
from random import Random
from typing import TYPE_CHECKING, Any, Final

from chaos.sim.links import MS, US, Impairment, Link
from chaos.sim.lives import LIFE, NS_PER_S, Life
from chaos.sim.loop import SimLoop
from chaos.sim.pipes import OPEN, RESET, Pipe

if TYPE_CHECKING:
    from chaos.sim.host import SimHost

LATENCY_NS: Final = (200 * US, 800 * US)
LOOPBACK_NS: Final = (20 * US, 40 * US)
SYN_RETRIES: Final = 6
EPHEMERAL_PORT: Final = 32_768
LOCAL_NAMES: Final = frozenset({"", "localhost", "127.0.0.1", "0.0.0.0", "::", "::1"})  # noqa: S104  names, not a bind


class Listener:
    """A port that a life listens on.

    Args:
        accept: makes the accepting end of a connection; called at the dialer's last packet of the handshake.
    """

    __slots__ = ("accept", "context", "host", "life", "open", "port")

    def __init__(self, life: Life, port: int, accept: Callable[[Network, Life, Context], Any]) -> None:
        self.life = life
        self.host = life.host
        self.port = port
        self.accept = accept
        self.context = copy_context()
        self.open = True

    def close(self) -> None:
        """Refuse from now on; connections go on."""
        if self.open:
            self.open = False
            self.host.listeners.pop(self.port, None)
            self.life.sockets.pop(self, None)

    def died(self) -> None:
        """The life ended."""
        self.close()

    def went_dark(self) -> None:
        """The machine lost power."""
        self.close()


class Network:
    """The network of one world.

    Args:
        loop: its time.
        dice: for latency and loss alone.
        latency_ns: (least, most) one way between two machines without faults.
        loss: share of segments lost on every link, faults or not.
    """

    def __init__(
        self, loop: SimLoop, dice: Random, *, latency_ns: tuple[int, int] = LATENCY_NS, loss: float = 0.0
    ) -> None:
        self.loop = loop
        self.random = dice.random
        self.hosts: dict[str, SimHost] = {}
        self.drops: dict[str, int] = {}
        """Segments lost so far, by reason: cut, loss, down."""
        self.on_drop: Callable[[str, str, str, int], None] | None = None
        """Called with (reason, source, target, segments)."""
        self.over = False
        self._by_address: dict[str, SimHost] = {}
        self._links: dict[tuple[str, str], Link] = {}
        self._routes: dict[tuple[str, str], Link] = {}
        self._latency_ns = latency_ns
        self._loss = loss

    # -- faults -------------------------------------------------------------------------------

    def link(self, source: str, target: str) -> Link:
        """Packets from `source` to `target`."""
        link = self._links.get((source, target))
        if link is None:
            least, most = LOOPBACK_NS if source == target else self._latency_ns
            loss = 0.0 if source == target else self._loss
            link = self._links[source, target] = Link(source, target, least, most - least, loss)
        return link

    def route(self, dialer: str, target: str) -> Link:
        """Connections that `dialer` makes to `target`; adds nothing without faults."""
        route = self._routes.get((dialer, target))
        if route is None:
            route = self._routes[dialer, target] = Link(dialer, target, 0, 0, 0.0)
        return route

    def impair(
        self, name: str, pairs: Iterable[tuple[str, str]], impairment: Impairment, *, routes: bool = False
    ) -> None:
        """Put a fault on links (or routes), all at the same moment, under a name that `heal` takes off."""
        find = self.route if routes else self.link
        for source, target in pairs:
            find(source, target).impair(name, impairment)

    def heal(self, name: str) -> None:
        """Take a fault off everywhere."""
        for link in (*self._links.values(), *self._routes.values()):
            link.heal(name)

    def heal_all(self) -> None:
        """Take every fault off."""
        for link in (*self._links.values(), *self._routes.values()):
            for name in tuple(link.impairments):
                link.heal(name)

    def reset(self, source: str, target: str) -> int:
        """Break every connection that `source` dialled to `target`: both ends get a reset; returns how many."""
        pipes = [pipe for pipe in self.route(source, target).pipes if pipe.near.host.name == source]
        for pipe in pipes:
            for end in (pipe.near, pipe.far):
                end.reset_by_network()
        return len(pipes)

    def dropped(self, why: str, link: Link, count: int) -> None:
        """Count lost segments."""
        self.drops[why] = self.drops.get(why, 0) + count
        if self.on_drop is not None:
            self.on_drop(why, link.source, link.target, count)

    def forget(self) -> None:
        """The world ends."""
        self.over = True
        for each in (self._links, self._routes, self.hosts, self._by_address):
            each.clear()

    # -- names --------------------------------------------------------------------------------

    def add_host(self, host: SimHost) -> str:
        """Give a host its address."""
        assert host.name not in self.hosts, f"there is a host {host.name} already"
        number = len(self.hosts) + 1
        address = f"10.0.{number >> 8}.{number & 255}"
        self.hosts[host.name] = self._by_address[address] = host
        return address

    def find(self, name: str) -> SimHost:
        """The host of a name or address; the asker's own for local names.

        Raises:
            OSError: nobody has that name.
        """
        if name in LOCAL_NAMES:
            mine: SimHost | None = LIFE.get().host
            assert mine is not None, "the harness has no machine; name one"
            return mine
        host = self.hosts.get(name) or self._by_address.get(name)
        if host is None:
            raise OSError(errno.EHOSTUNREACH, f"no machine is called {name}")
        return host

    # -- listening and dialling -----------------------------------------------------------------

    def listen(self, port: int, accept: Callable[[Network, Life, Context], Any]) -> Listener:
        """Listen on a port of the asking life's machine; 0 chooses one.

        Raises:
            OSError: EADDRINUSE.
        """
        life = LIFE.get()
        host = life.host
        assert host is not None, "the harness listens nowhere"
        if not port:
            port = host.free_port()
        if port in host.listeners:
            raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))
        listener = host.listeners[port] = Listener(life, port, accept)
        if not life.dead:
            life.sockets[listener] = None
        return listener

    async def dial(self, name: str, port: int, make: Callable[[Network, Life, Context], Any]) -> Any:
        """Make a connection; returns the dialling end that `make` made, with the accepting end at `peer`.

        Raises:
            OSError: refused, or no answer to any SYN.
        """
        life = LIFE.get()
        assert life.host is not None, "the harness dials nowhere; spawn a process on a machine"
        source, target = life.host, self.find(name)
        for attempt in range(SYN_RETRIES + 1):
            started_ns = self.loop.now
            listener = await self._handshake(source, target, port)
            if listener is not None:
                return self._connect(life, listener, source, target, make)
            await self.loop.sleep_until(started_ns + (NS_PER_S << attempt))
        raise TimeoutError(errno.ETIMEDOUT, os.strerror(errno.ETIMEDOUT))

    async def _handshake(self, source: SimHost, target: SimHost, port: int) -> Listener | None:
        """One SYN and its answer; None if either is lost."""
        there, back = self.link(source.name, target.name), self.link(target.name, source.name)
        route = self.route(source.name, target.name)
        if self._lost(there) or self._lost(route):
            return None
        await self.loop.sleep_until(self.loop.now + self._draw_ns(there) + self._draw_ns(route))
        if there.cut or route.cut or not target.powered:
            self.dropped("down" if not target.powered else "cut", there, 1)
            return None
        listener = None if there.refuse or route.refuse else target.listeners.get(port)
        if self._lost(back):
            return None
        await self.loop.sleep_until(self.loop.now + self._draw_ns(back))
        if back.cut or route.cut:
            self.dropped("cut", back, 1)
            return None
        if listener is None:
            raise ConnectionRefusedError(errno.ECONNREFUSED, os.strerror(errno.ECONNREFUSED))
        return listener

    def _lost(self, link: Link) -> bool:
        if link.cut:
            self.dropped("cut", link, 1)
            return True
        if link.loss and self.random() < link.loss:
            self.dropped("loss", link, 1)
            return True
        return False

    def _draw_ns(self, link: Link) -> int:
        return link.base_ns + int(self.random() * link.span_ns)

    def _connect(
        self,
        life: Life,
        listener: Listener,
        source: SimHost,
        target: SimHost,
        make: Callable[[Network, Life, Context], Any],
    ) -> Any:
        """Both ends exist; the accepting one hears of it with the first segment."""
        near = make(self, life, copy_context())
        far = listener.accept(self, listener.life, listener.context.copy())
        port = source.free_port()
        near.local, near.remote = (source.address, port), (target.address, listener.port)
        far.local, far.remote = near.remote, near.local
        near.peer, far.peer = far, near
        route = self.route(source.name, target.name)
        near.out = Pipe(self, near, far, self.link(source.name, target.name), route)
        far.out = Pipe(self, far, near, self.link(target.name, source.name), route)
        for end in (near, far):
            if end.life.dead:
                end.answer_reset()
            else:
                end.life.sockets[end] = None
        near.out.send(OPEN, None)
        return near

    def send_reset(self, end: Any) -> None:
        """A packet came for an end that is not there any more: its sender is told, if that gets through."""
        back: Pipe = end.out
        if not (back.cut or back.far.host is None):
            at = self.loop.now + self._draw_ns(back.link)
            self.loop.at_root(at, back.far.context, _deliver_reset, back)


def _deliver_reset(back: Pipe) -> None:
    far = back.far
    if back.cut:
        return
    if not far.life.halted:
        far.arrive(RESET, None)
    elif far.host.powered:
        far.arrive_halted(RESET, None)


__all__ = ["MS", "Impairment", "Listener", "Network"]
