"""What a workload is started with, checked.

Owns: the checks of a start request's specification and its digest.
Must not know: processes, cgroups, sockets.

Units: CPU in millicores, memory in bytes, times in milliseconds; 0 = no limit asked for.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from typing import Any, Final

ALLOCATION_PATTERN: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9./-]{0,179}\Z")
"""No underscore, so that `protocol.directory_name` keeps names apart."""
EPOCH_MAX: Final = 1 << 62
ARGUMENTS_MAX: Final = 1024
ENVIRONMENT_MAX: Final = 1024
STRING_BYTES_MAX: Final = 128 << 10
"""The kernel's own bound on one argument (MAX_ARG_STRLEN, 32 pages)."""
GRACE_MS_MAX: Final = 24 * 3600 * 1000
AMOUNT_MAX: Final = 1 << 60
KEEP: Final = "keep"
STOP: Final = "stop"
NETWORKS: Final = ("", "host", "none", "bridge")
"""Empty: bridge where the node has one, else host."""
PORTS_MAX: Final = 64

Key = tuple[str, int]
"""(allocation, epoch)"""


class BadSpec(ValueError):
    """A specification no workload can be started with."""


@dataclass(frozen=True, slots=True)
class Card:
    """What must be known of an attempt to supervise it, also after its sandboxer died."""

    allocation: str
    epoch: int
    attempt: int
    job: str
    grace_ms: int
    on_disconnect: str
    digest: str
    """Of the whole specification."""

    @property
    def key(self) -> Key:
        """(allocation, epoch)"""
        return (self.allocation, self.epoch)


@dataclass(frozen=True, slots=True)
class Spec:
    """A whole specification."""

    card: Card
    command: tuple[str, ...]
    env: dict[str, str]
    cpu_millicores: int
    memory_bytes: int
    pids: int
    network: str = ""
    ports: tuple[tuple[int, int], ...] = ()
    """(port of the node, port of the workload)"""


def parse(fields: Any) -> Spec:
    """Check the ``spec`` of a start request.

    Raises:
        BadSpec: with the first field that is wrong.
    """
    if not isinstance(fields, dict):
        raise BadSpec("spec is not an object")
    allocation = _text(fields, "allocation")
    if not ALLOCATION_PATTERN.match(allocation):
        raise BadSpec(f"allocation {allocation!r} is not a name")
    on_disconnect = _text(fields, "on_disconnect")
    if on_disconnect not in (KEEP, STOP):
        raise BadSpec(f"on_disconnect is {on_disconnect!r}, neither keep nor stop")
    card = Card(
        allocation=allocation,
        epoch=_number(fields, "epoch", 1, EPOCH_MAX),
        attempt=_number(fields, "attempt", 0, EPOCH_MAX),
        job=_text(fields, "job"),
        grace_ms=_number(fields, "grace_ms", 0, GRACE_MS_MAX),
        on_disconnect=on_disconnect,
        digest=_digest(fields),
    )
    return Spec(
        card=card,
        command=_command(fields.get("command")),
        env=_environment(fields.get("env")),
        cpu_millicores=_number(fields, "cpu_millicores", 0, AMOUNT_MAX),
        memory_bytes=_number(fields, "memory_bytes", 0, AMOUNT_MAX),
        pids=_number(fields, "pids", 0, AMOUNT_MAX),
        network=_network(fields.get("network", "")),
        ports=_ports(fields.get("ports", [])),
    )


def _digest(fields: dict[str, Any]) -> str:
    try:
        canonical = json.dumps(fields, sort_keys=True, separators=(",", ":")).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise BadSpec(f"spec is not JSON: {error}") from error
    return hashlib.blake2b(canonical, digest_size=8).hexdigest()


def _text(fields: dict[str, Any], name: str) -> str:
    return _checked_string(fields.get(name), name)


def _checked_string(value: Any, name: str) -> str:
    if not isinstance(value, str):
        raise BadSpec(f"{name} is not a string")
    if "\0" in value:
        raise BadSpec(f"{name} contains a NUL")
    try:
        size = len(value.encode())
    except UnicodeEncodeError as error:
        raise BadSpec(f"{name} is not valid Unicode") from error
    if size >= STRING_BYTES_MAX:
        raise BadSpec(f"{name} takes {size} bytes; the kernel allows {STRING_BYTES_MAX - 1}")
    return value


def _number(fields: dict[str, Any], name: str, lowest: int, highest: int) -> int:
    value = fields.get(name)
    if not isinstance(value, int) or isinstance(value, bool) or not lowest <= value <= highest:
        raise BadSpec(f"{name} is {value!r}, not an integer from {lowest} to {highest}")
    return value


def _command(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list) or not 1 <= len(value) <= ARGUMENTS_MAX:
        raise BadSpec(f"command is not a list of 1 to {ARGUMENTS_MAX} strings")
    command = tuple(_checked_string(item, "command") for item in value)
    if not command[0]:
        raise BadSpec("command names no program")
    return command


def _environment(value: Any) -> dict[str, str]:
    if not isinstance(value, dict) or len(value) > ENVIRONMENT_MAX:
        raise BadSpec(f"env is not an object of at most {ENVIRONMENT_MAX} strings")
    for name, text in value.items():
        if not _checked_string(name, "env") or "=" in name:
            raise BadSpec(f"env has a variable named {name!r}")
        _checked_string(text, f"env {name}")
    return dict(value)


def _network(value: Any) -> str:
    if value not in NETWORKS:
        raise BadSpec(f"network is {value!r}, none of host, none and bridge")
    return str(value)


def _ports(value: Any) -> tuple[tuple[int, int], ...]:
    if not isinstance(value, list) or len(value) > PORTS_MAX:
        raise BadSpec(f"ports is not a list of at most {PORTS_MAX} pairs")
    ports = []
    for pair in value:
        numbers = pair if isinstance(pair, list) and len(pair) == 2 else [None]
        if not all(type(number) is int and 1 <= number <= 65535 for number in numbers):
            raise BadSpec(f"ports has {pair!r}, not a pair of numbers from 1 to 65535")
        ports.append((pair[0], pair[1]))
    return tuple(ports)
