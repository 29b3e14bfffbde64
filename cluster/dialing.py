"""Making one connection to a peer: the hello out, the welcome back.

Owns: the upgrade request.  Must not know: when to dial or what is sent afterwards.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from cluster.framing import (
    FRAME_BYTES_MAX,
    HELLO_HEADER,
    LINK_PATH,
    PROTOCOL_VERSION,
    Hello,
    Identity,
    Welcome,
    decode_welcome,
    encode_hello,
)
from cluster.network import Channel, ChannelClosed, Client
from cluster.trace import Tracer
from raft.errors import ProtocolViolation
from raft.protocols import Clock, Dice

CLOSE_S = 0.2


class LinkContext(msgspec.Struct):
    """What all links of a process share; `client` is there while the links run."""

    identity: Callable[[], Identity]
    token: str
    clock: Clock
    dice: Dice
    tracer: Tracer
    log: Any
    ping_ns: int
    client: Client | None = None


async def dial(context: LinkContext, peer: str, address: str) -> tuple[Channel, Welcome]:
    """Connect to `peer`; the caller sets the deadline.

    Raises:
        DialRefused: the code is in the header `REFUSED_HEADER`.
        ConnectionError: no connection.
        ProtocolViolation: somebody else answers there.
    """
    assert context.client is not None, "dialling while the links do not run"
    me = context.identity()
    hello = Hello(
        PROTOCOL_VERSION,
        me.cluster_name,
        me.cluster_id,
        me.generation,
        me.node,
        me.store_id,
        me.incarnation,
        peer,
    )
    channel = await context.client.dial(
        address,
        LINK_PATH,
        headers={HELLO_HEADER: encode_hello(hello), "Authorization": f"Bearer {context.token}"},
        frame_bytes_max=FRAME_BYTES_MAX,
        close_s=CLOSE_S,
    )
    try:
        return channel, await _welcome(channel, peer, address)
    except BaseException:
        channel.cut()
        await channel.hang_up()
        raise


async def _welcome(channel: Channel, peer: str, address: str) -> Welcome:
    try:
        first = await channel.receive()
    except ChannelClosed:
        raise ProtocolViolation(f"{address} closed the link before its welcome") from None
    welcome = decode_welcome(first)
    if welcome.node != peer:
        raise ProtocolViolation(f"{address} is {welcome.node}, not {peer}")
    return welcome
