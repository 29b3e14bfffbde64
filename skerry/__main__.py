"""``skerry`` and ``python -m skerry``.

Owns: the process's entry and its last resort for errors.  Must not know: any command.
"""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command line and exit with the contract's code."""
    from skerry import startup

    if why := startup.problem():
        print(f"skerry: {why}", file=sys.stderr)
        sys.exit(70)
    from skerry.cli.root import run

    sys.exit(run(sys.argv[1:]))


if __name__ == "__main__":
    main()
