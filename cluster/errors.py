"""What can go wrong between a process and its surroundings.

Owns: the errors of `cluster`.  Must not know: HTTP status numbers (`cluster.problems`) or exit codes.
"""

from __future__ import annotations

from typing import Any

from raft.errors import SkerryError


class ConfigError(SkerryError):
    """A setting is unknown, malformed, out of range or missing; ``details["origin"]`` says where it stands."""

    code = "bad-config"


class PortInUse(SkerryError):
    """Another process listens on the address that this one is configured to use."""

    code = "port-in-use"


class ListenFailed(SkerryError):
    """The configured address cannot be listened on (not an address of this machine, no permission)."""

    code = "listen-failed"


class PeerUnreachable(SkerryError):
    """A request went out and no answer came back in time: it may have been carried out."""

    code = "peer-unreachable"
    retryable = True
    outcome = "unknown"


class PeerNotReached(PeerUnreachable):
    """A request never left this process: it was certainly not carried out."""

    outcome = "not-done"


class PeerError(SkerryError):
    """The peer answered a request with an error; its own code and fields are in the details.

    Attributes:
        peer_code: the code the peer gave, such as ``not-leader``.
        peer_retryable: whether the peer called it retryable.
        peer_outcome: ``not-done`` or ``unknown``, as the peer said.
    """

    code = "peer-error"

    def __init__(
        self, message: str, *, hint: str = "", code: str, retryable: bool, outcome: str, details: dict[str, Any]
    ) -> None:
        super().__init__(message, hint=hint, **details)
        self.peer_code = code
        self.peer_retryable = retryable
        self.peer_outcome = outcome


class Unauthorized(SkerryError):
    """No token, or not one that this cluster knows."""

    code = "unauthorized"


class Forbidden(SkerryError):
    """The token is known but its scopes do not cover this call."""

    code = "forbidden"


class BadRequest(SkerryError):
    """The call is malformed: broken JSON, an unknown field, a wrong type or unit."""

    code = "bad-request"


class NotFound(SkerryError):
    """Nothing has this name."""

    code = "not-found"


class MethodNotAllowed(SkerryError):
    """The path exists, the method does not."""

    code = "method-not-allowed"


class BodyTooLarge(SkerryError):
    """The body is larger than this call accepts."""

    code = "body-too-large"


class UnsupportedMediaType(SkerryError):
    """The body is not sent as application/json."""

    code = "unsupported-media-type"


class RequestTimeout(SkerryError):
    """The body did not arrive in time."""

    code = "request-timeout"
    retryable = True


class TooManyRequests(SkerryError):
    """This process already handles as many calls as it accepts at once."""

    code = "too-many-requests"
    retryable = True


class LinkRefused(SkerryError):
    """A hello was refused; `details["refusal"]` is one of the codes of `cluster.framing`."""

    code = "link-refused"
