"""What replicas ask of the leader on behalf of their callers, as data.

Owns: the bodies of the link calls ``propose`` and ``read-index``, and how an error crosses a
link without losing its code and outcome.  Must not know: sockets, or who leads.
"""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import Struct

from cluster.errors import PeerError
from raft.errors import SkerryError

PROPOSE = "propose"
READ_INDEX = "read-index"


class ProposeCall(Struct, frozen=True, array_like=True):
    """Commit and apply `data` within `timeout_ms`."""

    data: bytes
    timeout_ms: int


class ReadIndexCall(Struct, frozen=True, array_like=True):
    """Confirm leadership by a quorum round begun after this call, within `timeout_ms`."""

    timeout_ms: int


class Failure(Struct, frozen=True, array_like=True):
    """A `SkerryError` on the wire."""

    code: str
    message: str
    hint: str
    retryable: bool
    outcome: str
    details: dict[str, Any]


class Answer(Struct, frozen=True, array_like=True):
    """Answer to either call; `result` is the encoded result of apply, empty for a read."""

    index: int
    term: int
    result: bytes
    failure: Failure | None


class RemoteError(SkerryError):
    """An error as another replica told it; carries that replica's code and outcome."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.message, hint=failure.hint, **failure.details)
        self.code = failure.code  # type: ignore[misc]  # per answer, not per class
        self.retryable = failure.retryable  # type: ignore[misc]
        self.outcome = failure.outcome  # type: ignore[misc]


_encoder = msgspec.msgpack.Encoder(enc_hook=str)
_propose_decoder = msgspec.msgpack.Decoder(ProposeCall)
_read_decoder = msgspec.msgpack.Decoder(ReadIndexCall)
_answer_decoder = msgspec.msgpack.Decoder(Answer)


def encode_call(call: ProposeCall | ReadIndexCall) -> bytes:
    """Wire bytes of a call."""
    return _encoder.encode(call)


def decode_propose(body: bytes) -> ProposeCall:
    """Raises msgspec.DecodeError or ValidationError."""
    return _propose_decoder.decode(body)


def decode_read_index(body: bytes) -> ReadIndexCall:
    """Raises msgspec.DecodeError or ValidationError."""
    return _read_decoder.decode(body)


def encode_answer(answer: Answer) -> bytes:
    """Wire bytes of an answer."""
    return _encoder.encode(answer)


def refusal(error: SkerryError) -> Answer:
    """The answer that carries `error`."""
    failure = Failure(error.code, error.message, error.hint, error.retryable, error.outcome, error.details)
    return Answer(0, 0, b"", failure)


def told(error: PeerError) -> Failure:
    """What a peer's link said, with the peer's own code and outcome instead of the link's."""
    return Failure(error.peer_code, error.message, error.hint, error.peer_retryable, error.peer_outcome, error.details)


def decode_answer(body: bytes) -> Answer:
    """The answer, or its error raised.

    Raises:
        RemoteError: the other replica refused.
        msgspec.DecodeError, msgspec.ValidationError: not an answer.
    """
    answer = _answer_decoder.decode(body)
    if answer.failure is not None:
        raise RemoteError(answer.failure)
    return answer
