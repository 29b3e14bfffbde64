"""The errors of the scheduler.

Owns: what can go wrong between a job file and a committed placement, with code and hint.
Must not know: HTTP statuses or exit codes; the API and the command line translate these.
"""

from __future__ import annotations

from raft.errors import SkerryError


class JobFileError(SkerryError):
    """A job file cannot be used.

    ``details["field"]`` is the path of the offending field, such as
    ``resources.limits.memory`` or ``ports[1].hostPort``; "" means the file as a whole.
    """

    code = "bad-job"


class CommandTooNew(SkerryError):
    """The log holds a command of a newer version: this replica must stop rather than guess."""

    code = "command-too-new"


class SnapshotTooNew(SkerryError):
    """A snapshot was written by a newer program: this replica must stop rather than lose a part of it."""

    code = "snapshot-too-new"


class NodeUnreachable(SkerryError):
    """No replica holds a session of this node, or its agent does not answer."""

    code = "node-unreachable"
    retryable = True


class NeverFits(SkerryError):
    """No registered node could hold one allocation of the job, even when empty.

    ``details["nearest"]`` is the node that comes closest and what would have to change.
    """

    code = "never-fits"


class JobNotFound(SkerryError):
    """No job has this name."""

    code = "no-such-job"


class NodeNotFound(SkerryError):
    """No node has this name."""

    code = "no-such-node"


class AllocationNotFound(SkerryError):
    """No allocation has this name, or it was never placed."""

    code = "no-such-allocation"


class NotReady(SkerryError):
    """This replica knows no leader, or has not applied what is committed."""

    code = "not-ready"
    retryable = True


class TraceNotFound(SkerryError):
    """No trace file has this name."""

    code = "no-such-trace"


class RefusedByState(SkerryError):
    """The command was committed, and applying it refused it: it had no effect.  Carries apply's own code."""

    def __init__(self, code: str, message: str, hint: str) -> None:
        super().__init__(message, hint=hint)
        self.code = code  # type: ignore[misc]  # per refusal, not per class
