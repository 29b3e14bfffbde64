"""The agent's data directory: who owns it, and which cluster it worked for.

Owns: the lock that keeps a second agent out, and ``agent.json``.
Must not know: sessions, or the sandboxer's files beside it.
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from typing import Self

import msgspec
from msgspec import Struct

from agents.errors import DirectoryInUse, ForeignDirectory

FORMAT = 1
LOCK_NAME = "agent.lock"
IDENTITY_NAME = "agent.json"


class Identity(Struct, frozen=True):
    """What the directory remembers over restarts."""

    format: int
    node: str
    cluster_name: str
    cluster_id: str
    """The cluster that accepted this node first, or "" before that."""
    installation: str = ""
    """Random id of this directory: two directories never work as one node at a time."""


class Home:
    """An open, locked data directory; the lock goes with the process, however it ends."""

    def __init__(self, directory: Path, lock: int, identity: Identity) -> None:
        self.directory = directory
        self._lock = lock
        self._identity = identity

    @classmethod
    def open(cls, directory: Path, *, node: str, cluster_name: str) -> Self:
        """Create or open `directory` for this node.

        Raises:
            DirectoryInUse: another agent is alive in it.
            ForeignDirectory: it belongs to another node or cluster, to a newer version, or is damaged.
            OSError: it cannot be created or written.
        """
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        lock = os.open(directory / LOCK_NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            _lock(lock, directory)
            identity = _read(directory / IDENTITY_NAME)
            if identity is None:
                identity = Identity(FORMAT, node, cluster_name, "")
            _check(identity, directory, node, cluster_name)
            if not identity.installation:
                identity = msgspec.structs.replace(identity, installation=os.urandom(8).hex())
                _write(directory, identity)
        except BaseException:
            os.close(lock)
            raise
        return cls(directory, lock, identity)

    @property
    def cluster_id(self) -> str:
        """The cluster this node worked for last, or ""."""
        return self._identity.cluster_id

    @property
    def installation(self) -> str:
        """Random id of this directory."""
        return self._identity.installation

    def remember(self, cluster_id: str) -> None:
        """Belong to this cluster from now on; durable on return.

        Raises:
            ForeignDirectory: it belongs to another one.
        """
        if self.cluster_id == cluster_id:
            return
        if self.cluster_id:
            raise ForeignDirectory(
                f"{self.directory} belongs to cluster {self.cluster_id}, the replica to {cluster_id}",
                hint="give this agent the replicas of its own cluster, or an empty directory",
            )
        self._identity = msgspec.structs.replace(self._identity, cluster_id=cluster_id)
        _write(self.directory, self._identity)

    def close(self) -> None:
        """Let another agent in."""
        os.close(self._lock)


def _lock(handle: int, directory: Path) -> None:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        owner = os.pread(handle, 32, 0).decode("ascii", errors="replace").strip() or "unknown"
        raise DirectoryInUse(
            f"another agent (pid {owner}) works in {directory}",
            hint="stop that agent first, or give this one a directory of its own",
        ) from None
    os.ftruncate(handle, 0)
    os.pwrite(handle, f"{os.getpid()}\n".encode("ascii"), 0)


def _read(path: Path) -> Identity | None:
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return None
    try:
        return msgspec.json.decode(data, type=Identity)
    except msgspec.DecodeError as error:
        raise ForeignDirectory(
            f"{path} is damaged: {error}", hint="restore it, or remove it once no workload of this node runs"
        ) from None


def _check(identity: Identity, directory: Path, node: str, cluster_name: str) -> None:
    if identity.format > FORMAT:
        raise ForeignDirectory(
            f"{directory} was written by a newer version (format {identity.format}, known is {FORMAT})",
            hint="use that version or a newer one",
        )
    for what, mine, theirs in (("node", node, identity.node), ("cluster", cluster_name, identity.cluster_name)):
        if mine != theirs:
            raise ForeignDirectory(
                f"{directory} belongs to {what} {theirs!r}, this agent is configured for {mine!r}",
                hint="use the directory's own configuration, or an empty directory",
            )


def _write(directory: Path, identity: Identity) -> None:
    """Replace ``agent.json`` whole and durably: a crash leaves the old or the new one."""
    temporary = directory / f".{IDENTITY_NAME}.new"
    handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        os.write(handle, msgspec.json.encode(identity) + b"\n")
        os.fsync(handle)
    finally:
        os.close(handle)
    os.replace(temporary, directory / IDENTITY_NAME)
    parent = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(parent)
    finally:
        os.close(parent)
