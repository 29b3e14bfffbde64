"""The agent's data directory: who owns it, and which cluster it worked for.

Owns: what ``agent.json`` says, and whom it turns away.
Must not know: sessions, the sandboxer's files beside it, or how it lies on disk (`agents.home_files`).
"""

from __future__ import annotations

from pathlib import Path
from typing import Self

import msgspec
from msgspec import Struct

from agents.errors import ForeignDirectory
from agents.home_files import IDENTITY_NAME, HomeFiles, LockedDirectory
from cluster.dice import SystemDice
from raft.protocols import Dice

FORMAT = 1
INSTALLATION_BYTES = 8


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
    """An open, locked data directory."""

    def __init__(self, directory: Path, files: HomeFiles, identity: Identity) -> None:
        self.directory = directory
        self._files = files
        self._identity = identity

    @classmethod
    def open(
        cls, directory: Path, *, node: str, cluster_name: str, files: HomeFiles | None = None, dice: Dice | None = None
    ) -> Self:
        """Create or open `directory` for this node.

        Args:
            directory: the agent's own.
            node: the node it is for.
            cluster_name: the cluster it is for.
            files: in place of the real directory's.
            dice: in place of the kernel's.

        Raises:
            DirectoryInUse: another agent is alive in it.
            ForeignDirectory: it belongs to another node or cluster, to a newer version, or is damaged.
            OSError: it cannot be created or written.
        """
        files = files or LockedDirectory.open(directory)
        try:
            identity = _read(files, directory) or Identity(FORMAT, node, cluster_name, "")
            _check(identity, directory, node, cluster_name)
            if not identity.installation:
                token = (dice or SystemDice()).token(INSTALLATION_BYTES).hex()
                identity = msgspec.structs.replace(identity, installation=token)
                _write(files, identity)
        except BaseException:
            files.close()
            raise
        return cls(directory, files, identity)

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
        _write(self._files, self._identity)

    def close(self) -> None:
        """Let another agent in."""
        self._files.close()


def _read(files: HomeFiles, directory: Path) -> Identity | None:
    data = files.read()
    if data is None:
        return None
    try:
        return msgspec.json.decode(data, type=Identity)
    except msgspec.DecodeError as error:
        raise ForeignDirectory(
            f"{directory / IDENTITY_NAME} is damaged: {error}",
            hint="restore it, or remove it once no workload of this node runs",
        ) from None


def _write(files: HomeFiles, identity: Identity) -> None:
    files.replace(msgspec.json.encode(identity) + b"\n")


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
