"""Transcripts: commands, `----`, the exact output, a blank line; `#` begins a comment.

Owns: the form of the files, and rewriting them.  Must not know: what a command does (stage).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from tests.support.stage import Mistake, Stage

_RULE = "----"


@dataclass
class Block:
    """One exchange: the lines before the rule, and what must follow it."""

    line: int
    before: list[str] = field(default_factory=list)
    output: list[str] = field(default_factory=list)

    @property
    def commands(self) -> list[str]:
        return [line for line in self.before if line and not line.startswith("#")]


def parse(text: str) -> list[Block]:
    """The blocks of a transcript; the last may be comments alone."""
    blocks, block, in_output = [], Block(1), False
    for number, line in enumerate(text.splitlines(), 1):
        if in_output:
            if line == _RULE:
                raise AssertionError(f"line {number}: a blank line must end the output before the next command")
            if line:
                block.output.append(line)
                continue
            blocks.append(block)
            block, in_output = Block(number + 1), False
        elif line == _RULE:
            in_output = True
        else:
            block.before.append(line)
    if in_output or block.before:
        blocks.append(block)
    return blocks


def play(text: str) -> str:
    """The transcript with the output that its commands have now."""
    stage, told = Stage(), []
    for block in parse(text):
        told += block.before
        if not block.commands:
            continue
        told.append(_RULE)
        for command in block.commands:
            try:
                told += stage.do(command)
            except (Mistake, TypeError, KeyError, IndexError, AssertionError) as error:
                raise AssertionError(f"line {block.line}: {command!r}: {type(error).__name__}: {error}") from error
        told.append("")
    return "\n".join(told).rstrip("\n") + "\n"


def check(path: Path, *, rewrite: bool) -> None:
    """Compare a file with what its commands say now, or write that down."""
    text = path.read_text()
    played = play(text)
    if rewrite and played != text:
        path.write_text(played)
        return
    assert played.splitlines() == text.splitlines(), (
        f"{path.name} says something else; --rewrite accepts what is said now"
    )
