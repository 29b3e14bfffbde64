"""What the commands share: options, finding the cluster, printing.

Owns: ``--address``/``--token``/``--dir`` and their environment, ``-o``, tables.
Must not know: any single command.
"""

from __future__ import annotations

import asyncio
import functools
import json
import os
import sys
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click
from msgspec import Struct

from skerry.client import Client
from skerry.dev.detached import facts_of
from skerry.errors import UsageError

DEV_DIRECTORY = "skerry-dev"
T = TypeVar("T")


class Target(Struct, frozen=True):
    """Which cluster a command speaks to, and how it prints."""

    addresses: tuple[str, ...]
    token: str
    output: str
    timeout_s: float
    directory: Path | None

    def client(self) -> Client:
        """A client of this cluster."""
        return Client(self.addresses, token=self.token, timeout_s=self.timeout_s)


def output_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """``-o table|json``."""
    return click.option(
        "-o",
        "--output",
        type=click.Choice(["table", "json"]),
        default="table",
        show_default=True,
        help="Form of output.",
    )(command)


def directory_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """``--dir``, the directory of a `skerry dev` cluster."""
    return click.option(
        "--dir",
        "directory",
        envvar="SKERRY_DIR",
        type=click.Path(path_type=Path, file_okay=False),
        help=f"Directory of a `skerry dev` cluster (default ./{DEV_DIRECTORY}).  [env: SKERRY_DIR]",
    )(command)


def target_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Options of every command that calls the API; the command gets a `target`."""

    @output_option
    @directory_option
    @click.option(
        "--address", envvar="SKERRY_ADDRESS", help="Replica API addresses, comma-separated.  [env: SKERRY_ADDRESS]"
    )
    @click.option(
        "--token", envvar="SKERRY_TOKEN", help="API token.  [env: SKERRY_TOKEN, or SKERRY_TOKEN_FILE names its file]"
    )
    @click.option(
        "--timeout",
        "timeout_s",
        type=click.FloatRange(0.1, 3600),
        default=10.0,
        show_default=True,
        help="Seconds a call may take.",
    )
    @functools.wraps(command)
    def with_target(
        *, address: str | None, token: str | None, output: str, timeout_s: float, directory: Path | None, **rest: Any
    ) -> Any:
        return command(target=find_target(address, token, output, timeout_s, directory), **rest)

    return with_target


def find_target(
    address: str | None, token: str | None, output: str, timeout_s: float, directory: Path | None
) -> Target:
    """The cluster named by flags or environment, else the `skerry dev` cluster of the directory.

    Raises:
        UsageError: nothing says where the cluster is, or no token is known.
    """
    home = directory or Path(DEV_DIRECTORY)
    ready = facts_of(home)
    if address is None and ready is None:
        raise UsageError(
            "no cluster is known",
            hint=f"start one with `skerry dev`, or pass --address (or SKERRY_ADDRESS); there is no {home / 'dev.json'}",
        )
    addresses = tuple(part.strip() for part in address.split(",")) if address else tuple(ready["apis"].values())  # type: ignore[index]
    if token is None:
        token = token_of_environment()
    if token is None:
        if ready is None:
            raise UsageError("no token is known", hint="pass --token, or set SKERRY_TOKEN or SKERRY_TOKEN_FILE")
        token = Path(ready["token_file"]).read_text(encoding="utf-8").strip()
    return Target(addresses, token, output, timeout_s, home if ready else None)


def token_of_environment() -> str | None:
    """The token in the file that SKERRY_TOKEN_FILE names; None when it names none.

    Raises:
        UsageError: the file cannot be read.
    """
    file = os.environ.get("SKERRY_TOKEN_FILE")
    if not file:
        return None
    try:
        return Path(file).read_text(encoding="utf-8").strip()
    except OSError as error:
        raise UsageError(
            f"the token file {file} cannot be read: {error.strerror}", hint="see SKERRY_TOKEN_FILE"
        ) from None


def call(target: Target, ask: Callable[[Client], Awaitable[T]]) -> T:
    """Run one conversation with the cluster to its end."""

    async def conversation() -> T:
        async with target.client() as client:
            return await ask(client)

    return asyncio.run(conversation())


def print_json(value: dict[str, Any]) -> None:
    """One object, with the version of the contract."""
    print(json.dumps({"v": 1, **value}, ensure_ascii=False, default=str))


def print_table(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Aligned columns; plain text, so that it can be piped."""
    cells = [[str(column).upper() for column in columns], *([_cell(value) for value in row] for row in rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(columns))]
    for row in cells:
        print("  ".join(value.ljust(width) for value, width in zip(row, widths, strict=True)).rstrip())


def _cell(value: Any) -> str:
    return "-" if value is None or value == "" else str(value)


def progress(text: str) -> None:
    """One line for people, on standard error."""
    print(text, file=sys.stderr, flush=True)


def exit_words(exit_: dict[str, Any] | None) -> str:
    """An exit as ``0``, ``code 3``, ``signal 9 (oom)`` or ``unknown (lost)``."""
    if not exit_:
        return "-"
    if exit_.get("reason") == "start-failed":
        return f"start-failed: {exit_.get('detail') or 'no reason was reported'}"
    if not exit_.get("status_known"):
        return f"unknown ({exit_.get('reason')})"
    what = f"signal {exit_['signal']}" if exit_.get("signal") else f"code {exit_.get('code')}"
    reason = exit_.get("reason")
    return what if reason in ("exited", "signaled") else f"{what} ({reason})"


def amount(resources: dict[str, Any]) -> str:
    """Resources in words: ``500m CPU, 256 MiB``."""
    return f"{resources.get('cpu_millicores', 0)}m CPU, {resources.get('memory_bytes', 0) / (1 << 20):.0f} MiB"


def empty_folder(path: Path) -> Path:
    """Make the folder a trace is to be written to; a trace that is there already is neither mixed with it nor lost.

    Raises:
        UsageError: it holds a trace, or cannot be written.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
        holds = next(path.glob("*.jsonl"), None)
        writable = os.access(path, os.W_OK)
    except OSError as error:
        raise UsageError(f"cannot write to {path}: {error.strerror or error}", hint="pass another --out") from None
    if not writable:
        raise UsageError(f"cannot write to {path}: not allowed", hint="pass another --out")
    if holds is not None:
        raise UsageError(f"{path} holds a trace already", hint="pass another --out, or remove it first")
    return path
