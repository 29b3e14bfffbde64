"""``skerry logs``."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from typing import Any

import click

from skerry.cli.common import Target, call, print_json, target_options
from skerry.client import Client

FOLLOW_WAIT_MS = 5000
LINES_MAX = 10_000


@click.command()
@click.argument("target_name", metavar="ALLOCATION|JOB")
@click.option("-f", "--follow", is_flag=True, help="Go on until the workload ends.")
@click.option("--times", is_flag=True, help="Print the time of each line.")
@target_options
def logs(target: Target, target_name: str, follow: bool, times: bool) -> int:
    """Print the output of one allocation, or of all allocations of a job.

    With -o json: one object; with -f one object a line.
    """
    call(target, lambda client: _print_logs(client, target_name, follow, times, target.output == "json"))
    return 0


async def _print_logs(client: Client, name: str, follow: bool, times: bool, as_json: bool) -> None:
    cursor = ""
    kept: list[dict[str, Any]] = []
    while True:
        answer = await client.logs(name, cursor=cursor, lines_max=LINES_MAX, wait_ms=FOLLOW_WAIT_MS if follow else 0)
        new = answer["lines"]
        cursor = answer["cursor"]
        if as_json and not follow:
            kept.extend(new)
        for line in new if follow or not as_json else ():
            print_json(line) if as_json else _print_line(line, times)
        sys.stdout.flush()
        if (follow and answer["ended"] and not new) or (not follow and (not new or answer["ended"])):
            break
    if as_json and not follow:
        print_json({"lines": kept})


def _print_line(line: dict[str, Any], times: bool) -> None:
    prefix = f"[{line['allocation']}] "
    if times:
        prefix = datetime.fromtimestamp(line["t"], UTC).isoformat(timespec="milliseconds") + " " + prefix
    print(prefix + line["text"], file=sys.stderr if line["stream"] == "stderr" else sys.stdout)
