"""``python -m chaos.exhaustive [SCOPE ...]``: what ``skerry sim exhaustive -o json`` says.

Owns: its arguments.  Must not know: how states are visited.
"""

from __future__ import annotations

import argparse
import sys

import msgspec

from chaos.exhaustive.scopes import MILLION, SCOPES
from chaos.exhaustive.search import explored


def main(arguments: list[str] | None = None) -> int:
    """Explore the named scopes one after another; 1 when an invariant does not hold."""
    parser = argparse.ArgumentParser("python -m chaos.exhaustive", description=__doc__)
    parser.add_argument("scopes", nargs="*", metavar="SCOPE", help=", ".join(SCOPES), default=[MILLION])
    parser.add_argument("--states", type=int, default=5_000_000, help="end a scope after so many states")
    options = parser.parse_args(arguments)
    if unknown := [name for name in options.scopes if name not in SCOPES]:
        parser.error(f"there is no scope {unknown[0]!r}; there are {', '.join(SCOPES)}")
    found = explored(options.scopes, options.states)
    sys.stdout.write(msgspec.json.format(msgspec.json.encode(found)).decode() + "\n")
    return 1 if found.violated else 0


if __name__ == "__main__":
    sys.exit(main())
