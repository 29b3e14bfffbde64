"""How traffic with one peer appears in the trace: send, recv, drop and conn events.

Owns: the names of message types, what is sampled, and the fields of these events.
Must not know: sockets or queues.

Heartbeats (an empty Append, and its reply) and routine calls are sampled: one in `Tracer.heartbeat_sample`, the first
included.  The sender decides; a message that it did not number is not recorded by the receiver either, so a
send without its recv always means a loss.  Dropped messages are always recorded.
"""

from __future__ import annotations

from typing import Any

from cluster.framing import Answer, Failure, Request
from cluster.outbox import Call
from cluster.trace import Tracer
from raft.messages import (
    Admission,
    Append,
    AppendReply,
    DigestReport,
    Founding,
    FoundingAnswer,
    FoundingQuestion,
    JoinRequest,
    Message,
    RefetchRequest,
    SnapshotChunk,
    SnapshotReply,
    TimeoutNow,
    VoteReply,
    VoteRequest,
)

REFUSED_REPEAT_NS = 5_000_000_000
"""The same reason of a failing dial is recorded again only after this long."""

TYPE_NAMES: dict[type, str] = {
    Append: "append",
    AppendReply: "append-reply",
    VoteRequest: "vote-request",
    VoteReply: "vote-reply",
    FoundingQuestion: "founding-question",
    FoundingAnswer: "founding-answer",
    Founding: "founding",
    JoinRequest: "join-request",
    Admission: "admission",
    SnapshotChunk: "snapshot-chunk",
    SnapshotReply: "snapshot-reply",
    TimeoutNow: "timeout-now",
    DigestReport: "digest-report",
    RefetchRequest: "refetch-request",
}


def describe(message: Message) -> dict[str, Any]:
    """Type, and term and index where the message has them."""
    name = TYPE_NAMES[type(message)]
    if isinstance(message, Append):
        return {"type": name, "term": message.term, "index": message.prev_index + len(message.entries)}
    if isinstance(message, AppendReply):
        return {"type": name, "term": message.term, "index": message.match_index, "accepted": message.accepted}
    if isinstance(message, VoteRequest):
        return {"type": name, "term": message.term, "index": message.last_index, "pre": message.pre}
    if isinstance(message, VoteReply):
        return {"type": name, "term": message.term, "pre": message.pre, "granted": message.granted}
    if isinstance(message, TimeoutNow):
        return {"type": name, "term": message.term}
    if isinstance(message, DigestReport):
        return {"type": name, "index": message.index}
    if isinstance(message, RefetchRequest):
        return {"type": name, "term": message.term, "index": message.after}
    if isinstance(message, Founding):
        return {"type": name, "term": message.entry.term, "index": message.entry.index}
    if isinstance(message, SnapshotChunk | SnapshotReply):
        return {"type": name, "term": message.term, "index": message.snapshot.index, "offset": message.offset}
    return {"type": name}


class WireTrace:
    """The events of one peer."""

    __slots__ = ("_beats", "_match", "_peer", "_refused_ns", "_refused_why", "_tracer", "dropped")

    def __init__(self, tracer: Tracer, peer: str) -> None:
        self.dropped = 0
        self._tracer = tracer
        self._peer = peer
        self._beats = 0
        self._match = -1
        self._refused_why = ""
        self._refused_ns = 0

    def number(self, message: Message) -> int:
        """The counter of this message, or 0 when it is not to be recorded."""
        tracer = self._tracer
        if not tracer.enabled or (self._is_heartbeat(message) and not self.sampled()):
            return 0
        return tracer.stamp_number()

    def sent(self, message: Message, counter: int, size_bytes: int) -> None:
        """A numbered message goes out."""
        self._tracer.emit(
            "send", m=self._tracer.message_id(counter), to=self._peer, bytes=size_bytes, **describe(message)
        )

    def received(self, message: Message, message_id: str, size_bytes: int) -> None:
        """A numbered message came in."""
        self._tracer.emit("recv", m=message_id, fr=self._peer, bytes=size_bytes, **describe(message))

    def drop(self, message: Message, why: str) -> None:
        """A message was thrown away here, unsent: ``down``, ``full`` or ``reset``."""
        self.dropped += 1
        if self._tracer.enabled:
            self._tracer.emit("drop", to=self._peer, why=why, **describe(message))

    def sent_call(self, call: Call, size_bytes: int) -> None:
        """A request or answer goes out.  Answers are numbered by the side that made them."""
        tracer = self._tracer
        counter = counter_of(call)
        if not tracer.enabled or not counter:
            return
        tracer.emit("send", m=tracer.message_id(counter), to=self._peer, bytes=size_bytes, **_describe_call(call))

    def received_call(self, call: Call, message_id: str, size_bytes: int) -> None:
        """A request or answer came in."""
        if self._tracer.enabled and counter_of(call):
            self._tracer.emit("recv", m=message_id, fr=self._peer, bytes=size_bytes, **_describe_call(call))

    def connection(self, what: str, why: str) -> None:
        """The link was opened, reset or closed."""
        self._refused_why = ""
        self._tracer.emit("conn", peer=self._peer, what=what, why=why)

    def connection_refused(self, why: str, now_ns: int) -> None:
        """A dial failed; repeats of the same reason are thinned out."""
        if why == self._refused_why and now_ns - self._refused_ns < REFUSED_REPEAT_NS:
            return
        self._refused_why, self._refused_ns = why, now_ns
        self._tracer.emit("conn", peer=self._peer, what="refused", why=why)

    def _is_heartbeat(self, message: Message) -> bool:
        """An empty Append, or an acceptance that reports nothing new."""
        if isinstance(message, Append):
            return not message.entries
        if isinstance(message, AppendReply) and message.accepted:
            news = message.match_index != self._match
            self._match = message.match_index
            return not news
        return False

    def sampled(self) -> bool:
        """Whether this one of many alike is recorded: one in `Tracer.heartbeat_sample`, the first included."""
        every = self._tracer.heartbeat_sample
        self._beats += 1
        return every > 0 and self._beats % every == 1 % every


def counter_of(call: Call) -> int:
    """The message counter of a request or answer; 0 = it is outside the sample."""
    if isinstance(call, Request):
        return 0 if call.quiet else call.id
    return call.counter


def _describe_call(call: Call) -> dict[str, Any]:
    if isinstance(call, Request):
        return {"type": "request", "method": call.method}
    if isinstance(call, Answer):
        return {"type": "answer", "request": call.id}
    assert isinstance(call, Failure), "a call is a request, an answer or a failure"
    return {"type": "failure", "request": call.id, "code": call.code}
