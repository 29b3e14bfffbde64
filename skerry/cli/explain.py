"""``skerry explain``."""

from __future__ import annotations

import click

from skerry.cli.common import Target, call, print_json, print_table, target_options


@click.command()
@click.argument("job")
@target_options
def explain(target: Target, job: str) -> int:
    """Say why JOB is where it is, or why it waits, node by node, with the nearest miss."""
    answer = call(target, lambda client: client.explain(job))
    if target.output == "json":
        print_json(answer)
        return 0
    print(answer["reason"])
    if nearest := answer.get("nearest"):
        print(f"nearest: {nearest['node']}: {nearest['change']}")
    if answer.get("nodes"):
        print()
        columns = ("node", "filter", "need", "have")
        print_table(columns, [[row.get(c) for c in columns] for row in answer["nodes"]])
    if answer.get("scores"):
        print()
        rows = answer["scores"]
        columns = tuple(rows[0])
        print_table(columns, [[row.get(c) for c in columns] for row in rows])
    return 0
