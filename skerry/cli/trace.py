"""``skerry trace check|explain|fetch``."""

from __future__ import annotations

from pathlib import Path

import click
import msgspec

from skerry.cli.common import Target, output_option, print_json, progress, target_options
from skerry.errors import FAILED, OK, UsageError

REFS_SHOWN = 6


@click.group()
def trace() -> None:
    """Check, explain and view a recorded run (a folder of *.jsonl)."""


@trace.command()
@click.argument("directory", type=click.Path(path_type=Path))
@output_option
def check(directory: Path, output: str) -> int:
    """Judge the trace in DIRECTORY: every invariant by name, with the events that break it.

    Exits 1 when an invariant is violated.  A trace without faults or operations is weak: it proves little.
    """
    from chaos.trace.check import check_directory

    result = check_directory(directory)
    if output == "json":
        print_json(msgspec.to_builtins(result))
        return OK if result.ok else FAILED
    print(f"{result.events} events of {directory}")
    for finding in result.invariants:
        mark = {True: "ok  ", False: "FAIL", None: "n/a "}[finding.ok]
        print(f"{mark} {finding.name}  ({finding.checked} checked)")
        if finding.ok is False:
            print(f"     {finding.detail}")
            print(f"     events: {', '.join(finding.refs[:REFS_SHOWN])}")
    for why in result.weak:
        print(f"weak: {why}")
    print("every invariant that could be checked holds" if result.ok else "NOT ok")
    return OK if result.ok else FAILED


@trace.command()
@click.option(
    "--out", required=True, type=click.Path(path_type=Path, file_okay=False), help="Folder to bring the trace to."
)
@target_options
def fetch(target: Target, out: Path) -> int:
    """Bring the trace of a cluster elsewhere into a folder, through the API of its replicas.

    What the folder holds already is kept, and goes on where it ended.
    """
    import asyncio

    from skerry.trace_fetch import fetch_trace

    found = asyncio.run(fetch_trace(target.addresses, token=target.token, out=out))
    for url in found.unreachable:
        progress(f"{url} does not answer; its files are missing unless another replica has them")
    if target.output == "json":
        print_json(msgspec.to_builtins(found))
    else:
        print(f"{found.trace}: {found.files} files, {found.new_bytes} new bytes")
    return OK if not found.unreachable else FAILED


@trace.command()
@click.argument("directory", type=click.Path(path_type=Path))
@output_option
def explain(directory: Path, output: str) -> int:
    """Tell the story of the trace in DIRECTORY; each sentence names the events it rests on."""
    from chaos.trace.explain import explain_directory

    sentences = explain_directory(directory)
    if output == "json":
        print_json({"sentences": msgspec.to_builtins(sentences)})
        return OK
    for sentence in sentences:
        more = f" +{len(sentence.refs) - REFS_SHOWN}" if len(sentence.refs) > REFS_SHOWN else ""
        print(f"{sentence.text}  [{', '.join(sentence.refs[:REFS_SHOWN])}{more}]")
    if not sentences:
        progress("the trace holds nothing to tell")
    return OK


@trace.command()
@click.argument("directory", type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), required=True, help="The HTML file to write.")
@output_option
def view(directory: Path, out: Path, output: str) -> int:
    """Write the trace in DIRECTORY as one HTML page: lanes, messages, faults, causes, the story.

    The page needs nothing but a browser: no network, no other file.
    """
    from chaos.view.page import view_directory

    try:
        size_bytes = view_directory(directory, out)
    except OSError as error:
        raise UsageError(f"cannot write {out}: {error.strerror or error}", hint="pass another --out") from None
    if output == "json":
        print_json({"path": str(out.absolute()), "bytes": size_bytes})
    else:
        print(f"{out} ({size_bytes / 1000:.0f} kB): open it in a browser")
    return OK
