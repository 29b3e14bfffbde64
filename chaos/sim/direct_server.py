"""Serving a port over the direct transport.

Owns: taking requests and knocks, and handing them to who answers them.
Must not know: what the answers mean; links, faults and lives (`net`, `pipes`, `lives`).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Final
from urllib.parse import parse_qsl

from chaos.sim.channels import HEAD_BYTES, OPENED, Asked, Begun, DirectChannel
from chaos.sim.messages import MessageEnd, listen
from chaos.sim.net import Listener
from chaos.sim.net import Network as Wires
from cluster.network import NORMAL, Answer, Application, ListenLimits, OnKnock
from cluster.sockets import join_address

SHUTDOWN_S: Final = 1.0
NOT_FOUND: Final = Answer(404)
FAILED: Final = Answer(500)


class DirectKnock:
    """An upgrade request; satisfies `cluster.network.Knock`."""

    def __init__(self, end: MessageEnd, asked: Asked) -> None:
        self.accepted = False
        self._end = end
        self._asked = asked

    @property
    def remote(self) -> str | None:
        """The dialer's address."""
        return self._end.remote[0]

    def header(self, name: str) -> str:
        """A header of the request; "" if it is not there."""
        return self._asked.headers.get(name.lower(), "")

    async def accept(self, *, frame_bytes_max: int, close_s: float) -> DirectChannel:
        """Open it; raises ConnectionError when the dialer has given up."""
        self._end.send(OPENED, HEAD_BYTES)
        self.accepted = True
        return DirectChannel(self._end, frame_bytes_max, close_s)


class DirectOutflow:
    """The body of an answer in pieces; satisfies `cluster.network.Outflow`."""

    def __init__(self, end: MessageEnd) -> None:
        self._end = end

    async def write(self, data: bytes) -> None:
        """Send a piece; raises ConnectionError."""
        if data:
            self._end.send(bytes(data), len(data))
            if self._end.congested:
                await self._end.drain()

    async def end(self) -> None:
        """It is complete; raises ConnectionError."""
        self._end.send(b"", 0)


class DirectRequest:
    """One request; satisfies `cluster.network.Request`."""

    def __init__(self, end: MessageEnd, asked: Asked) -> None:
        self.begun = False
        self.method = asked.method
        self.path, _, self._query = asked.target.partition("?")
        self._end = end
        self._asked = asked

    @property
    def query(self) -> Sequence[tuple[str, str]]:
        """Names and values, decoded."""
        return parse_qsl(self._query, keep_blank_values=True)

    @property
    def length(self) -> int | None:
        """Bytes of the body."""
        return len(self._asked.body)

    def header(self, name: str) -> str:
        """A header; "" if it is not there."""
        return self._asked.headers.get(name.lower(), "")

    async def body(self) -> AsyncIterator[bytes]:
        """The body, which came with the request."""
        if self._asked.body:
            yield self._asked.body

    async def begin(self, *, media: str, headers: Mapping[str, str], length: int | None = None) -> DirectOutflow:
        """Answer 200, the body follows."""
        self._end.send(Begun(media, headers), HEAD_BYTES)
        self.begun = True
        return DirectOutflow(self._end)

    def abort(self) -> None:
        """End the connection."""
        self._end.abort()


class DirectListening:
    """A port that is served; satisfies `cluster.network.Listening`."""

    def __init__(
        self,
        wires: Wires,
        host: str,
        sockets: Mapping[str, OnKnock],
        api: Application | None,
        limits: ListenLimits,
    ) -> None:
        self.address = ""
        self._wires = wires
        self._host = host
        self._sockets = sockets
        self._api = api
        self._limits = limits
        self._listener: Listener | None = None
        self._serving: dict[asyncio.Task[None], MessageEnd] = {}

    def open(self, port: int) -> None:
        """Bind; raises OSError."""
        self._listener = listen(self._wires, port, self._take)
        self.address = join_address(self._host, self._listener.port)

    async def close(self) -> None:
        """Stop listening, end every connection."""
        if self._listener is not None:
            self._listener.close()
        for end in self._serving.values():
            end.abort()
        tasks = list(self._serving)
        if tasks:
            await asyncio.wait(tasks, timeout=SHUTDOWN_S)
        for task in tasks:
            task.cancel()

    def _take(self, end: MessageEnd) -> None:
        """A connection stands."""
        if len(self._serving) >= self._limits.connections_max:
            end.abort()
            return
        task = asyncio.get_running_loop().create_task(self._serve(end))
        self._serving[task] = end
        task.add_done_callback(self._serving.pop)

    async def _serve(self, end: MessageEnd) -> None:
        try:
            async with asyncio.timeout(self._limits.header_timeout_s):
                asked: Asked = await end.receive()
        except (TimeoutError, EOFError, ConnectionError):
            end.abort()
            return
        try:
            answer = await (self._knocked(end, asked) if asked.upgrade else self._asked(end, asked))
        except ConnectionError:
            end.abort()
            return
        except Exception as error:
            message = f"a handler of {asked.target} failed"
            asyncio.get_running_loop().call_exception_handler({"message": message, "exception": error})
            answer = FAILED
        if answer is None:
            end.close((NORMAL, ""))
        elif not end.closed:
            end.send(answer, HEAD_BYTES + len(answer.body))
            end.close()

    async def _knocked(self, end: MessageEnd, asked: Asked) -> Answer | None:
        """Let who is behind the door answer; None when the channel was opened and has ended."""
        on_knock = self._sockets.get(asked.target)
        if on_knock is None:
            return NOT_FOUND
        knock = DirectKnock(end, asked)
        answer = await on_knock(knock)
        return None if knock.accepted else answer or FAILED

    async def _asked(self, end: MessageEnd, asked: Asked) -> Answer | None:
        """The answer; None when it went out in pieces."""
        if self._api is None:
            return NOT_FOUND
        request = DirectRequest(end, asked)
        answer = await self._api.answer(request)
        return None if request.begun else answer or FAILED
