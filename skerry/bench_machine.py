"""The machine under measurement: what it is, what its disk and loopback alone cost, who else uses it.

Owns: the environment record and the floors that results are compared with.  Must not know: consensus.
"""

from __future__ import annotations

import asyncio
import importlib.metadata
import os
import platform
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from time import perf_counter
from typing import Any

from raft.disk import RealDisk

FRAME_BYTES = 200
_FILE_BYTES = 4 << 20
_ROUND_TRIPS = 2000
_SAMPLE_S = 0.5
_ECHO = """
import socket, sys
with socket.create_server(("127.0.0.1", 0)) as server:
    print(server.getsockname()[1], flush=True)
    peer = server.accept()[0]
    peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    while data := peer.recv(65536):
        peer.sendall(data)
"""
PACKAGES = ("aiohttp", "uvloop", "msgspec", "google-crc32c")


def environment() -> dict[str, Any]:
    """What was measured on."""
    return {
        "cpus": os.cpu_count(),
        "cpu": _cpu_model(),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "packages": {name: importlib.metadata.version(name) for name in PACKAGES},
        "value_bytes": 100,
        "replicas": 3,
    }


def disk_floor(directory: Path, seconds: float) -> dict[str, float]:
    """What one small synced write costs here, without us: milliseconds, into a zero-filled file."""
    disk = RealDisk(directory)
    file = disk.open("floor", create=True)
    try:
        file.write_at(0, bytes(_FILE_BYTES))
        file.sync()
        taken: list[float] = []
        end, offset, data = perf_counter() + seconds, 0, b"x" * FRAME_BYTES
        while (begun := perf_counter()) < end:
            file.write_at(offset, data)
            file.sync()
            taken.append(perf_counter() - begun)
            offset = (offset + FRAME_BYTES) % (_FILE_BYTES - FRAME_BYTES)
    finally:
        file.close()
        disk.remove("floor")
        disk.close()
    return _quantiles(taken)


def loopback_floor() -> dict[str, float]:
    """What one round trip to another process costs here: milliseconds, plain TCP, blocking sockets."""
    with subprocess.Popen([sys.executable, "-c", _ECHO], stdout=subprocess.PIPE, text=True) as echo:  # noqa: S603  our own
        assert echo.stdout is not None, "its output is a pipe"
        with socket.create_connection(("127.0.0.1", int(echo.stdout.readline())), timeout=10) as peer:
            peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            taken = [_round_trip(peer, b"x" * FRAME_BYTES) for _ in range(_ROUND_TRIPS)]
    return _quantiles(taken)


async def wait_until_quiet(share: float, patience_s: float) -> None:
    """Wait until others use less than `share` of the machine, but no longer than `patience_s`."""
    for _ in range(int(patience_s / _SAMPLE_S)):
        foreign = Foreign(())
        await asyncio.sleep(_SAMPLE_S)
        if foreign.share() < share:
            return


class Foreign:
    """Processor time that neither these processes nor this one used, as a share of the machine."""

    def __init__(self, pids: Sequence[int]) -> None:
        self._pids = (os.getpid(), *pids)
        self._began = self._read()

    def share(self) -> float:
        """Since the start of this object: 0 = the machine was ours, 1 = all of it was used by others."""
        busy, total, own = (now - then for now, then in zip(self._read(), self._began, strict=True))
        return max(0.0, busy - own) / max(1, total)

    def _read(self) -> tuple[int, int, int]:
        fields = [int(field) for field in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]]
        total = sum(fields[:8])
        return total - fields[3] - fields[4], total, sum(_ticks(pid) for pid in self._pids)


def _round_trip(peer: socket.socket, data: bytes) -> float:
    begun = perf_counter()
    peer.sendall(data)
    left = len(data)
    while left:
        left -= len(peer.recv(left))
    return perf_counter() - begun


def _quantiles(taken: list[float]) -> dict[str, float]:
    taken.sort()
    return {"p50_ms": taken[len(taken) // 2] * 1e3, "p99_ms": taken[len(taken) * 99 // 100] * 1e3}


def _ticks(pid: int) -> int:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return 0
    fields = stat.rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


def _cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()
