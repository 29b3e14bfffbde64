"""Whole small files on a simulated disk.

Owns: reading and replacing one.  Must not know: what is in it.
"""

from __future__ import annotations

from raft.protocols import Disk


def read_file(disk: Disk, name: str) -> bytes | None:
    """Its contents; None if there is none."""
    try:
        file = disk.open(name)
    except FileNotFoundError:
        return None
    data = file.read_at(0, file.size())
    file.close()
    return data


def replace_file(disk: Disk, name: str, data: bytes) -> None:
    """Replace it whole and durably: a crash leaves the old or the new one."""
    aside = f"{name}.new"
    if aside in disk.names():
        disk.remove(aside)
    file = disk.open(aside, create=True)
    file.write_at(0, data)
    file.sync()
    file.close()
    disk.rename(aside, name)
    disk.sync_directory()


class DiskHome:
    """An agent's directory on a simulated disk; satisfies `agents.home_files.HomeFiles`."""

    NAME = "agent.json"

    def __init__(self, disk: Disk) -> None:
        self._disk = disk
        disk.lock()

    def read(self) -> bytes | None:
        """See `HomeFiles.read`."""
        return read_file(self._disk, self.NAME)

    def replace(self, data: bytes) -> None:
        """See `HomeFiles.replace`."""
        replace_file(self._disk, self.NAME, data)

    def close(self) -> None:
        """See `HomeFiles.close`."""
        self._disk.close()
