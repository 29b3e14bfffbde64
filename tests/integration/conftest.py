"""Fixtures of the integration tests."""

from __future__ import annotations

import itertools
import os
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest

from tests.integration.sandbox_rig import Decoys, Rig, guarded

_numbers = itertools.count()


@pytest.fixture
def other_cgroups() -> Iterator[Decoys]:
    """Asserts that the test changed no cgroup but Skerry's own."""
    yield from guarded()


@pytest.fixture
def shared() -> Iterator[Path]:
    """A directory for a test and its workloads, which are nobody on this machine: they may not enter `tmp_path`."""
    with tempfile.TemporaryDirectory(prefix="skerry-shared-") as name:
        Path(name).chmod(0o777)
        yield Path(name)


@pytest.fixture
async def make_rig(tmp_path: Path, other_cgroups: Decoys) -> AsyncIterator[Callable[..., Rig]]:
    """Makes sandboxers that are removed with everything of theirs at the end."""
    made: list[Rig] = []

    def make(cgroups: str = "auto", numbers: str = "") -> Rig:
        number = next(_numbers)
        made.append(Rig(tmp_path / f"node{number}", f"t{os.getpid()}-{number}", cgroups, numbers))
        return made[-1]

    yield make
    for rig in made:
        await rig.end()


@pytest.fixture
async def rig(make_rig: Callable[..., Rig]) -> Rig:
    """A sandboxer with a client that is connected."""
    rig = make_rig()
    await rig.connect()
    return rig
