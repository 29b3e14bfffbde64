"""``skerry conformance``.

Owns: options and exit codes.  Must not know: cases or rules.
"""

from __future__ import annotations

from pathlib import Path

import click

from skerry.cli.common import output_option, print_json
from skerry.errors import FAILED, OK, UsageError


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@output_option
def conformance(file: Path, output: str) -> int:
    """Ask the placement rules for the answers that FILE expects.

    FILE is JSON: {"cases": [...]}, each a pod, nodes, what runs there, and the answer of one rule of
    kube-scheduler.  Exits 1 when an answer differs.
    """
    from skerry.conformance.run import report
    from skerry.conformance.schema import read_cases

    try:
        data = file.read_bytes()
    except OSError as error:
        raise UsageError(f"{file} cannot be read: {error.strerror}", hint="name a file of cases") from None
    found = report(read_cases(data))
    if output == "json":
        print_json(found)
    else:
        for row in found["cases"]:
            if not row["ok"]:
                print(f"{row['id']}\n  expected {row['expected']}\n  got      {row['got']}")
        print(f"{found['passed']} passed, {found['failed']} failed")
    return FAILED if found["failed"] else OK
