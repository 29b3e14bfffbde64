"""The transcripts of this folder: the protocol's rules as exchanges with the production core.

``pytest tests/scenarios --rewrite`` writes down what the core says now; read the difference before you commit it.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.stage import Stage
from tests.support.transcripts import check, parse, play

FILES = sorted(Path(__file__).parent.glob("*.txt"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_the_core_says_what_the_transcript_says(path: Path, request: pytest.FixtureRequest) -> None:
    check(path, rewrite=request.config.getoption("--rewrite"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_transcript_says_what_rule_it_shows(path: Path) -> None:
    first = parse(path.read_text())[0].before
    assert first[0].startswith("# ")
    assert any("§" in line or "DESIGN" in line for line in first), "name the section that has the rule"


def test_another_output_fails_and_a_rewrite_repairs_it(tmp_path: Path) -> None:
    path = tmp_path / "one.txt"
    path.write_text("# Nothing.\nmembers 3\nshow n1\n----\nn1 leader\n")
    with pytest.raises(AssertionError, match="says something else"):
        check(path, rewrite=False)
    check(path, rewrite=True)
    assert path.read_text().endswith("----\nn1 follower, term 1, log 1@1 |\n")
    check(path, rewrite=False)


def test_a_mistake_names_its_line() -> None:
    with pytest.raises(AssertionError, match=r"line 4: 'jump n1': Mistake: there is no command 'jump'"):
        play("members 3\n----\n\njump n1\n----\n")


def test_every_command_is_used_somewhere() -> None:
    used = {command.split()[0] for path in FILES for block in parse(path.read_text()) for command in block.commands}
    known = {name.removeprefix("do_").replace("_", "-") for name in vars(Stage) if name.startswith("do_")}
    assert used == known
