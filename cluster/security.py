"""Tokens: reading, comparing, making them, and what they allow.

Owns: constant-time comparison and the scopes.  Must not know: routes or link frames.
"""

from __future__ import annotations

import hmac
from enum import StrEnum
from typing import Protocol

from cluster.errors import Forbidden, Unauthorized

TOKEN_CHARACTERS_MAX = 512
_TOKEN_BYTES = 24
_SCHEME = "bearer "


class Scope(StrEnum):
    """What a call needs; each includes the ones before it."""

    PUBLIC = "public"
    READ = "read"
    SUBMIT = "submit"
    OPERATE = "operate"


_RANK = {Scope.PUBLIC: 0, Scope.READ: 1, Scope.SUBMIT: 2, Scope.OPERATE: 3}


class TokenSource(Protocol):
    """The part of `raft.protocols.Dice` that tokens are made of."""

    def token(self, size_bytes: int) -> bytes:
        """Unguessable bytes."""
        ...


def new_token(dice: TokenSource) -> str:
    """A fresh token of 48 hex digits."""
    return dice.token(_TOKEN_BYTES).hex()


def tokens_equal(given: str, expected: str) -> bool:
    """Whether two tokens are the same, in time that tells nothing; an empty expected token equals none."""
    same = hmac.compare_digest(given.encode(errors="replace"), expected.encode(errors="replace"))
    return same and bool(expected)


def bearer(authorization: str) -> str | None:
    """The token of an ``Authorization`` header; None when absent, of another scheme or absurdly long."""
    scheme, token = authorization[: len(_SCHEME)], authorization[len(_SCHEME) :].strip()
    if scheme.lower() != _SCHEME or not token or len(token) > TOKEN_CHARACTERS_MAX:
        return None
    return token


class Authority:
    """Knows the tokens of the API and the scope of each.

    One token with scope OPERATE is what a cluster has now; `tokens` takes several so that
    scoped ones need no other code.
    """

    def __init__(self, tokens: dict[str, Scope]) -> None:
        assert all(tokens), "an empty token would let everybody in"
        self._tokens = tuple(tokens.items())

    def check(self, authorization: str, needed: Scope) -> Scope:
        """The scope of the caller; raises Unauthorized or Forbidden.

        Every known token is compared, whichever matches, so that time tells nothing.
        """
        if needed is Scope.PUBLIC:
            return Scope.PUBLIC
        given = bearer(authorization)
        found: Scope | None = None
        for token, scope in self._tokens:
            if tokens_equal(given or "", token):
                found = scope
        if found is None:
            raise Unauthorized(
                "this call needs a token" if given is None else "the token is not known here",
                hint="send Authorization: Bearer TOKEN (SKERRY_TOKEN or --token on the command line)",
            )
        if _RANK[found] < _RANK[needed]:
            raise Forbidden(f"this call needs scope {needed}, the token has {found}", hint="use another token")
        return found
