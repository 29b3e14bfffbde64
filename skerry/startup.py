"""Checks before anything runs: our own packages, assertions on.

Owns: the refusal to start in a process that would mislead.  Must not know: the commands.
"""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path

PACKAGES = ("raft", "cluster", "scheduler", "agents", "chaos")


def problem() -> str | None:
    """Why this interpreter must not run Skerry, or None.

    Five of our import names belong to other distributions too, and installers do not notice
    when two of them overwrite each other; assertions are part of the program.
    """
    if sys.flags.optimize:
        return "Skerry does not run with assertions off: start Python without -O and PYTHONOPTIMIZE"
    home = Path(__file__).resolve().parent.parent
    for name in PACKAGES:
        spec = find_spec(name)
        origin = Path(spec.origin).resolve() if spec and spec.origin else None
        if origin is None or origin.parent.parent != home:
            return (
                f"the package {name!r} that Python finds is {origin or 'missing'}, not Skerry's own in {home}: "
                "another installed distribution shadows it; install Skerry into an environment of its own"
            )
    return None
