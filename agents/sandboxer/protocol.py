"""What an agent and its sandboxer say to each other.

Owns: the datagrams (JSON objects over a SOCK_SEQPACKET Unix socket), their limits, and the names
of fields and refusals.  Must not know: what either side does with them.

A request is ``{"op": NAME, "id": N, …}``; its answer ``{"re": N, "ok": true, …}`` or
``{"re": N, "ok": false, "code", "message", "hint", "retryable"}``.  Events are pushed to every
client that said hello: ``{"ev": NAME, "sequence": N, "record": {…}}``.  Every datagram may carry
the trace's clocks, ``lc`` and ``hlc``.  A datagram above `INLINE_BYTES_MAX` travels as
``{"memfd": SIZE}`` with the descriptor of a memory file holding the JSON.

| op | fields | answer |
| --- | --- | --- |
| hello | protocol | protocol, incarnation, pid, boot_id, node, cluster, isolation, isolation_why, sequence |
| start | spec (`SPEC_FIELDS`), registration | record, once exec succeeded or failed |
| renew | deadline_ns (CLOCK_BOOTTIME), registration | the node's lease lasts until then |
| stop | allocation, epoch, grace_ms (null = its own) | record or null, at once; the exit follows as an event |
| list | | records |
| usage | | workloads {allocation: [cpu_ns, memory_bytes, pids]}, node [cpu_ns, memory_bytes] |
| forget | allocation, epoch | drops an exited record and its output once the agent needs neither |
| shutdown | stop_workloads | once everything is gone (or, without stopping, at once) |
"""

from __future__ import annotations

import json
import os
import socket
from typing import Any, Final

PROTOCOL_VERSION: Final = 2
SOCKET_NAME: Final = "sandboxer.sock"
LOCK_NAME: Final = "sandboxer.lock"
LOG_NAME: Final = "sandboxer.log"
JOURNAL_NAME: Final = "sandboxer.journal"
OUTPUT_DIRECTORY: Final = "allocations"

INLINE_BYTES_MAX: Final = 64 << 10
"""Largest JSON sent inside a datagram."""
MEMFD_BYTES_MAX: Final = 32 << 20
"""Largest JSON sent by memfd; more is refused."""
PATH_BYTES_MAX: Final = 100
"""Longest socket path bound directly; a longer one goes through /proc/self/fd."""

SPEC_FIELDS: Final = (
    "allocation",
    "epoch",
    "attempt",
    "job",
    "command",
    "env",
    "cpu_millicores",
    "memory_bytes",
    "pids",
    "grace_ms",
    "on_disconnect",
    "network",
    "ports",
)

Json = dict[str, Any]


class ProtocolError(Exception):
    """The other side sent what no correct one sends; close the connection."""


def directory_name(allocation: str, epoch: int) -> str:
    """Name of an attempt's cgroups and output directory: ``default_web.0@17``."""
    return f"{allocation.replace('/', '_')}@{epoch}"


def encode(message: Json) -> bytes:
    """Compact JSON of a message."""
    return json.dumps(message, separators=(",", ":"), ensure_ascii=False).encode()


def decode(data: bytes) -> Json:
    """Inverse of `encode`.

    Raises:
        ProtocolError: not a JSON object.
    """
    try:
        value = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise ProtocolError(f"not JSON: {error}") from error
    if not isinstance(value, dict):
        raise ProtocolError("not a JSON object")
    return value


def send(sock: socket.socket, data: bytes) -> None:
    """Send one encoded message whole, by memfd when it is large.

    Raises:
        BlockingIOError: a non-blocking socket whose peer does not read; nothing was sent.
        ProtocolError: larger than `MEMFD_BYTES_MAX`.
        OSError: the connection is gone.
    """
    if len(data) <= INLINE_BYTES_MAX:
        sock.send(data, socket.MSG_NOSIGNAL)
        return
    if len(data) > MEMFD_BYTES_MAX:
        raise ProtocolError(f"a message of {len(data)} bytes; at most {MEMFD_BYTES_MAX} are sent")
    fd = os.memfd_create("skerry-message", os.MFD_CLOEXEC)
    try:
        view = memoryview(data)
        while view:
            view = view[os.write(fd, view) :]
        socket.send_fds(sock, [encode({"memfd": len(data)})], [fd], socket.MSG_NOSIGNAL)
    finally:
        os.close(fd)


def receive(sock: socket.socket) -> Json | None:
    """Receive one message; None at the end of the connection.

    Raises:
        BlockingIOError: a non-blocking socket with nothing to read.
        ProtocolError: garbage.
        OSError: the connection is gone.
    """
    data, fds, flags, _ = socket.recv_fds(sock, INLINE_BYTES_MAX, 4, socket.MSG_CMSG_CLOEXEC)
    try:
        if not data:
            return None
        if flags & socket.MSG_TRUNC:
            raise ProtocolError(f"a datagram above {INLINE_BYTES_MAX} bytes")
        message = decode(data)
        if "memfd" not in message:
            return message
        if len(fds) != 1:
            raise ProtocolError("a memfd message without exactly one descriptor")
        return decode(_read_memfd(fds[0], message["memfd"]))
    finally:
        for fd in fds:
            os.close(fd)


def _read_memfd(fd: int, size: object) -> bytes:
    if not isinstance(size, int) or not 0 < size <= MEMFD_BYTES_MAX:
        raise ProtocolError(f"a memfd message of {size!r} bytes")
    parts: list[bytes] = []
    offset = 0
    while offset < size:
        part = os.pread(fd, size - offset, offset)
        if not part:
            raise ProtocolError("a memfd message shorter than it says")
        parts.append(part)
        offset += len(part)
    return b"".join(parts)


def reachable_path(directory: str, directory_fd: int) -> str:
    """A path of the socket in `directory` that fits a Unix address, whatever the directory's length."""
    path = os.path.join(directory, SOCKET_NAME)
    return path if len(os.fsencode(path)) <= PATH_BYTES_MAX else f"/proc/self/fd/{directory_fd}/{SOCKET_NAME}"
