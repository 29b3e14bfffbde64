"""Running seeds again in a process of its own, with another hash seed.

Owns: that process and what it says.  Must not know: how the digests are judged.

Two processes differ in what a simulator must not depend on: the order of sets, addresses of objects, what ran before.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from typing import Self

from chaos.errors import ChaosError

HASH_SEED_OTHER = "4242"
SEED_TIMEOUT_S = 60


class SecondRunFailed(ChaosError):
    """The process that repeats seeds ended without an answer."""

    code = "second-run-failed"


class SecondRun:
    """A process that runs `seeds` again beside this one, under another hash seed; ended with the context.

    Args:
        seeds: to run.
        options: of `skerry sim`, as the first run had them.
    """

    def __init__(self, seeds: Sequence[int], options: Sequence[str]) -> None:
        self._seeds = seeds
        command = [sys.executable, "-m", "skerry", "sim", "digests", *options, *map(str, seeds)]
        environment = {**os.environ, "PYTHONHASHSEED": HASH_SEED_OTHER}
        if environment.get("PYTHONHASHSEED") == os.environ.get("PYTHONHASHSEED"):
            environment["PYTHONHASHSEED"] = "4243"
        self._process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE)  # noqa: S603  ourselves

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._process.kill()
        self._process.communicate()

    def digests(self, seeds: Sequence[int]) -> dict[int, str]:
        """The trace digests of those of its seeds; waits for all of them.

        Raises:
            SecondRunFailed: it did not answer.
        """
        try:
            said, _ = self._process.communicate(timeout=SEED_TIMEOUT_S * (1 + len(self._seeds)))
            found = json.loads(said)["digests"]
            return {seed: found[str(seed)] for seed in seeds}
        except (subprocess.SubprocessError, ValueError, KeyError) as error:
            raise SecondRunFailed(f"the second run did not answer: {error!r}") from None
