"""The error base of Skerry and the errors of consensus.

Owns: what every Skerry error carries.  Must not know: HTTP, the command line, or any
other package; they translate these fields into problem documents and exit codes.
"""

from __future__ import annotations

from typing import Any, ClassVar


class SkerryError(Exception):
    """Something failed in a way a person or program can act upon.

    Attributes:
        code: stable kebab-case name of the failure; part of the public contract.
        message: what happened, one sentence.
        hint: what to do now; may be empty only where nothing can be done.
        retryable: whether the same call may succeed later without a change.
        outcome: ``"not-done"`` when the call certainly had no effect, ``"unknown"`` when
            it may still take effect (ask again with the same request id).
        details: typed extras, such as ``leader`` (replica id or None).
    """

    code: ClassVar[str] = "internal"
    retryable: ClassVar[bool] = False
    outcome: ClassVar[str] = "not-done"

    def __init__(self, message: str, *, hint: str = "", **details: Any) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.details: dict[str, Any] = details

    def __str__(self) -> str:
        return f"{self.message} ({self.hint})" if self.hint else self.message


class NotLeader(SkerryError):
    """This replica does not lead; ``details["leader"]`` names the leader if it is known."""

    code = "not-leader"
    retryable = True


class NoQuorum(SkerryError):
    """The leader could not confirm within the deadline that a majority still follows it."""

    code = "no-quorum"
    retryable = True


class NoSuccessor(SkerryError):
    """Nobody could take the leadership over; this replica goes on leading if it still can."""

    code = "no-successor"
    retryable = True


class ProposalDropped(SkerryError):
    """The proposal's entry was overwritten by another leader: it certainly did not happen."""

    code = "proposal-dropped"
    retryable = True


class OutcomeUnknown(SkerryError):
    """The deadline passed before the proposal's fate was known."""

    code = "outcome-unknown"
    retryable = True
    outcome = "unknown"


class StateDiverged(SkerryError):
    """The replicated state is not the same everywhere: here it is wrong, or nobody knows where it is right."""

    code = "state-diverged"
    retryable = True


class Overloaded(SkerryError):
    """Too many bytes are waiting to be committed; slow down."""

    code = "overloaded"
    retryable = True


class LogFull(SkerryError):
    """The log has reached its bound: no snapshot could be written in time to shorten it."""

    code = "log-full"
    retryable = True


class DiskFull(SkerryError):
    """The disk has no room for another log segment."""

    code = "disk-full"
    retryable = True


class StoreError(SkerryError):
    """The data directory cannot be used; the message says why and what to do."""

    code = "store-error"


class StoreLocked(StoreError):
    """Another process holds the data directory."""

    code = "store-locked"


class StoreTooNew(StoreError):
    """The data directory was written by a newer version."""

    code = "store-too-new"


class StoreForeign(StoreError):
    """The data directory belongs to another node or another cluster."""

    code = "store-foreign"


class StoreCloned(StoreError):
    """The data directory was copied: its recorded inode is not its own."""

    code = "cloned-store"


class StoreCorrupt(StoreError):
    """The log is damaged beyond a torn tail; this store must not vote again."""

    code = "store-corrupt"


class ProtocolViolation(SkerryError):
    """The peer sent something no correct peer sends; its link is closed."""

    code = "protocol-violation"
