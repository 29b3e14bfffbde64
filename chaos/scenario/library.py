"""The scenarios that come with Skerry, and files of users.

Owns: where scenario files are.  Must not know: what they mean.
"""

from __future__ import annotations

from importlib import resources
from pathlib import Path

from chaos.errors import ScenarioInvalid
from chaos.scenario.model import Scenario, parse_scenario

_SUFFIX = ".toml"


def scenarios() -> list[Scenario]:
    """All built-in scenarios, by name."""
    found = [
        entry for entry in resources.files("chaos").joinpath("scenarios").iterdir() if entry.name.endswith(_SUFFIX)
    ]
    return [
        parse_scenario(entry.read_text(encoding="utf-8"), entry.name)
        for entry in sorted(found, key=lambda entry: entry.name.removesuffix(_SUFFIX))
    ]


def load_scenario(name_or_path: str) -> Scenario:
    """A built-in scenario by name, or one from a TOML file.

    Raises:
        ScenarioInvalid: no such scenario, or the file is wrong.
    """
    if name_or_path.endswith(_SUFFIX) or "/" in name_or_path:
        try:
            text = Path(name_or_path).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ScenarioInvalid(f"cannot read {name_or_path}: {error}", hint="give a TOML file") from None
        return parse_scenario(text, name_or_path)
    known = {scenario.name: scenario for scenario in scenarios()}
    if name_or_path not in known:
        raise ScenarioInvalid(f"there is no scenario {name_or_path!r}", hint=f"there are: {', '.join(known)}")
    return known[name_or_path]
