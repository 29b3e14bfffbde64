"""Calls as their callers saw them.

Owns: the shape of a history.  Must not know: what a call means (`models`), or where histories come from (`jobs`).
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any, Final

from msgspec import Struct

NEVER: Final = float("inf")
"""When a call returned that nobody got an answer to."""


class Unknown:
    """The output of a call that nobody got an answer to: it took effect once, at any time since, or never."""

    def __repr__(self) -> str:
        return "unknown"


UNKNOWN: Final = Unknown()


class Operation(Struct, frozen=True):
    """One call on one key.

    `called` and `returned` are moments on one clock; calls that touch in time count as concurrent.  `ref` names where
    it is told.  A call that certainly was not done is no operation.
    """

    key: Hashable
    called: float
    returned: float
    input: Any
    output: Any
    ref: str = ""

    @property
    def definite(self) -> bool:
        """Whether it was answered, so that it certainly took effect."""
        return self.returned != NEVER
