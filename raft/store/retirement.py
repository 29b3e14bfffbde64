"""Taking a damaged store out of service, and putting an empty one in its place.

Owns: what is moved where, in which order, so that a crash in between is finished at the next start.
Must not know: what is damaged, or how the new store comes into the cluster.

The damaged store may have forgotten votes and acknowledgements, so it must never speak again, and what is readable of
it helps nobody vote: its files go to ``retired-<store id>/`` as they are, for inspection.  The new store has an id of
its own and says in its identity whose place it took: such a store never helps to found a cluster.

Order: files aside, synced; a first segment for the new store; its identity, which replaces the old one in one rename
and completes it.  Until then the old identity stands over a log that is missing or another store's, which is damage
again.
"""

from __future__ import annotations

from msgspec import Struct

from raft.errors import StoreCorrupt
from raft.protocols import Dice, Disk
from raft.store.identity import IDENTITY_NAME, Identity, check_identity, new_identity, read_identity, write_identity
from raft.store.segments import create_segment, planned_bytes


class Retirement(Struct, frozen=True):
    """A store was taken out of service at this opening: its id, the sub-directory with its files, and why."""

    store: str
    folder: str
    why: str


def retire(
    disk: Disk, damage: StoreCorrupt, *, node_id: str, cluster_name: str, dice: Dice, segment_bytes: int
) -> Retirement:
    """Move everything of the damaged store aside and make a new, empty one.

    Raises:
        StoreForeign, StoreCloned: it is not this replica's to retire.
        DiskFull, StoreError, OSError: the new one could not be made; the next start goes on.
    """
    identity = _readable_identity(disk)
    if identity is None:  # without one the next step, interrupted, would leave what looks like a new directory
        identity = new_identity(node=node_id, cluster=cluster_name, inode=disk.inode(), dice=dice, replaces="unknown")
        write_identity(disk, identity)
    check_identity(identity, node=node_id, cluster=cluster_name, inode=disk.inode())
    folder = f"retired-{identity.store}"
    for name in disk.names():
        if name != IDENTITY_NAME:
            disk.set_aside(name, folder)
    disk.sync_directory()
    fresh = new_identity(node=node_id, cluster=cluster_name, inode=disk.inode(), dice=dice, replaces=identity.store)
    create_segment(disk, number=1, capacity=planned_bytes(1, segment_bytes), store_id=fresh.store, dice=dice).close()
    write_identity(disk, fresh)
    return Retirement(identity.store, folder, damage.message)


def _readable_identity(disk: Disk) -> Identity | None:
    try:
        return read_identity(disk)
    except StoreCorrupt:
        return None
