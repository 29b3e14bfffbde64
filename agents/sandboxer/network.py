"""The networks of a node's workloads: the node's own, none, or a bridge.

Owns: the bridge, its subnet, who has which address, cleaning up.  Must not know: netlink's messages
(`network_link`), how bytes of published ports travel (`network_publish`), what runs.

A workload on the bridge has an address of the node's subnet.  It is reached from its own node, and from
everywhere through the ports it publishes.  Nothing is translated and no packet filter is touched; it has no route
beyond the subnet, so what would not be answered fails at once.

The kernel keeps the truth: a network goes with its last process, and takes both ends of its connection along.  The
bridge bears an alias that names its node; with another's alias it stays as it is.  (With none its maker died.)
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from typing import Any, Final

from agents.sandboxer import linux, network_link
from agents.sandboxer.network_link import Interface, Link, Wiring
from agents.sandboxer.network_publish import Publisher

HOST, NONE, BRIDGE = "host", "none", "bridge"
POOL: Final = IPv4Network("10.192.0.0/10")
SUBNET_PREFIX: Final = 22
"""About a thousand workloads a node, four thousand nodes on one machine."""
GATEWAY: Final = 1
FIRST: Final = 2


class NoNetwork(OSError):
    """A workload cannot have the network it asks for."""

    def __init__(self, why: str) -> None:
        super().__init__(errno.EADDRNOTAVAIL, why)


@dataclass(frozen=True, slots=True)
class Connection:
    """The network of one attempt."""

    own: bool
    wiring: Wiring | None = None
    ports: tuple[tuple[int, int], ...] = ()

    @property
    def address(self) -> str:
        """Its own address; empty unless it is on the bridge."""
        return "" if self.wiring is None else self.wiring.address

    @property
    def environment(self) -> dict[str, str]:
        """What the workload is told."""
        if self.wiring is None:
            return {}
        return {"SKERRY_ADDRESS": self.wiring.address, "SKERRY_GATEWAY": self.wiring.gateway}

    def record(self) -> dict[str, Any]:
        """What the next sandboxer must know of it."""
        return {"ip": self.address, "ports": [list(pair) for pair in self.ports]}


class Network:
    """All of one node's.  `lacking`: why there can be no bridge here; `namespaces`: whether `none` can be had."""

    def __init__(
        self, cluster: str, node: str, subnet: str, publisher: Publisher, *, namespaces: bool, lacking: str
    ) -> None:
        self._name = bridge_name(cluster, node)
        self._owner = f"skerry {cluster}/{node} "
        try:
            self._asked = IPv4Network(subnet, strict=False) if subnet else None
        except ValueError as error:
            raise NoNetwork(f"{subnet} is no subnet for a bridge") from error
        self._publisher = publisher
        self._namespaces = namespaces
        self._lacking = lacking
        self._bridge = 0
        self._subnet: IPv4Network | None = None
        self._places: dict[str, int] = {}
        self._next = FIRST

    @property
    def helper_pid(self) -> int:
        """Process that serves published ports; 0 = there is none."""
        return self._publisher.pid

    def connect(self, name: str, asked: str, ports: tuple[tuple[int, int], ...]) -> Connection:
        """A network for attempt `name`, its ports taken; NoNetwork or another OSError if it cannot be had."""
        kind = asked or (HOST if self._lacking else BRIDGE)
        if kind == HOST:
            return Connection(own=False)
        if not self._namespaces:
            raise NoNetwork("this node has no network namespaces")
        if kind == NONE:
            return Connection(own=True)
        if self._lacking:
            raise NoNetwork(f"this node has no bridge network: {self._lacking}")
        subnet = self._ready()
        place = self._free(subnet)
        address = str(subnet[place])
        self._places[name] = place
        self._publisher.publish(name, address, ports)
        interface = f"{self._name}-{place:x}"
        return Connection(True, Wiring(self._bridge, interface, address, subnet.prefixlen, str(subnet[GATEWAY])), ports)

    def disconnect(self, name: str) -> None:
        """Its ports and its address are free again; unknown is fine."""
        if self._places.pop(name, None) is not None:
            self._publisher.withdraw(name)

    def adopt(self, name: str, record: dict[str, Any]) -> None:
        """Attempt `name` still runs with this record of an earlier sandboxer; publish its ports again."""
        address = IPv4Address(record["ip"])
        bridge = self._find()
        if bridge is None:
            return
        self._bridge, self._subnet = bridge.index, self._subnet_of(bridge)
        if self._subnet is None or address not in self._subnet:
            return
        self._places[name] = int(address) - int(self._subnet.network_address)
        self._next = max(self._next, self._places[name] + 1)
        with contextlib.suppress(OSError):
            self._publisher.publish(name, str(address), tuple((pair[0], pair[1]) for pair in record["ports"]))

    def clean(self) -> None:
        """Remove what a killed sandboxer left and nobody uses."""
        if not self._lacking:
            with contextlib.suppress(OSError):
                self._remove({f"{self._name}-{place:x}" for place in self._places.values()})

    def close(self) -> None:
        """Remove bridge, interfaces and helper.  Raises OSError."""
        self._publisher.close()
        if not self._lacking:
            self._remove(set())

    def _remove(self, used: set[str]) -> None:
        """Our interfaces but the used ones, and the bridge if none is used."""
        bridge = self._find()
        if bridge is None:
            return
        link = Link()
        try:
            for item in link.interfaces():
                ours = item.master == bridge.index and item.name.startswith(f"{self._name}-")
                if (ours and item.name not in used) or (item.index == bridge.index and not used):
                    with contextlib.suppress(OSError):  # its network was ending by itself
                        link.remove(item.index)
        finally:
            link.close()
        if not used:
            self._bridge, self._subnet = 0, None

    def _ready(self) -> IPv4Network:
        """The bridge's subnet; made if it is not there."""
        with contextlib.suppress(OSError):
            if self._subnet is not None and socket.if_nametoindex(self._name) == self._bridge:
                return self._subnet
        found = self._find()
        subnet = None if found is None else self._subnet_of(found)
        if found is None or subnet is None:
            link = Link()
            try:
                subnet = self._choose(link)
                link.add_bridge(self._name, f"{self._owner}{subnet}")
                index = socket.if_nametoindex(self._name)
                link.add_address(index, str(subnet[GATEWAY]), subnet.prefixlen)
            finally:
                link.close()
        else:
            index = found.index
        self._bridge, self._subnet = index, subnet
        return subnet

    def _choose(self, link: Link) -> IPv4Network:
        """The subnet that was asked for, or the first free one from a place that depends on the node's name."""
        if self._asked:
            return self._asked
        taken = [network for network, _ in link.routes()]
        for subnet in _candidates(self._name):
            if not any(subnet.overlaps(other) for other in taken):
                return subnet
        raise NoNetwork(f"no subnet of {POOL} is free")

    def _free(self, subnet: IPv4Network) -> int:
        """The next free address, round and round, so that one is not used again at once."""
        used = set(self._places.values())
        last = subnet.num_addresses - 2
        for step in range(last):
            place = FIRST + (self._next - FIRST + step) % (last - FIRST + 1)
            if place not in used:
                self._next = place + 1
                return place
        raise NoNetwork(f"all addresses of {subnet} are in use")

    def _find(self) -> Interface | None:
        """Our bridge; NoNetwork if somebody else has its name."""
        try:
            socket.if_nametoindex(self._name)
        except OSError:
            return None
        link = Link()
        try:
            found = next(item for item in link.interfaces() if item.name == self._name)
        finally:
            link.close()
        if found.alias and not found.alias.startswith(self._owner):
            raise NoNetwork(f"the interface {self._name} is not this node's")
        return found

    def _subnet_of(self, bridge: Interface) -> IPv4Network | None:
        try:
            return IPv4Network(bridge.alias.removeprefix(self._owner))
        except ValueError:
            return None


def bridge_name(cluster: str, node: str) -> str:
    """Name of a node's bridge: ten characters, so that five are left for its ports."""
    return "sk" + hashlib.blake2b(f"{cluster}/{node}".encode(), digest_size=4).hexdigest()


def bridge_works() -> str:
    """Try a bridge with a connection in a network of its own, which ends with the trial; "" or why not."""
    return linux.tried(_try)


def _try() -> None:
    linux.unshare(linux.CLONE_NEWNET)
    link = Link()
    link.add_bridge("sk", "trial")
    link.add_pair("sk-1", socket.if_nametoindex("sk"), network_link.INSIDE, None)
    link.add_address(socket.if_nametoindex(network_link.INSIDE), "10.192.0.2", SUBNET_PREFIX)


def _candidates(name: str) -> Iterator[IPv4Network]:
    count = 1 << (SUBNET_PREFIX - POOL.prefixlen)
    size = 1 << (32 - SUBNET_PREFIX)
    first = int.from_bytes(hashlib.blake2b(name.encode(), digest_size=4).digest()) % count
    for step in range(count):
        yield IPv4Network((int(POOL.network_address) + (first + step) % count * size, SUBNET_PREFIX))
