"""``skerry status``."""

from __future__ import annotations

import click

from skerry.cli.common import Target, call, print_json, print_table, target_options
from skerry.errors import FAILED, OK


@click.command()
@target_options
def status(target: Target) -> int:
    """Show the cluster's health: one sentence first, then replicas and nodes.

    Exits 1 when the cluster has no quorum.
    """
    answer = call(target, lambda client: client.status())
    if target.output == "json":
        print_json(answer)
    else:
        print(answer.get("summary") or ("healthy" if answer["healthy"] else "not healthy"))
        for alert in answer.get("alerts", ()):
            print(f"alert: {alert}")
        print()
        columns = ("id", "role", "term", "commit_index", "applied_index", "digest", "state")
        print_table(("replica", *columns[1:]), [[row.get(c) for c in columns] for row in answer["replicas"]])
        print()
        print_table(
            ("node", "state", "owner", "session", "isolation"),
            [
                [n["id"], n["state"], n.get("owner"), n.get("session"), _isolation(n.get("isolation") or {})]
                for n in answer["nodes"]
            ],
        )
    return OK if answer["healthy"] else FAILED


def _isolation(isolation: dict[str, str]) -> str:
    level, why = isolation.get("level", ""), isolation.get("why", "")
    return f"{level} ({why})" if why else level
