"""The scheduler's deciding modules know no clock, no chance, no world, and make no sets."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import scheduler

ROOT = Path(scheduler.__file__).parent
DECIDING = sorted(
    str(path.relative_to(ROOT.parent))
    for path in (
        *ROOT.glob("state/*.py"),
        *ROOT.glob("engine/*.py"),
        *(ROOT / f"{name}.py" for name in ("lifecycle", "evaluations", "explain", "jobfile", "jobtext", "units")),
        *(ROOT / f"{name}.py" for name in ("model", "commands", "session", "leases")),
        *(ROOT.parent / "cluster" / f"{name}.py" for name in ("ring", "shards")),
    )
)
FORBIDDEN = {
    "asyncio", "time", "random", "secrets", "os", "socket", "uuid", "datetime", "threading", "aiohttp", "structlog",
    "cluster", "agents", "chaos", "skerry",
}  # fmt: skip

PURE_ELSEWHERE = ("cluster.ring", "cluster.shards")
"""Deciding modules of the package below, held to the same rules."""


def tree_of(name: str) -> ast.Module:
    return ast.parse((ROOT.parent / name).read_text())


def test_the_deciding_modules_are_found() -> None:
    assert len(DECIDING) > 25


@pytest.mark.parametrize("name", DECIDING)
def test_a_deciding_module_imports_nothing_that_acts(name: str) -> None:
    imported = set()
    for node in ast.walk(tree_of(name)):
        if isinstance(node, ast.Import):
            imported |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            module = node.module or ""
            imported.add(module if module in PURE_ELSEWHERE else module.split(".")[0])
    assert imported & FORBIDDEN == set()


@pytest.mark.parametrize("name", DECIDING)
def test_a_deciding_module_makes_no_sets_whose_order_could_leak(name: str) -> None:
    for node in ast.walk(tree_of(name)):
        assert not isinstance(node, ast.Set | ast.SetComp), f"{name}:{node.lineno}"
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            assert node.func.id not in ("set", "frozenset"), f"{name}:{node.lineno}"
