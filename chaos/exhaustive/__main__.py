"""``python -m chaos.exhaustive [SCOPE ...]``: explore, and print what it came to as JSON.

Owns: the command line.  Must not know: how states are visited.

Exit code 1 when an invariant does not hold, 2 for a scope that does not exist.
"""

from __future__ import annotations

import argparse
import sys

import msgspec

from chaos.exhaustive.scopes import MILLION, SCOPES
from chaos.exhaustive.search import explore


def main(arguments: list[str] | None = None) -> int:
    """Explore the named scopes one after another."""
    parser = argparse.ArgumentParser("python -m chaos.exhaustive", description=__doc__)
    parser.add_argument("scopes", nargs="*", metavar="SCOPE", help=", ".join(SCOPES), default=[MILLION])
    parser.add_argument("--states", type=int, default=5_000_000, help="stop a scope after so many states")
    options = parser.parse_args(arguments)
    if unknown := [name for name in options.scopes if name not in SCOPES]:
        parser.error(f"there is no scope {unknown[0]!r}; there are {', '.join(SCOPES)}")
    reports = [explore(name, SCOPES[name], options.states) for name in options.scopes]
    found = {
        "states": sum([report.states for report in reports]),
        "transitions": sum([report.transitions for report in reports]),
        "depth": max([report.depth for report in reports]),
        "wall_s": round(sum([report.wall_s for report in reports]), 2),
        "violated": [report.violated for report in reports if report.violated],
        "scopes": reports,
    }
    sys.stdout.write(msgspec.json.format(msgspec.json.encode(found)).decode() + "\n")
    return 1 if found["violated"] else 0


if __name__ == "__main__":
    sys.exit(main())
