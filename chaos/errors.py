"""The errors of chaos: bad scenarios, unreadable traces, refused faults.

Owns: their codes.  Must not know: the command line, which prints them.
"""

from __future__ import annotations

from raft.errors import SkerryError


class ChaosError(SkerryError):
    """Something about breaking the cluster on purpose failed."""

    code = "chaos-error"


class ScenarioInvalid(ChaosError):
    """The scenario file does not describe a scenario; the message says where and why."""

    code = "scenario-invalid"


class BreakUnknown(ChaosError):
    """There is no deliberate bug of that name, or none of that kind of process."""

    code = "break-unknown"


class TraceUnreadable(ChaosError):
    """A trace file is damaged before its last line; the message names file and line."""

    code = "trace-unreadable"


class ProxyUnreachable(ChaosError):
    """The proxy's API does not answer, or not as it should."""

    code = "proxy-unreachable"
    retryable = True
    outcome = "unknown"


class ProxyRefused(ChaosError):
    """The proxy's API refused a call."""

    code = "proxy-refused"


class SelectorUnresolved(ChaosError):
    """A scenario names a role that nobody holds now."""

    code = "selector-unresolved"
    retryable = True


class ProxyConfigInvalid(ChaosError):
    """The proxy's file of links cannot be used."""

    code = "proxy-config-invalid"
