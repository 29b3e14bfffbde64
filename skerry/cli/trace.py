"""``skerry trace check|explain``."""

from __future__ import annotations

from pathlib import Path

import click
import msgspec

from skerry.cli.common import output_option, print_json, progress
from skerry.errors import FAILED, OK

REFS_SHOWN = 6


@click.group()
def trace() -> None:
    """Check and explain a recorded run (a folder of *.jsonl)."""


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
