"""Interfaces, addresses and routes, by netlink.

Owns: the messages, and the two ends of a workload's connection.
Must not know: which addresses are free, ports, attempts.

A `Link` stays in the network in which it was made.  So a workload's process opens one, leaves for its own network,
and then makes the pair of interfaces from both sides without anybody else having to do anything.
Source of the formats: rtnetlink(7), ``linux/rtnetlink.h``, ``linux/if_link.h``.
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from typing import Final

_NEW_LINK, _DEL_LINK, _GET_LINK, _NEW_ADDRESS, _GET_ROUTE = 16, 17, 18, 20, 26
_ERROR, _DONE = 2, 3
_REQUEST, _ACK, _DUMP, _CREATE, _EXCLUSIVE = 0x1, 0x4, 0x300, 0x400, 0x200
_NAME, _MASTER, _LINK_INFO, _NETNS_FD, _ALIAS = 3, 10, 18, 28, 20
_INFO_KIND, _INFO_DATA, _VETH_PEER = 1, 2, 1
_ADDRESS, _LOCAL = 1, 2
_DESTINATION, _OUTPUT = 1, 4
_UP: Final = 1
_UNIVERSE: Final = 0
_HEADER: Final = struct.Struct("=IHHII")
_INTERFACE: Final = struct.Struct("=BxHiII")
_ROUTE: Final = struct.Struct("=BBBBBBBBI")
_ATTRIBUTE: Final = struct.Struct("=HH")
_BUFFER_BYTES: Final = 1 << 17
_TIMEOUT_S: Final = 5.0
INSIDE: Final = "eth0"
NAME_BYTES_MAX: Final = 15


@dataclass(frozen=True, slots=True)
class Wiring:
    """How a workload's network is connected to its node's bridge."""

    bridge: int
    """Index of the bridge."""
    interface: str
    """The node's end."""
    address: str
    prefix: int
    gateway: str
    """The node's own address on the bridge; nothing is routed beyond it."""


@dataclass(frozen=True, slots=True)
class Interface:
    """One interface as the kernel lists it."""

    index: int
    name: str
    alias: str
    master: int


class Link:
    """A netlink socket in the network of whoever makes it."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, 0)
        self._socket.settimeout(_TIMEOUT_S)
        self._socket.bind((0, 0))
        self._number = 0

    def close(self) -> None:
        """Leave."""
        self._socket.close()

    def add_bridge(self, name: str, alias: str) -> None:
        """Make a bridge, set it up and write a remark on it; OSError EEXIST if the name is taken."""
        body = _interface(0, _UP) + _text(_NAME, name) + _nested(_LINK_INFO, _text(_INFO_KIND, "bridge"))
        self._ask(_NEW_LINK, _CREATE | _EXCLUSIVE, body)
        remark = _INTERFACE.pack(socket.AF_UNSPEC, 0, socket.if_nametoindex(name), 0, 0) + _text(_ALIAS, alias)
        self._ask(_NEW_LINK, 0, remark)

    def add_pair(self, name: str, master: int, peer: str, peer_network: int | None) -> None:
        """Make a pair of interfaces: `name`, up, a port of `master` here, and `peer`, to be set up, in that network."""
        there = _interface(0, 0) + _text(_NAME, peer)
        if peer_network is not None:
            there += _number(_NETNS_FD, peer_network)
        pair = _text(_INFO_KIND, "veth") + _nested(_INFO_DATA, _nested(_VETH_PEER, there))
        body = _interface(0, _UP) + _text(_NAME, name) + _number(_MASTER, master) + _nested(_LINK_INFO, pair)
        self._ask(_NEW_LINK, _CREATE | _EXCLUSIVE, body)

    def set_up(self, index: int) -> None:
        """Set an interface up."""
        self._ask(_NEW_LINK, 0, _interface(index, _UP))

    def remove(self, index: int) -> None:
        """Remove an interface, and its other end; OSError ENODEV if it is gone."""
        self._ask(_DEL_LINK, 0, _interface(index, 0))

    def add_address(self, index: int, address: str, prefix: int) -> None:
        """Give an interface an IPv4 address; one it has already is fine."""
        packed = IPv4Address(address).packed
        body = struct.pack("=BBBBi", socket.AF_INET, prefix, 0, _UNIVERSE, index)
        body += _attribute(_LOCAL, packed) + _attribute(_ADDRESS, packed)
        try:
            self._ask(_NEW_ADDRESS, _CREATE | _EXCLUSIVE, body)
        except FileExistsError:
            return

    def interfaces(self) -> list[Interface]:
        """All interfaces here."""
        found = []
        for body in self._dump(_GET_LINK, _interface(0, 0)):
            index = _INTERFACE.unpack_from(body)[2]
            fields = dict(_attributes(body[_INTERFACE.size :]))
            (master,) = struct.unpack("=I", fields[_MASTER]) if _MASTER in fields else (0,)
            name, alias = (fields.get(kind, b"").rstrip(b"\0").decode(errors="replace") for kind in (_NAME, _ALIAS))
            found.append(Interface(index, name, alias, master))
        return found

    def routes(self) -> list[tuple[IPv4Network, int]]:
        """(destination, index of the interface) of all IPv4 routes but the default ones."""
        found = []
        ask = _ROUTE.pack(socket.AF_INET, 0, 0, 0, 0, 0, 0, 0, 0)
        for body in self._dump(_GET_ROUTE, ask):
            fields = dict(_attributes(body[_ROUTE.size :]))
            if _DESTINATION in fields and body[1]:
                network = IPv4Network((fields[_DESTINATION], body[1]), strict=False)
                found.append((network, int.from_bytes(fields.get(_OUTPUT, b""), "little")))
        return found

    def _ask(self, kind: int, flags: int, body: bytes) -> None:
        self._send(kind, _REQUEST | _ACK | flags, body)
        list(self._answers())

    def _dump(self, kind: int, body: bytes) -> list[bytes]:
        self._send(kind, _REQUEST | _DUMP, body)
        return [data for _, data in self._answers()]

    def _send(self, kind: int, flags: int, body: bytes) -> None:
        self._number += 1
        self._socket.send(_HEADER.pack(_HEADER.size + len(body), kind, flags, self._number, 0) + body)

    def _answers(self) -> Iterator[tuple[int, bytes]]:
        """(type, body) of the answers to the last request, until it is done; raises OSError for a refusal."""
        while True:
            data = self._socket.recv(_BUFFER_BYTES)
            while data:
                size, kind, _, number, _ = _HEADER.unpack_from(data)
                body, data = data[_HEADER.size : size], data[-(-size // 4) * 4 :]
                if number != self._number:
                    continue
                if kind == _DONE:
                    return
                if kind == _ERROR:
                    refusal = -struct.unpack_from("=i", body)[0]
                    if refusal:
                        raise OSError(refusal, os.strerror(refusal))
                    return
                yield kind, body


def furnish(wiring: Wiring | None, outside: Link | None) -> None:
    """Set up the network that this process has just got: loopback, and the connection to the bridge."""
    inside = Link()
    inside.set_up(socket.if_nametoindex("lo"))
    if wiring is not None:
        assert outside is not None, "a link to the node's network was opened before it was left"
        own = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        outside.add_pair(wiring.interface, wiring.bridge, INSIDE, own)
        os.close(own)
        index = socket.if_nametoindex(INSIDE)
        inside.set_up(index)
        inside.add_address(index, wiring.address, wiring.prefix)
        outside.close()
    inside.close()


def _interface(index: int, flags: int) -> bytes:
    return _INTERFACE.pack(socket.AF_UNSPEC, 0, index, flags, flags)


def _attribute(kind: int, data: bytes) -> bytes:
    size = _ATTRIBUTE.size + len(data)
    return _ATTRIBUTE.pack(size, kind) + data + bytes(-size % 4)


def _text(kind: int, text: str) -> bytes:
    return _attribute(kind, text.encode() + b"\0")


def _number(kind: int, value: int) -> bytes:
    return _attribute(kind, struct.pack("=I", value))


def _nested(kind: int, data: bytes) -> bytes:
    return _attribute(kind, data)


def _attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    while len(data) >= _ATTRIBUTE.size:
        size, kind = _ATTRIBUTE.unpack_from(data)
        if size < _ATTRIBUTE.size:
            return
        yield kind & 0x3FFF, data[_ATTRIBUTE.size : size]
        data = data[-(-size // 4) * 4 :]
