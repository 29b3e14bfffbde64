"""``skerry config show``."""

from __future__ import annotations

from pathlib import Path

import click

from skerry.cli.common import output_option, print_json, print_table
from skerry.cli.settings import load_settings, settings_options


@click.group()
def config() -> None:
    """Show the configuration: defaults < file < environment < flags."""


@config.command()
@click.option("--origin", is_flag=True, help="Say where each value came from.")
@settings_options
@output_option
def show(config: Path | None, settings: tuple[str, ...], origin: bool, output: str) -> int:
    """Print every key with the value in force; secrets are hidden."""
    rows = load_settings(config, settings, {}).show()
    if output == "json":
        print_json({"settings": [{"key": row.key, "value": row.value, "origin": row.origin} for row in rows]})
        return 0
    columns = ("key", "value", "origin") if origin else ("key", "value")
    print_table(columns, [[getattr(row, column) for column in columns] for row in rows])
    return 0
