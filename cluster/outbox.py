"""What waits to be sent to one peer, by class, within bounds.

Owns: the order in which classes go out and what is refused when a class is full.
Must not know: sockets, encodings, or why something is sent.

Control goes first (tiny, and it proves the link), then consensus, then requests and answers; each
frame carries some of every class, so neither starves the other.
"""

from __future__ import annotations

from collections import deque

from cluster.framing import Answer, Failure, Ping, Pong, Request
from raft.messages import Append, Message, SnapshotChunk

CONSENSUS_MESSAGES_MAX = 1024
CONSENSUS_BYTES_MAX = 32 << 20
CALLS_MAX = 2048
CALLS_BYTES_MAX = 32 << 20
CONTROL_MAX = 64

Call = Request | Answer | Failure


def message_bytes(message: Message) -> int:
    """Payload of a message, near enough for a bound: the entries' data, or a snapshot's."""
    if isinstance(message, Append) and message.entries:
        return sum([len(entry.data) for entry in message.entries])
    return len(message.data) if isinstance(message, SnapshotChunk) else 0


def call_bytes(call: Call) -> int:
    """Payload of a request or answer, near enough for a bound."""
    return len(call.details) if isinstance(call, Failure) else len(call.body)


class Outbox:
    """Bounded queues of one peer; every `put_*` answers whether there was room."""

    __slots__ = ("_calls", "_calls_bytes", "_consensus", "_consensus_bytes", "_control")

    def __init__(self) -> None:
        self._control: deque[Ping | Pong] = deque()
        self._consensus: deque[tuple[Message, int]] = deque()
        self._consensus_bytes = 0
        self._calls: deque[Call] = deque()
        self._calls_bytes = 0

    def __bool__(self) -> bool:
        return bool(self._consensus or self._control or self._calls)

    def put_control(self, item: Ping | Pong) -> bool:
        """Queue a ping or pong; the oldest gives way when there are too many."""
        if len(self._control) >= CONTROL_MAX:
            self._control.popleft()
        self._control.append(item)
        return True

    def put_consensus(self, message: Message) -> bool:
        """Queue a consensus message; False = full, drop it."""
        size = message_bytes(message)
        if len(self._consensus) >= CONSENSUS_MESSAGES_MAX or self._consensus_bytes + size > CONSENSUS_BYTES_MAX:
            return False
        self._consensus.append((message, size))
        self._consensus_bytes += size
        return True

    def put_call(self, call: Call) -> bool:
        """Queue a request or answer; False = full."""
        size = call_bytes(call)
        if len(self._calls) >= CALLS_MAX or self._calls_bytes + size > CALLS_BYTES_MAX:
            return False
        self._calls.append(call)
        self._calls_bytes += size
        return True

    def next_control(self) -> Ping | Pong | None:
        """The next ping or pong, if any."""
        return self._control.popleft() if self._control else None

    def next_consensus(self) -> Message | None:
        """The next consensus message, if any."""
        if not self._consensus:
            return None
        message, size = self._consensus.popleft()
        self._consensus_bytes -= size
        return message

    def next_call(self) -> Call | None:
        """The next request or answer, if any."""
        if not self._calls:
            return None
        call = self._calls.popleft()
        self._calls_bytes -= call_bytes(call)
        return call

    def cancel_request(self, request_id: int) -> bool:
        """Take a request back before it goes out; False = it is gone already."""
        for call in self._calls:
            if isinstance(call, Request) and call.id == request_id:
                self._calls.remove(call)
                self._calls_bytes -= call_bytes(call)
                return True
        return False

    def clear_link_bound(self) -> list[Message]:
        """The link is lost: forget control and consensus, which are about that link; returns the dropped messages."""
        dropped = [message for message, _ in self._consensus]
        self._control.clear()
        self._consensus.clear()
        self._consensus_bytes = 0
        return dropped
