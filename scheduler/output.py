"""Workload output, wherever the session of its node is held.

Owns: the link call ``session-logs`` and merging the output of a job's allocations.
Must not know: HTTP, or where an agent keeps output.

The replica that is asked need not hold the node's session: it then asks all others at once.
Cursors are the agents' own, opaque; a job's cursor maps allocations to them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Protocol

import msgspec
from msgspec import Struct

from raft.errors import Overloaded, SkerryError
from scheduler.errors import NodeUnreachable
from scheduler.forwarding import Failure, RemoteError
from scheduler.proposals import Peers
from scheduler.session import LogsReply

SESSION_LOGS = "session-logs"
ANSWER_S = 2.0
WAIT_MS_MAX = 30_000
LINES_MAX = 10_000
READERS_MAX = 256
"""Calls for output served at once."""
ALLOCATIONS_MAX = 64
"""Allocations of one job whose output is merged in one answer."""


class LogsCall(Struct, frozen=True, array_like=True):
    """Read output of `allocation` on `node` if you hold its session."""

    node: str
    allocation: str
    cursor: str
    lines_max: int
    wait_ms: int


class LogsAnswer(Struct, frozen=True, array_like=True):
    """`held` = the session is here; then either the reply or why not."""

    held: bool
    reply: LogsReply | None = None
    failure: Failure | None = None


class Line(Struct, frozen=True):
    """One line of output of a named allocation; `t` Unix seconds."""

    t: float
    allocation: str
    stream: str
    text: str


class Output(Struct, frozen=True):
    """Lines in time order, where to go on, and whether no more will come."""

    lines: list[Line]
    cursors: dict[str, str]
    ended: bool
    errors: dict[str, str]


class Session(Protocol):
    """What is needed of a held session."""

    async def logs(self, allocation: str, cursor: str, lines_max: int, wait_ms: int, *, timeout_s: float) -> LogsReply:
        """Ask the agent."""
        ...


class Held(Protocol):
    """What is needed of the sessions held here."""

    def get(self, node: str) -> Session | None:
        """The session of `node`."""
        ...


_call_decoder = msgspec.msgpack.Decoder(LogsCall)
_answer_decoder = msgspec.msgpack.Decoder(LogsAnswer)


class OutputReader:
    """Reads output through whichever replica holds the session.

    Args:
        node: this replica's id.
        others: ids of the other replicas.
        held: the sessions held here.
        peers: links to the others.
    """

    def __init__(self, *, others: Sequence[str], held: Held, peers: Peers) -> None:
        self._others = tuple(others)
        self._held = held
        self._peers = peers
        self._readers = 0

    async def serve(self, body: bytes) -> bytes:
        """Answer the call ``session-logs``; raises msgspec.DecodeError or ValidationError."""
        call = _call_decoder.decode(body)
        session = self._held.get(call.node)
        if session is None:
            return msgspec.msgpack.encode(LogsAnswer(False))
        try:
            reply = await session.logs(call.allocation, call.cursor, call.lines_max, call.wait_ms, timeout_s=ANSWER_S)
        except SkerryError as error:
            failure = Failure(error.code, error.message, error.hint, error.retryable, error.outcome, {})
            return msgspec.msgpack.encode(LogsAnswer(True, None, failure))
        return msgspec.msgpack.encode(LogsAnswer(True, reply))

    async def read(
        self, nodes: Mapping[str, str], cursors: Mapping[str, str], *, lines_max: int, wait_ms: int
    ) -> Output:
        """Output of the allocations of `nodes` (allocation to node), merged by time.

        With nothing new anywhere the answer is held up to `wait_ms`, then empty.

        Raises:
            NodeUnreachable: of a single allocation, the node does not answer.
            Overloaded: too many readers.
        """
        if self._readers >= READERS_MAX:
            raise Overloaded("too many readers of output at once", hint="ask again later")
        self._readers += 1
        try:
            output = await self._round(nodes, cursors, lines_max, 0)
            if not output.lines and not output.ended and wait_ms:
                output = await self._round(nodes, cursors, lines_max, min(wait_ms, WAIT_MS_MAX))
            return output
        finally:
            self._readers -= 1

    async def _round(
        self, nodes: Mapping[str, str], cursors: Mapping[str, str], lines_max: int, wait_ms: int
    ) -> Output:
        each = max(1, lines_max // max(1, len(nodes)))
        tasks = {
            allocation: asyncio.ensure_future(
                self._one(LogsCall(node, allocation, cursors.get(allocation, ""), each, wait_ms))
            )
            for allocation, node in nodes.items()
        }
        try:
            await _until_lines(list(tasks.values()))
        finally:
            for task in tasks.values():
                task.cancel()
        return _merged(tasks, cursors)

    async def _one(self, call: LogsCall) -> LogsReply:
        session = self._held.get(call.node)
        if session is not None:
            return await session.logs(call.allocation, call.cursor, call.lines_max, call.wait_ms, timeout_s=ANSWER_S)
        body = msgspec.msgpack.encode(call)
        timeout_s = ANSWER_S + call.wait_ms / 1000 + 0.5
        asking = [asyncio.ensure_future(self._ask(peer, body, timeout_s)) for peer in self._others]
        try:
            for answered in asyncio.as_completed(asking):
                answer = await answered
                if answer.failure is not None:
                    raise RemoteError(answer.failure)
                if answer.reply is not None:
                    return answer.reply
        finally:
            for task in asking:
                task.cancel()
        raise NodeUnreachable(
            f"no replica that answers holds a session of node {call.node}", hint="is its agent running?", node=call.node
        )

    async def _ask(self, peer: str, body: bytes, timeout_s: float) -> LogsAnswer:
        try:
            return _answer_decoder.decode(await self._peers.request(peer, SESSION_LOGS, body, timeout_s=timeout_s))
        except (SkerryError, msgspec.DecodeError, msgspec.ValidationError):
            return LogsAnswer(False)


async def _until_lines(tasks: Sequence[asyncio.Future[LogsReply]]) -> None:
    """Wait until all are done, or one of them has lines (a follower wants them now)."""
    pending = set(tasks)
    while pending:
        done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
        if any(task.exception() is None and task.result().lines for task in done):
            if pending:  # the others have this long to be in the same answer
                await asyncio.wait(pending, timeout=0.02)
            return


def _merged(tasks: Mapping[str, asyncio.Future[LogsReply]], cursors: Mapping[str, str]) -> Output:
    lines: list[Line] = []
    onward = dict(cursors)
    errors: dict[str, str] = {}
    ended = True
    for allocation, task in tasks.items():
        if not task.done() or task.cancelled():
            ended = False
            continue
        error = task.exception()
        if error is not None:
            if len(tasks) == 1 or not isinstance(error, SkerryError):
                raise error
            errors[allocation] = error.code
            ended = False
            continue
        reply = task.result()
        lines.extend(Line(line.t, allocation, line.stream, line.text) for line in reply.lines)
        onward[allocation] = reply.cursor
        ended = ended and reply.ended
        if reply.error:
            errors[allocation] = reply.error
    lines.sort(key=lambda line: line.t)
    return Output(lines, onward, ended, errors)
