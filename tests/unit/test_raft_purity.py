from __future__ import annotations

import ast
from pathlib import Path

import pytest

import raft

DECIDING = [
    "core",
    "state",
    "founding",
    "election",
    "replication",
    "follower",
    "progress",
    "quorum",
    "configuration",
    "membership",
    "snapshots",
    "install",
    "durability",
    "log",
    "reads",
    "transfer",
    "digests",
    "refetch",
    "messages",
    "events",
    "effects",
]
FORBIDDEN = {"asyncio", "time", "random", "os", "socket", "uuid", "datetime", "aiohttp", "structlog", "threading"}


@pytest.mark.parametrize("name", DECIDING)
def test_a_deciding_module_knows_no_clock_no_chance_and_no_world(name: str) -> None:
    tree = ast.parse((Path(raft.__file__).parent / f"{name}.py").read_text())
    imported = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            imported |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0
            imported.add((node.module or "").split(".")[0])
            if node.module and node.module.startswith("raft."):
                assert node.module.removeprefix("raft.") in {*DECIDING, "errors", "protocols"}
    assert not imported & FORBIDDEN


@pytest.mark.parametrize("name", DECIDING)
def test_a_deciding_module_iterates_no_set(name: str) -> None:
    tree = ast.parse((Path(raft.__file__).parent / f"{name}.py").read_text())
    sets = [node for node in ast.walk(tree) if isinstance(node, ast.Set | ast.SetComp)]
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)]
    assert not sets
    assert not [call for call in calls if call.func.id in ("set", "frozenset")]  # type: ignore[attr-defined]
