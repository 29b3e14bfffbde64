"""Which users workloads are outside: numbers of this node's own, one a workload.

Owns: the range, a block of it claimed on this machine, who has which number.
Must not know: how a process becomes one of them (`user_namespace`), what runs.

One number is enough for a workload: without capabilities it can never become another, nor give a file away.  Numbers
go round a block, and a number is taken as long as anything of its workload is kept, so no two share one.

A block is claimed by a file below `CLAIMS` that names its owner, and by a lock on it that the inits of all the
node's workloads hold besides the sandboxer: the kernel drops it with the last of them, whoever is killed first.
The next sandboxer of the directory knows its own block by the name in it and shares the lock.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
from typing import Final

OFF: Final = "off"
RANGE: Final = "1879048192:268304384"
"""0x7000_0000 to 0x7FFD_FFFF: above all that shadow (up to 600,100,000) and systemd (up to 0x6FFF_FFFF) give out."""
BLOCK: Final = 8192
"""Numbers a node: above the live and the kept attempts it can have."""
CLAIMS: Final = "/run/skerry/users"
HIGHEST: Final = 0xFFFF_FFFE
_RANGE: Final = re.compile(r"(\d{1,10}):(\d{1,10})\Z")
_OWNER_BYTES_MAX: Final = 8192
_TRIES_MAX: Final = 8


class NoUsers(OSError):
    """This node has no numbers to give to workloads."""


def parse_range(text: str) -> range:
    """The numbers of the whole blocks in ``FIRST:COUNT``; blocks begin at multiples of `BLOCK`.  Raises NoUsers."""
    match = _RANGE.match(text or RANGE)
    if match is None:
        raise NoUsers(f"{text!r} is no range of users; one is FIRST:COUNT, such as {RANGE}")
    first, count = int(match[1]), int(match[2])
    blocks = range(-(-first // BLOCK), (first + count) // BLOCK)
    if not blocks or blocks.start == 0 or first + count - 1 > HIGHEST:
        raise NoUsers(f"{text} holds no {BLOCK} users from a multiple of {BLOCK} on, up to {HIGHEST}")
    return range(blocks.start * BLOCK, blocks.stop * BLOCK)


class Users:
    """The numbers of one node.  `lock`: descriptor of the claim, which inits keep open."""

    def __init__(self, first: int, lock: int, claim: str) -> None:
        self.first = first
        self.lock = lock
        self._claim = claim
        self._taken: dict[str, int] = {}
        self._next = int.from_bytes(os.urandom(2)) % BLOCK
        """From anywhere: what ended workloads left in /tmp is no newcomer's."""

    def take(self, name: str) -> int:
        """A number for attempt `name`.  Raises NoUsers."""
        used = set(self._taken.values())
        for step in range(BLOCK):
            user = self.first + (self._next + step) % BLOCK
            if user not in used:
                self._next = (user - self.first + 1) % BLOCK
                self._taken[name] = user
                return user
        raise NoUsers(f"all {BLOCK} users of this node's workloads are in use")

    def adopt(self, name: str, user: int) -> None:
        """Attempt `name` has this number from an earlier sandboxer."""
        self._taken[name] = user

    def free(self, name: str) -> None:
        """Nothing of attempt `name` is left; unknown is fine."""
        self._taken.pop(name, None)

    def close(self) -> None:
        """Give the block back, unless a workload of an earlier sandboxer has it still."""
        with contextlib.suppress(OSError):
            fcntl.flock(self.lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.unlink(self._claim)
            os.rmdir(os.path.dirname(self._claim))
            os.rmdir(os.path.dirname(os.path.dirname(self._claim)))
        os.close(self.lock)


def claim(numbers: range, owner: str, directory: str = CLAIMS) -> Users:
    """A block that no other node of this machine has, or the one that `owner` has already.  Raises OSError."""
    blocks = range(numbers.start // BLOCK, numbers.stop // BLOCK)
    start = int.from_bytes(os.urandom(4)) % len(blocks)
    anywhere = (blocks[(start + step) % len(blocks)] for step in range(len(blocks)))
    for block in (*_owned(directory, owner, blocks), *anywhere):
        path = os.path.join(directory, str(block))
        lock = _lock(path, owner)
        if lock >= 0:
            return Users(block * BLOCK, lock, path)
    raise NoUsers(f"other nodes of this machine have all users from {numbers.start} to {numbers.stop - 1}")


def _owned(directory: str, owner: str, blocks: range) -> list[int]:
    """Blocks in whose files `owner` is named."""
    found = []
    with contextlib.suppress(FileNotFoundError):
        for name in sorted(os.listdir(directory)):
            with contextlib.suppress(OSError, ValueError), open(os.path.join(directory, name), "rb") as file:
                if file.read(_OWNER_BYTES_MAX) == owner.encode() and int(name) in blocks:
                    found.append(int(name))
    return found


def _lock(path: str, owner: str) -> int:
    """Hold a block's file, if it is free or `owner`'s: its descriptor, or -1.  Raises OSError.

    Who finds it free writes its name under an exclusive lock, then shares the lock.  The name is looked at last:
    somebody else may have done the same in between.
    """
    for _ in range(_TRIES_MAX):
        os.makedirs(os.path.dirname(path), mode=0o755, exist_ok=True)
        try:
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        except FileNotFoundError:  # its directory was just given back
            continue
        with contextlib.suppress(BlockingIOError):
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.ftruncate(fd, 0)
            os.pwrite(fd, owner.encode(), 0)
        with contextlib.suppress(BlockingIOError, FileNotFoundError):
            fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
            if os.stat(path).st_ino == os.fstat(fd).st_ino and os.pread(fd, _OWNER_BYTES_MAX, 0) == owner.encode():
                return fd
        gone = not os.path.exists(path)
        os.close(fd)
        if not gone:
            return -1
    return -1
