"""What can go wrong on a node, in words a person can act upon.

Owns: the errors of the agent.  Must not know: how they are shown or retried.
"""

from __future__ import annotations

from typing import TypeVar

from raft.errors import SkerryError

_E = TypeVar("_E", bound=BaseException)


class AgentError(SkerryError):
    """The agent cannot go on."""

    code = "agent-error"


class DirectoryInUse(AgentError):
    """Another live agent holds the data directory."""

    code = "agent-dir-in-use"
    retryable = True


class ForeignDirectory(AgentError):
    """The data directory belongs to another node, another cluster or a newer version."""

    code = "agent-dir-foreign"


class BadAgentConfig(AgentError):
    """The configuration cannot work, whatever the cluster says."""

    code = "agent-config"


class SessionLost(AgentError):
    """The session with a replica ended; the agent dials again."""

    code = "session-lost"
    retryable = True


class BadFrame(SessionLost):
    """A replica sent what no correct replica sends; its link is closed."""

    code = "protocol-violation"


class SessionRejected(AgentError):
    """A replica refused the session; ``details["refusal"]`` is its code."""

    code = "session-refused"
    retryable = True


class NotAdmitted(AgentError):
    """Every replica that answers refuses this agent for a reason that waiting does not cure."""

    code = "not-admitted"


def sole(group: BaseExceptionGroup[BaseException], *kinds: type[_E]) -> _E:
    """The error of a group whose errors are all of `kinds`, of the kind named first; else raises the group."""
    leaves: list[BaseException] = []
    waiting: list[BaseException] = [group]
    while waiting:
        error = waiting.pop(0)
        if isinstance(error, BaseExceptionGroup):
            waiting.extend(error.exceptions)
        else:
            leaves.append(error)
    if not all(isinstance(leaf, kinds) for leaf in leaves):
        raise group
    for kind in kinds:
        for leaf in leaves:
            if isinstance(leaf, kind):
                return leaf
    raise AssertionError("a group has at least one error")
