"""Whose data directory this is.

Owns: the identity file, and the refusals that protect a vote from being cast twice:
directories of another node or cluster, of a newer version, or copied.
Must not know: segments and frames.

The file is JSON for people, closed by a CRC32C.  It is written once, when a new store is
complete; its presence says that the store may hold promises.
"""

from __future__ import annotations

import google_crc32c
import msgspec
from msgspec import Struct

from raft.errors import StoreCloned, StoreCorrupt, StoreForeign, StoreTooNew
from raft.messages import StoreId
from raft.protocols import Dice, Disk

FORMAT_VERSION = 1
IDENTITY_NAME = "identity.json"
_NEW_NAME = "identity.new"
_BYTES_MAX = 1 << 16
_STORE_ID_BYTES = 16


class Identity(Struct, frozen=True):
    """Format version, node id, random store id, cluster name, and the directory's inode.

    `replaces` is the damaged store whose place this one took, "" for one that took nobody's.
    """

    format: int
    node: str
    store: StoreId
    cluster: str
    inode: str
    crc32c: str
    replaces: str = ""

    def seal(self) -> str:
        """The checksum that belongs to the other fields."""
        fields = [str(self.format), self.node, self.store, self.cluster, self.inode]
        covered = "\n".join([*fields, self.replaces] if self.replaces else fields)
        return f"{google_crc32c.value(covered.encode()):08x}"


class _Version(Struct):
    """The one field that every version will keep."""

    format: int


def new_identity(*, node: str, cluster: str, inode: str, dice: Dice, replaces: str = "") -> Identity:
    """An identity with a fresh random store id."""
    blank = Identity(FORMAT_VERSION, node, dice.token(_STORE_ID_BYTES).hex(), cluster, inode, "", replaces)
    return msgspec.structs.replace(blank, crc32c=blank.seal())


def write_identity(disk: Disk, identity: Identity) -> None:
    """Write the identity aside, then put it in place durably; raises OSError."""
    file = disk.open(_NEW_NAME, create=True)
    try:
        file.write_at(0, msgspec.json.format(msgspec.json.encode(identity)) + b"\n")
        file.sync()
    finally:
        file.close()
    disk.rename(_NEW_NAME, IDENTITY_NAME)
    disk.sync_directory()


def read_identity(disk: Disk) -> Identity | None:
    """The identity, or None in a directory without one.

    Raises:
        StoreTooNew: a newer version wrote it.
        StoreCorrupt: it cannot be read.
    """
    try:
        file = disk.open(IDENTITY_NAME)
    except FileNotFoundError:
        return None
    try:
        raw = file.read_at(0, _BYTES_MAX)
    finally:
        file.close()
    try:
        version = msgspec.json.decode(raw, type=_Version).format
        if version > FORMAT_VERSION:
            raise _too_new(version)
        identity = msgspec.json.decode(raw, type=Identity)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise _damaged(f"it does not parse: {error}") from error
    if identity.crc32c != identity.seal():
        raise _damaged("its checksum does not fit")
    return identity


def check_identity(identity: Identity, *, node: str, cluster: str, inode: str) -> None:
    """Refuse a directory that is not this replica's own; raises StoreForeign or StoreCloned."""
    if identity.cluster != cluster:
        raise StoreForeign(
            f"the data directory belongs to cluster {identity.cluster!r}, not to {cluster!r}",
            hint="check cluster.name and replica.dir; each cluster needs directories of its own",
            found=identity.cluster,
            expected=cluster,
        )
    if identity.node != node:
        raise StoreForeign(
            f"the data directory belongs to replica {identity.node!r}, not to {node!r}",
            hint="check replica.id and replica.dir; each replica needs a directory of its own",
            found=identity.node,
            expected=node,
        )
    if identity.inode != inode:
        raise StoreCloned(
            f"the data directory is a copy: it was made as {identity.inode} and is {inode}",
            hint="a copy must not vote beside its original: use the original directory, or start with an empty one",
            found=identity.inode,
            expected=inode,
        )


def _too_new(version: int) -> StoreTooNew:
    return StoreTooNew(
        f"the data directory has format {version}; this program knows {FORMAT_VERSION}",
        hint="start the newer version of Skerry that wrote it",
        found=version,
        expected=FORMAT_VERSION,
    )


def _damaged(why: str) -> StoreCorrupt:
    return StoreCorrupt(
        f"the identity file {IDENTITY_NAME} is damaged: {why}",
        hint="this store does not vote any more; keep it for inspection and start with an empty directory",
    )
