"""Chance, from the machine or from a seed.

Owns: the two implementations of `raft.protocols.Dice`.  Must not know: who throws.
"""

from __future__ import annotations

import os
import random
import secrets


class SystemDice:
    """Unguessable numbers from the kernel."""

    __slots__ = ()

    def below(self, bound: int) -> int:
        """A uniform integer in ``[0, bound)``; ValueError unless ``bound >= 1``."""
        return secrets.randbelow(bound)

    def token(self, size_bytes: int) -> bytes:
        """`size_bytes` unguessable bytes."""
        return os.urandom(size_bytes)


class SeededDice:
    """The same throws for the same seed, in every process and on every machine.

    For simulation and tests: its tokens can be guessed.
    """

    __slots__ = ("_random", "seed")

    def __init__(self, seed: int | str) -> None:
        self.seed = seed
        self._random = random.Random(f"skerry:{seed}")  # noqa: S311  repeatable on purpose

    def below(self, bound: int) -> int:
        """A uniform integer in ``[0, bound)``; ValueError unless ``bound >= 1``."""
        return self._random.randrange(bound)

    def token(self, size_bytes: int) -> bytes:
        """`size_bytes` repeatable bytes."""
        return self._random.randbytes(size_bytes)

    def fork(self, name: str) -> SeededDice:
        """An independent stream; throwing one does not move the other."""
        return SeededDice(f"{self.seed}/{name}")
