"""What workloads write, bounded.

Owns: the files ``stdout`` and ``stderr`` of each attempt, and its working directory ``work`` beside them.
Must not know: who reads them.

The workload holds the file itself (O_APPEND), so output goes on while the sandboxer is dead and never
blocks on it.  When a file takes more than its share of disk, its oldest blocks are punched out:
offsets stay valid and only grow, nothing written meanwhile is lost (as it is when a file is copied
and truncated), and a reader finds the oldest kept byte with SEEK_DATA.  On a file system without
holes the file is truncated instead; then a reader's offset lies beyond the end and starts again.

A workload that is another user than we are owns files and working directory, not the directory that holds them: it
cannot put a link or a pipe in the place of a file that we open.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from typing import Final

from agents.sandboxer import linux

STREAMS: Final = ("stdout", "stderr")
WORK: Final = "work"
TEMPORARY: Final = "tmp"
BLOCK_BYTES: Final = 4096
CHECK_S: Final = 0.25
SIZE_ON_DISK_UNIT: Final = 512


class Outputs:
    """The output files of a node's attempts, below `directory`."""

    def __init__(self, directory: str, bytes_max: int) -> None:
        self._directory = os.path.realpath(directory)
        self._bytes_max = max(bytes_max, 4 * BLOCK_BYTES)
        self._watched: dict[str, dict[str, int]] = {}
        os.makedirs(directory, exist_ok=True)

    def path(self, name: str) -> str:
        """Directory of an attempt's output."""
        return os.path.join(self._directory, name)

    @property
    def parent(self) -> str:
        """The node's directory, which holds the outputs'."""
        return os.path.dirname(self._directory)

    def work(self, name: str) -> str:
        """Working directory of an attempt."""
        return os.path.join(self._directory, name, WORK)

    def owners(self) -> dict[str, int]:
        """The user of every attempt of which something is kept."""
        found = {}
        for name in os.listdir(self._directory):
            with contextlib.suppress(OSError):
                found[name] = os.stat(self.work(name), follow_symlinks=False).st_uid
        return found

    def open(self, name: str, user: int = 0) -> tuple[int, int]:
        """Open (stdout, stderr) of an attempt for its workload, which is `user` unless 0; the caller closes them."""
        path = self.path(name)
        os.makedirs(path, mode=0o755, exist_ok=True)
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        first = os.open(os.path.join(path, STREAMS[0]), flags, 0o640)
        try:
            second = os.open(os.path.join(path, STREAMS[1]), flags, 0o640)
        except OSError:
            os.close(first)
            raise
        try:
            self._furnish(name, user, first, second)
        except OSError:
            os.close(first)
            os.close(second)
            raise
        self.watch(name)
        return first, second

    def _furnish(self, name: str, user: int, *files: int) -> None:
        """Make the working directory; all is `user`'s."""
        work = self.work(name)
        temporary = os.path.join(work, TEMPORARY)
        for directory in (work, temporary):
            with contextlib.suppress(FileExistsError):
                os.mkdir(directory, 0o700)
        if user:
            places: tuple[int | str, ...] = (*files, temporary, work)
            for place in places:
                os.chown(place, user, user)

    def watch(self, name: str) -> None:
        """Keep an attempt's files within bounds."""
        self._watched[name] = dict.fromkeys(STREAMS, 0)

    def unwatch(self, name: str) -> None:
        """Bound the files once more, and stop looking."""
        if name in self._watched:
            self._bound(name)
            del self._watched[name]

    def discard(self, name: str) -> None:
        """Remove an attempt's output."""
        self._watched.pop(name, None)
        shutil.rmtree(self.path(name), ignore_errors=True)

    def bound_all(self) -> None:
        """Bound every watched file; call every `CHECK_S`."""
        for name in self._watched:
            self._bound(name)

    def _bound(self, name: str) -> None:
        sizes = self._watched[name]
        for stream in STREAMS:
            path = os.path.join(self.path(name), stream)
            with contextlib.suppress(OSError):
                stat = os.stat(path, follow_symlinks=False)
                if stat.st_size != sizes[stream]:
                    sizes[stream] = stat.st_size
                    if stat.st_blocks * SIZE_ON_DISK_UNIT > self._bytes_max:
                        punch(path, stat.st_size, self._bytes_max // 2)


def punch(path: str, size: int, keep_bytes: int) -> None:
    """Free all but the newest `keep_bytes` of a file of `size` bytes."""
    end = (size - keep_bytes) // BLOCK_BYTES * BLOCK_BYTES
    if end <= 0:
        return
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        linux.punch_hole(fd, 0, end)
    except OSError:
        os.ftruncate(fd, 0)
    finally:
        os.close(fd)


def read_window(path: str, offset: int, bytes_max: int) -> tuple[bytes, int, int]:
    """Read output from `offset` on, skipping what was punched out.

    Returns:
        (data, its offset, size of the file): `data` is empty at the end; its offset is above the
        one asked for when older output is gone.

    Raises:
        FileNotFoundError: there is no such output.
    """
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        size = os.fstat(fd).st_size
        if offset > size:
            offset = 0
        if offset == size:
            return b"", offset, size
        try:
            start = os.lseek(fd, offset, os.SEEK_DATA)
        except OSError:  # only a hole follows
            return b"", size, size
        return os.pread(fd, bytes_max, start), start, size
    finally:
        os.close(fd)
