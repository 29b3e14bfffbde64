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

from chaos.errors import ChaosError

HASH_SEED_OTHER = "4242"
SEED_TIMEOUT_S = 60


class SecondRunFailed(ChaosError):
    """The process that repeats seeds ended without an answer."""

    code = "second-run-failed"


def digests_elsewhere(seeds: Sequence[int], options: Sequence[str]) -> dict[int, str]:
    """The trace digests of `seeds`, run by another process under another hash seed.

    Args:
        seeds: to run.
        options: of `skerry sim`, as the first run had them.

    Raises:
        SecondRunFailed: it did not answer.
    """
    command = [sys.executable, "-m", "skerry", "sim", "digests", *options, *map(str, seeds)]
    environment = {**os.environ, "PYTHONHASHSEED": HASH_SEED_OTHER}
    if environment.get("PYTHONHASHSEED") == os.environ.get("PYTHONHASHSEED"):
        environment["PYTHONHASHSEED"] = "4243"
    try:
        done = subprocess.run(  # noqa: S603  ourselves
            command, env=environment, stdout=subprocess.PIPE, timeout=SEED_TIMEOUT_S * (1 + len(seeds)), check=True
        )
        return {int(seed): digest for seed, digest in json.loads(done.stdout)["digests"].items()}
    except (subprocess.SubprocessError, ValueError, KeyError) as error:
        raise SecondRunFailed(f"the second run did not answer: {error}") from None
