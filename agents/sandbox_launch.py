"""Reaching the sandboxer of a directory, and starting one.

Owns: its command line, its environment, the socket.  Must not know: what is said on it.
"""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
from pathlib import Path

from msgspec import Struct

from agents.sandboxer import protocol
from raft.errors import SkerryError

CONNECT_TIMEOUT_S = 15.0


class SandboxerUnavailable(SkerryError):
    """No sandboxer answers in this directory, and none could be started."""

    code = "sandboxer-unavailable"
    retryable = True


class SandboxerOptions(Struct, frozen=True, kw_only=True):
    """What a sandboxer is started with."""

    node: str
    cluster: str
    cgroup_root: str | None = None
    """Parent of the node's tree inside each hierarchy, such as ``/my.slice``; None = the hierarchy's root."""
    cgroups: str = "auto"
    """auto | v1 | hybrid | v2 | none."""
    bridge_subnet: str = ""
    """Of workloads with a bridge network, such as ``10.200.4.0/22``; empty = one that is free."""
    users: str = ""
    """That workloads are outside their user namespaces: ``FIRST:COUNT``, or ``off``; empty = ones that are unused."""
    trace_dir: str | None = None
    output_bytes_max: int = 8 << 20
    """Bytes on disk an output stream may take before its oldest part is punched out."""
    revision: str = ""


async def open_socket(directory: Path, options: SandboxerOptions | None) -> socket.socket:
    """A connected socket; starts a sandboxer when none answers and `options` are given."""
    try:
        return dial(directory)
    except OSError as error:
        reason = str(error)
    if options is None:
        raise SandboxerUnavailable(f"no sandboxer answers in {directory}: {reason}", hint="start an agent there")
    failed = await asyncio.to_thread(launch, directory, options)
    try:  # also after a failure: another one may have been started at the same moment
        return dial(directory)
    except OSError as error:
        raise SandboxerUnavailable(
            f"the sandboxer of {directory} did not start: {failed or error}",
            hint=f"see {directory / protocol.LOG_NAME}",
        ) from error


def dial(directory: Path) -> socket.socket:
    """Connect to the socket of `directory`; OSError if nobody listens."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
    try:
        fd = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            sock.connect(protocol.reachable_path(str(directory), fd))
        finally:
            os.close(fd)
        sock.setblocking(False)
    except BaseException:
        sock.close()
        raise
    return sock


def launch(directory: Path, options: SandboxerOptions) -> str:
    """Start a sandboxer in `directory`, in a session of its own, with next to no environment.

    Blocks until it listens.  It is nobody's child, and imports the standard library alone
    (``-S`` leaves site-packages out).

    Returns:
        "", or why it did not start.
    """
    directory.mkdir(parents=True, exist_ok=True)
    root = Path(__file__).resolve().parent.parent
    command = [sys.executable, "-S", "-s", "-m", "agents.sandboxer", "--detach", "--dir", str(directory.resolve())]
    command += ["--node", options.node, "--cluster", options.cluster, "--cgroups", options.cgroups]
    command += ["--output-bytes-max", str(options.output_bytes_max)]
    if options.cgroup_root:
        command += ["--cgroup-root", options.cgroup_root]
    if options.bridge_subnet:
        command += ["--bridge-subnet", options.bridge_subnet]
    if options.users:
        command += ["--users", options.users]
    if options.trace_dir:
        command += ["--trace-dir", str(Path(options.trace_dir).resolve())]
    if options.revision:
        command += ["--revision", options.revision]
    environment = {"PATH": os.environ.get("PATH", os.defpath), "PYTHONPATH": str(root), "LANG": "C.UTF-8"}
    with (directory / protocol.LOG_NAME).open("ab") as log:
        try:
            done = subprocess.run(  # noqa: S603 - our own module
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=environment,
                cwd="/",
                start_new_session=True,
                timeout=CONNECT_TIMEOUT_S,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            return str(error)
    return "" if done.returncode == 0 else f"exit status {done.returncode}; its log ends with: {_log_tail(directory)}"


def _log_tail(directory: Path) -> str:
    try:
        lines = (directory / protocol.LOG_NAME).read_text(errors="replace").strip().splitlines()
    except OSError as error:
        return f"(unreadable: {error})"
    return " / ".join(lines[-3:]) or "(empty)"
