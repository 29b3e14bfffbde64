"""The directed link matrix, and its backend of proxies.

Owns: what "cut a→b" means, and which proxies and toxics make it.  Must not know: scenarios,
roles, time.

Every directed pair (a, b) has its own WebSocket that a dials and on which only a sends; b's
answers travel on the pair (b, a).  So the link a→b is wholly the proxy ``a~b``: its upstream
stream carries a's messages, its downstream stream only handshakes and pongs.  Cutting a→b
silences both streams of ``a~b``.  Agents dial replicas and nobody dials agents: the one link
of ``a1`` and ``n1`` is ``a1~n1``, and cutting either direction cuts it whole.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from chaos.errors import ProxyRefused, SelectorUnresolved
from chaos.proxy.toxic import STREAMS
from chaos.toxiproxy_client import ToxicCall, ToxiproxyClient

Pair = tuple[str, str]


def proxy_name(pair: Pair) -> str:
    """``source~target``."""
    return f"{pair[0]}~{pair[1]}"


def parse_pair(name: str) -> Pair | None:
    """Inverse of `proxy_name`; None for a proxy that is no link."""
    source, tilde, target = name.partition("~")
    return (source, target) if tilde and source and target else None


class Matrix:
    """Which links exist."""

    def __init__(self, pairs: Iterable[Pair]) -> None:
        self.pairs = tuple(sorted(pairs))

    def directed(self, sources: Sequence[str], targets: Sequence[str]) -> list[Pair]:
        """The links that carry anything from `sources` to `targets`."""
        return [
            (source, target)
            for source, target in self.pairs
            if (source in sources and target in targets)
            # a link that only one side dials carries both directions
            or (source in targets and target in sources and (target, source) not in self.pairs)
        ]

    def between(self, groups: Sequence[Sequence[str]]) -> list[Pair]:
        """All links between different groups, in both directions."""
        home = {node: number for number, group in enumerate(groups) for node in group}
        return [(a, b) for a, b in self.pairs if a in home and b in home and home[a] != home[b]]


class ProxyLinks:
    """Cuts, delays and heals links by toxics, through toxiproxy-python."""

    def __init__(self, client: ToxiproxyClient) -> None:
        self._client = client
        self._in_force: dict[str, list[tuple[str, str]]] = {}

    async def matrix(self) -> Matrix:
        """The links that have a proxy."""
        found = [parse_pair(name) for name in await self._client.proxies()]
        return Matrix(pair for pair in found if pair is not None)

    async def cut(self, fault: str, pairs: Sequence[Pair]) -> None:
        """Not a byte passes on these links until `heal`."""
        await self._inject(fault, pairs, "timeout", {"timeout": 0})

    async def delay(self, fault: str, pairs: Sequence[Pair], *, latency_ms: int, jitter_ms: int) -> None:
        """Messages on these links arrive late until `heal`."""
        attributes = {"latency": latency_ms, "jitter": jitter_ms}
        await self._inject(fault, pairs, "latency", attributes, streams=("upstream",))

    async def _inject(
        self,
        fault: str,
        pairs: Sequence[Pair],
        kind: str,
        attributes: dict[str, int],
        *,
        streams: Sequence[str] = STREAMS,
    ) -> None:
        if not pairs:
            raise SelectorUnresolved(f"fault {fault} touches no link", hint="name two different groups of nodes")
        if fault in self._in_force:
            raise ProxyRefused(f"fault {fault} is in force already")
        calls = [
            ToxicCall(proxy_name(pair), f"{fault}_{stream}", kind, stream, attributes)
            for pair in pairs
            for stream in streams
        ]
        self._in_force[fault] = [(call.proxy, call.name) for call in calls]
        try:
            await self._client.add_toxics(calls)
        except BaseException:
            await self.heal(fault)
            raise

    async def heal(self, fault: str) -> None:
        """Remove what `fault` put into force; connections close and peers dial again."""
        await self._client.remove_toxics(self._in_force.get(fault, []))
        self._in_force.pop(fault, None)

    async def heal_all(self) -> list[str]:
        """Remove every toxic of anybody and enable every proxy; returns what was in force."""
        in_force = [f"{proxy}:{toxic}" for proxy, toxic in await self._client.toxics()]
        disabled = [name for name, enabled in (await self._client.proxies()).items() if not enabled]
        await self._client.reset()
        self._in_force.clear()
        return in_force + disabled
