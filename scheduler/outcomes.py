"""Results of apply as bytes, for callers at another replica.

Owns: their encoding.  Must not know: what a result means.  The changes are left out: every
replica has them from its own apply.
"""

from __future__ import annotations

from typing import Any

import msgspec

from raft.errors import OutcomeUnknown
from scheduler.state.results import (
    CollectResult,
    JobResult,
    LossResult,
    NodeResult,
    OwnersResult,
    PlanResult,
    Result,
    StatusResult,
    StopsResult,
)

_KINDS: tuple[type[Result], ...] = (
    Result,
    LossResult,
    NodeResult,
    JobResult,
    PlanResult,
    StatusResult,
    StopsResult,
    OwnersResult,
    CollectResult,
)
_decoders = {kind.__name__: msgspec.msgpack.Decoder(kind) for kind in _KINDS}
_tagged = msgspec.msgpack.Decoder(tuple[str, msgspec.Raw])


def encode_result(result: Any) -> bytes:
    """Bytes of a `Result` of any kind."""
    assert isinstance(result, Result), "only commands have results that are forwarded"
    return msgspec.msgpack.encode((type(result).__name__, result.for_caller()))


def decode_result(data: bytes) -> Result:
    """Inverse of `encode_result`.

    Raises:
        OutcomeUnknown: the other replica's version answers in a way this one cannot read.
    """
    try:
        kind, raw = _tagged.decode(data)
        return _decoders[kind].decode(raw)
    except (msgspec.DecodeError, msgspec.ValidationError, KeyError) as error:
        raise OutcomeUnknown(f"the leader's answer cannot be read: {error}", hint="is it another version?") from None
