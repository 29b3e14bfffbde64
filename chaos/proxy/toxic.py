"""Toxics as checked data: names, attributes and bounds of Toxiproxy's HTTP API.

Owns: what a proxy and a toxic may look like in JSON, and the words for what is wrong with it.
Must not know: sockets, HTTP, or how a toxic does its work (`chaos.proxy.stages`).

Unlike Toxiproxy, an unknown attribute is refused: a misspelt fault is no fault.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec
from msgspec import Struct

Stream = Literal["upstream", "downstream"]
"""`upstream`: bytes from the client to the server; `downstream`: the answers."""
STREAMS: tuple[Stream, ...] = ("upstream", "downstream")

#: Attributes of each type, with the default and the largest value allowed.
ATTRIBUTES: dict[str, dict[str, tuple[int, int]]] = {
    "latency": {"latency": (0, 3_600_000), "jitter": (0, 3_600_000)},  # ms
    "bandwidth": {"rate": (0, 1 << 30)},  # KB/s; 0 lets nothing through
    "slow_close": {"delay": (0, 3_600_000)},  # ms
    "timeout": {"timeout": (0, 86_400_000)},  # ms; 0 = silent until removed
    "reset_peer": {"timeout": (0, 3_600_000)},  # ms after the first byte
    "slicer": {"average_size": (1, 1 << 30), "size_variation": (0, 1 << 30), "delay": (0, 3_600_000_000)},  # bytes, µs
    "limit_data": {"bytes": (0, 1 << 50)},
    "hold": {},  # ours: keeps the bytes and delivers them, in order, when it is removed
}

NAME_LENGTH_MAX = 128


class BadRequest(ValueError):
    """The JSON does not describe a proxy or toxic; the text says why."""


class Toxic(Struct):
    """One fault in one stream of one proxy."""

    name: str
    type: str
    stream: Stream
    toxicity: float
    attributes: dict[str, int]

    def silences(self) -> bool:
        """Whether not one byte may pass (until it is removed, or closes the connection)."""
        return self.type == "timeout"

    def document(self) -> dict[str, Any]:
        """The JSON form of the API."""
        return msgspec.to_builtins(self)  # type: ignore[no-any-return]


def _whole(value: Any, name: str) -> int:
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int):
        raise BadRequest(f"attribute {name} must be a whole number")
    return value


def check_attributes(kind: str, given: Any, base: dict[str, int] | None = None) -> dict[str, int]:
    """All attributes of a toxic of type `kind`: defaults, then `base`, then what is `given`."""
    known = ATTRIBUTES[kind]
    if given is None:
        given = {}
    if not isinstance(given, dict):
        raise BadRequest("attributes must be an object")
    result = {name: default for name, (default, _) in known.items()} | (base or {})
    for name, value in given.items():
        if name not in known:
            raise BadRequest(f"unknown attribute {name!r} of {kind}; it has: {', '.join(known) or 'none'}")
        number, largest = _whole(value, name), known[name][1]
        if not 0 <= number <= largest:
            raise BadRequest(f"attribute {name} must lie in 0..{largest}")
        result[name] = number
    if kind == "slicer" and (result["average_size"] < 1 or result["size_variation"] >= result["average_size"]):
        raise BadRequest("slicer needs average_size of at least 1 and size_variation below it")
    return result


def check_toxicity(value: Any) -> float:
    """A probability."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        raise BadRequest("toxicity must be a number in 0..1")
    return float(value)


def check_name(value: Any, what: str) -> str:
    """A name that fits into a URL and a metric label."""
    if not isinstance(value, str) or not value:
        raise BadRequest(f"missing required field: {what}")
    if len(value) > NAME_LENGTH_MAX or not value.isprintable() or "/" in value:
        raise BadRequest(f"{what} must be at most {NAME_LENGTH_MAX} printable characters without '/'")
    return value


def parse_toxic(given: Any) -> Toxic:
    """A toxic from the body of its creation; raises BadRequest."""
    if not isinstance(given, dict):
        raise BadRequest("a toxic must be an object")
    kind = given.get("type")
    if kind not in ATTRIBUTES:
        raise BadRequest("invalid toxic type")
    stream = given.get("stream") or "downstream"
    if stream not in STREAMS:
        raise BadRequest("stream was invalid, can be either upstream or downstream")
    unknown = sorted(set(given) - {"type", "stream", "name", "toxicity", "attributes"})
    if unknown:
        raise BadRequest(f"unknown field {unknown[0]!r} of a toxic")
    return Toxic(
        name=check_name(given.get("name") or f"{kind}_{stream}", "name"),
        type=kind,
        stream=stream,
        toxicity=check_toxicity(given.get("toxicity", 1.0)),
        attributes=check_attributes(kind, given.get("attributes")),
    )


def parse_address(value: Any, what: str) -> tuple[str, int]:
    """``host:port`` as a pair; raises BadRequest."""
    if not isinstance(value, str) or not value:
        raise BadRequest(f"missing required field: {what}")
    host, colon, port = value.rpartition(":")
    if not colon or not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise BadRequest(f"{what} must be host:port, not {value[:80]!r}")
    return host.strip("[]") or "0.0.0.0", int(port)  # noqa: S104  (":8474" means every address, as in Toxiproxy)


class ProxySpec(Struct):
    """A proxy as asked for."""

    name: str
    listen: str
    upstream: str
    enabled: bool


def parse_proxy(given: Any) -> ProxySpec:
    """A proxy from the body of its creation; raises BadRequest."""
    if not isinstance(given, dict):
        raise BadRequest("a proxy must be an object")
    enabled = given.get("enabled")
    if enabled is None:
        enabled = True
    if not isinstance(enabled, bool):
        raise BadRequest("enabled must be true or false")
    unknown = sorted(set(given) - {"name", "listen", "upstream", "enabled", "toxics"})
    if unknown:
        raise BadRequest(f"unknown field {unknown[0]!r} of a proxy")
    name = check_name(given.get("name"), "name")
    upstream = given.get("upstream")
    parse_address(upstream, "upstream")
    listen = given.get("listen") or "127.0.0.1:0"
    parse_address(listen, "listen")
    return ProxySpec(name=name, listen=str(listen), upstream=str(upstream), enabled=enabled)
