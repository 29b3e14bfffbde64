"""Making one connection to a peer: the hello out, the welcome back.

Owns: the upgrade request, and failures in words.  Must not know: when to dial or what is sent afterwards.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import aiohttp
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
from cluster.sockets import cut, hang_up
from cluster.trace import Tracer
from raft.errors import ProtocolViolation
from raft.protocols import Clock, Dice


class LinkContext(msgspec.Struct):
    """What all links of a process share; `http` is there while the links run."""

    identity: Callable[[], Identity]
    token: str
    clock: Clock
    dice: Dice
    tracer: Tracer
    log: Any
    http: aiohttp.ClientSession | None = None


async def dial(context: LinkContext, peer: str, address: str) -> tuple[aiohttp.ClientWebSocketResponse, Welcome]:
    """Connect to `peer`; the caller sets the deadline.

    Raises:
        aiohttp.WSServerHandshakeError: refused; the code is in the header `REFUSED_HEADER`.
        aiohttp.ClientError, OSError: no connection.
        ProtocolViolation: somebody else answers there.
    """
    assert context.http is not None, "dialling while the links do not run"
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
    ws = await context.http.ws_connect(
        f"http://{address}{LINK_PATH}",
        headers={HELLO_HEADER: encode_hello(hello), "Authorization": f"Bearer {context.token}"},
        max_msg_size=FRAME_BYTES_MAX,
        compress=0,
        timeout=aiohttp.ClientWSTimeout(ws_close=0.2),
    )
    try:
        return ws, _welcome(await ws.receive(), peer, address)
    except BaseException:
        cut(ws)
        await hang_up(ws)
        raise


def _welcome(first: aiohttp.WSMessage, peer: str, address: str) -> Welcome:
    if first.type is not aiohttp.WSMsgType.BINARY:
        raise ProtocolViolation(f"{address} closed the link before its welcome")
    welcome = decode_welcome(first.data)
    if welcome.node != peer:
        raise ProtocolViolation(f"{address} is {welcome.node}, not {peer}")
    return welcome


def words(error: BaseException) -> str:
    """A short reason for logs and trace; never contains headers."""
    if isinstance(error, TimeoutError):
        return "timeout"
    if isinstance(error, aiohttp.ClientConnectorError | ConnectionRefusedError):
        cause = error.os_error if isinstance(error, aiohttp.ClientConnectorError) else error
        return cause.strerror.lower() if cause.strerror and "[" not in cause.strerror else "connect failed"
    return type(error).__name__
