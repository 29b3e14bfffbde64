"""Configuration flags that every process shares: ``--config`` and ``--set``.

Owns: turning flags into the top layer of the configuration.  Must not know: its keys.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import click

from cluster import config as configuration
from skerry.errors import UsageError


def settings_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """``--config FILE`` and ``--set SECTION.KEY=VALUE``."""
    command = click.option(
        "--set", "settings", multiple=True, metavar="SECTION.KEY=VALUE", help="Set one configuration key; repeatable."
    )(command)
    return click.option(
        "--config",
        envvar="SKERRY_CONFIG",
        type=click.Path(path_type=Path, dir_okay=False),
        help="Configuration file (TOML).  [env: SKERRY_CONFIG]",
    )(command)


def load_settings(file: Path | None, settings: tuple[str, ...], named: Mapping[str, object]) -> configuration.Loaded:
    """Defaults, then the file, then the environment, then the flags.

    Raises:
        UsageError: a ``--set`` has no ``=``.
        ConfigError: a value is wrong; the message names where it came from.
    """
    flags: dict[str, str] = {key: str(value) for key, value in named.items() if value is not None}
    for setting in settings:
        key, equals, value = setting.partition("=")
        if not equals:
            raise UsageError(f"--set {setting} has no value", hint="write --set section.key=value")
        flags[key.strip()] = value
    return configuration.load(file, os.environ, flags)
