"""Workload networks: addresses, published ports, and that all of it goes away while nothing of others changes."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from agents.sandbox_client import WorkloadRecord
from agents.sandboxer.network import bridge_name
from agents.sandboxer.network_link import Link
from tests.integration.sandbox_rig import CLUSTER, Rig, assignment, children, command_name, until

pytestmark = pytest.mark.root

SYSTEM_PYTHON = "/usr/bin/python3"
ECHO = """
import socket, sys, threading
def serve(c):
    while data := c.recv(65536): c.sendall(data)
    c.close()
s = socket.create_server(("0.0.0.0", int(sys.argv[1])))
while True: threading.Thread(target=serve, args=(s.accept()[0],), daemon=True).start()
"""


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("0.0.0.0", 0))
        return int(sock.getsockname()[1])


def ask(port: int, data: bytes = b"ping") -> bytes:
    """What the echo server behind a published port answers to all of `data`, ended by us; empty if nobody does."""
    answer = bytearray()
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=5) as sock:
            sock.settimeout(10)
            sock.sendall(data)
            sock.shutdown(socket.SHUT_WR)
            while part := sock.recv(65536):
                answer += part
    except OSError:
        return b""
    return bytes(answer)


def taken(port: int) -> bool:
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            sock.bind(("0.0.0.0", port))
            sock.listen()
        except OSError:
            return True
    return False


def interfaces(node: str) -> list[str]:
    link = Link()
    try:
        return sorted(item.name for item in link.interfaces() if item.name.startswith(bridge_name(CLUSTER, node)))
    finally:
        link.close()


def output(record: WorkloadRecord) -> str:
    return Path(record.output, "stdout").read_text()


def ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True)


def helpers(rig: Rig) -> list[int]:
    return [pid for pid in children(rig.client.hello.pid) if command_name(pid) == "skerry-forward"]


async def echo(rig: Rig, allocation: str, port: int, **more: str) -> None:
    command = (SYSTEM_PYTHON, "-S", "-c", ECHO, "80")
    await rig.client.start(assignment(allocation, *command, network="bridge", ports={port: 80}, **more))  # type: ignore[arg-type]
    await answering(port)


async def answering(port: int) -> None:
    for _ in range(400):
        if await asyncio.to_thread(ask, port) == b"ping":
            return
        await asyncio.sleep(0.02)
    raise AssertionError(f"nothing answers at {port}")


@pytest.fixture
def bystanders() -> Iterator[None]:
    """Somebody else's interfaces, one with a name like ours, and packet filter: all the same afterwards."""
    names = [f"guard{os.getpid() % 10_000}", f"skguard{os.getpid() % 10_000}"]

    def state() -> list[str]:
        shown = [subprocess.run(["ip", "-d", "addr", "show", name], capture_output=True, text=True) for name in names]
        link = Link()
        found = [item.name for item in link.interfaces() if item.name.startswith(("lo", "eth", "en", "docker0"))]
        link.close()
        forwarding = Path("/proc/sys/net/ipv4/ip_forward").read_text()
        return [*(each.stdout for each in shown), *found, forwarding]

    for number, name in enumerate(names):
        subprocess.run(["ip", "link", "add", name, "type", "bridge"], check=True)
        subprocess.run(["ip", "addr", "add", f"10.19{number}.255.1/24", "dev", name], check=True)
    before = state()
    try:
        yield
        assert state() == before
    finally:
        for name in names:
            subprocess.run(["ip", "link", "del", name], check=False)


async def test_a_published_port_leads_to_the_workloads_own_port(rig: Rig, bystanders: None) -> None:
    port = free_port()
    await echo(rig, "n/echo.0", port)
    bulk = os.urandom(3 << 20)
    assert await asyncio.to_thread(ask, port, bulk) == bulk
    answers = await asyncio.gather(*(asyncio.to_thread(ask, port, bytes([n]) * 70_000) for n in range(12)))
    assert [len(answer) for answer in answers] == [70_000] * 12
    assert len(interfaces(rig.node)) == 2, "the bridge and one port"
    await rig.client.stop("n/echo.0", 1, 0)
    await rig.exited("n/echo.0")
    assert not taken(port)
    await echo(rig, "n/echo.1", port)
    await rig.client.shutdown(stop_workloads=True)
    assert interfaces(rig.node) == []
    assert not taken(port)


async def test_a_job_that_names_no_network_gets_an_address_of_its_own_and_can_reach_its_node(rig: Rig) -> None:
    with socket.create_server(("0.0.0.0", 0)) as server:
        port = server.getsockname()[1]
        program = (
            "import errno, os, socket; own = os.environ['SKERRY_ADDRESS'];"
            f"s = socket.create_connection((os.environ['SKERRY_GATEWAY'], {port}), 5);"
            "print('own address', s.getsockname()[0] == own);"
            "print('beyond', socket.socket().connect_ex(('192.0.2.99', 9)) == errno.ENETUNREACH)"
        )
        record = await rig.client.start(assignment("n/out.0", SYSTEM_PYTHON, "-c", program))
        server.settimeout(10)
        connection, (peer, _) = await asyncio.to_thread(server.accept)
        connection.close()
        await rig.exited("n/out.0")
    assert output(record) == "own address True\nbeyond True\n"
    assert peer.startswith("10.")


def routes_of(node: str) -> list:  # type: ignore[type-arg]
    index = socket.if_nametoindex(bridge_name(CLUSTER, node))
    link = Link()
    try:
        return [(network, device) for network, device in link.routes() if device == index and network.prefixlen == 22]
    finally:
        link.close()


async def test_a_port_that_is_taken_fails_the_start_and_says_so(rig: Rig) -> None:
    with socket.create_server(("0.0.0.0", 0)) as server:
        port = server.getsockname()[1]
        record = await rig.client.start(assignment("n/late.0", "sleep", "9", network="bridge", ports={port: 80}))
    assert record.exit is not None
    assert (record.exit.reason, f"port {port} of this node" in record.exit.detail) == ("start-failed", True)


async def test_a_keep_workload_is_served_again_after_its_sandboxer_was_killed(rig: Rig, bystanders: None) -> None:
    port = free_port()
    await echo(rig, "n/keep.0", port)
    await rig.kill_sandboxer()
    assert len(interfaces(rig.node)) == 2
    await rig.connect()
    await answering(port)
    await rig.client.start(assignment("n/more.0", "sleep", "100", network="bridge"))
    assert len(interfaces(rig.node)) == 3, "another address than the adopted one's"
    await rig.client.stop("n/keep.0", 1, 0)
    await rig.exited("n/keep.0")
    assert not taken(port)


async def test_what_a_killed_sandboxer_left_is_removed_by_the_next(rig: Rig) -> None:
    port = free_port()
    await echo(rig, "n/gone.0", port)
    record = await rig.record("n/gone.0")
    assert record is not None
    await rig.kill_sandboxer()
    os.kill(record.pid, signal.SIGKILL)
    await until(lambda: not taken(port) and not Path(f"/proc/{record.pid}").exists(), "helper and workload are gone")
    assert interfaces(rig.node) != []
    await rig.connect()
    await until(lambda: interfaces(rig.node) == [], "the bridge is removed")


async def test_a_helper_that_dies_is_replaced(rig: Rig) -> None:
    port = free_port()
    await echo(rig, "n/echo.0", port)
    (old,) = helpers(rig)
    os.kill(old, signal.SIGKILL)
    await until(lambda: helpers(rig) not in ([], [old]), "there is another helper")
    await answering(port)


async def test_an_interface_of_somebody_else_with_our_name_is_left_alone(rig: Rig) -> None:
    name = bridge_name(CLUSTER, rig.node)
    ip("link", "add", name, "type", "bridge")
    ip("link", "set", name, "alias", "mine, hands off")
    try:
        record = await rig.client.start(assignment("n/w.0", "sleep", "9", network="bridge"))
        assert record.exit is not None
        assert "is not this node's" in record.exit.detail
        assert socket.if_nametoindex(name)
    finally:
        ip("link", "del", name)


async def test_two_nodes_on_one_machine_have_subnets_of_their_own(make_rig: Callable[..., Rig]) -> None:
    rigs = [make_rig(), make_rig()]
    subnets = []
    for rig in rigs:
        await rig.connect()
        await rig.client.start(assignment("n/w.0", "sleep", "100", network="bridge"))
        subnets += [network for network, _ in routes_of(rig.node)]
    assert len(subnets) == 2
    assert not subnets[0].overlaps(subnets[1])


async def test_a_service_may_be_asked_for_many_times_without_leaving_connections(rig: Rig) -> None:
    port = free_port()
    await echo(rig, "n/echo.0", port)
    (helper,) = helpers(rig)
    before = len(os.listdir(f"/proc/{helper}/fd"))
    for _ in range(60):
        await asyncio.to_thread(ask, port)
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)) as rude:
        rude.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        rude.sendall(b"x")
    await until(lambda: len(os.listdir(f"/proc/{helper}/fd")) <= before, "all connections are gone")
