"""How the init and the main process of one workload talk until the program runs.

Owns: the line between them.  Must not know: what is said on it.

An init that never hears `GO` ends: without that, one whose main process ended early would wait in its namespace for
ever, since only its sandboxer knew of it.
"""

from __future__ import annotations

import socket
from typing import Final

GO: Final = b"go"
SAID_BYTES_MAX: Final = 512


class Meeting:
    """One line, made before both are forked."""

    def __init__(self) -> None:
        self._init, self._main = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._own = self._init

    def close(self) -> None:
        """Drop both ends; in the parent of both."""
        self._init.close()
        self._main.close()

    def as_init(self) -> int:
        """This process is the init; returns the descriptor of its end."""
        self._main.close()
        return self._own.fileno()

    def as_main(self) -> None:
        """This process is the main process."""
        self._init.close()
        self._own = self._main

    def say(self, word: bytes) -> None:
        """Tell the other one.  Raises OSError."""
        self._own.send(word[:SAID_BYTES_MAX])

    def hear(self) -> bytes:
        """What the other one says next; empty when it is gone."""
        return self._own.recv(SAID_BYTES_MAX)
