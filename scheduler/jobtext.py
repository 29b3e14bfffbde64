"""The text of a job file: TOML, YAML or JSON → plain mappings, lists and scalars.

Owns: which format a file is in, its size, and what no job file may contain in any format:
keys written twice, YAML aliases and tags, NUL characters, nesting without end.
Must not know: what a job is.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Callable
from typing import Any, Final

import yaml

from scheduler.errors import JobFileError
from scheduler.model import JOB_FILE_BYTES_MAX

FORMATS: Final = ("toml", "yaml", "json")
_ENDINGS: Final = {".toml": "toml", ".yaml": "yaml", ".yml": "yaml", ".json": "json"}
DEPTH_MAX: Final = 32
_PLAIN: Final = ("null", "bool", "int", "float", "str", "seq")
"""YAML types that are read besides mappings: what TOML and JSON have too."""


def parse_text(text: str | bytes, *, name: str | None = None, format: str | None = None) -> dict[str, Any]:
    """The mapping that a job file holds.

    Args:
        text: the file, at most `JOB_FILE_BYTES_MAX` bytes of UTF-8.
        name: file name, whose ending tells the format.
        format: ``toml``, ``yaml`` or ``json``; goes before the name.

    Raises:
        JobFileError: unknown format, too long, not of the format, or no mapping.
    """
    chosen = _format(name, format)
    plain = _decoded(text)
    loaders: dict[str, Callable[[str], Any]] = {"toml": tomllib.loads, "yaml": _load_yaml, "json": _load_json}
    try:
        loaded = loaders[chosen](plain)
    except JobFileError:
        raise
    except RecursionError:
        raise _too_deep("") from None
    except (ValueError, yaml.YAMLError) as error:
        raise JobFileError(
            f"this is no {chosen.upper()}: {_one_line(error)}",
            hint=f"mend the {chosen.upper()}, or give the file the ending of what it is: {', '.join(_ENDINGS)}",
            field="",
        ) from None
    if not isinstance(loaded, dict):
        raise JobFileError(
            f"a job file holds fields with values, this one holds {_kind(loaded)}",
            hint="begin with: name: my-job",
            field="",
        )
    check_plain(loaded)
    return loaded


def check_plain(value: object, path: str = "", depth: int = 0) -> None:
    """Refuse what no format should carry: keys that are no text, NUL characters, deep nesting.

    Raises:
        JobFileError: names the path of the first offence.
    """
    if depth > DEPTH_MAX:
        raise _too_deep(path)
    if isinstance(value, str):
        _check_text(value, path)
    elif isinstance(value, dict):
        for key, inner in value.items():
            if not isinstance(key, str):
                raise JobFileError(f"the key {key!r} is no text", hint=f'write it in quotes: "{key}"', field=path)
            _check_text(key, path)
            check_plain(inner, f"{path}.{key}" if path else key, depth + 1)
    elif isinstance(value, list | tuple):
        for position, inner in enumerate(value):
            check_plain(inner, f"{path}[{position}]", depth + 1)


def _check_text(text: str, path: str) -> None:
    if "\0" in text:
        raise JobFileError("a NUL character cannot be passed to a program", hint="remove it", field=path)
    try:
        text.encode()
    except UnicodeEncodeError:
        raise JobFileError("half of a surrogate pair is no character", hint="write valid Unicode", field=path) from None


def _format(name: str | None, format: str | None) -> str:
    if format is not None:
        if format.lower() in FORMATS:
            return format.lower()
        raise JobFileError(f"{format!r} is no format of job files", hint=f"use one of: {', '.join(FORMATS)}", field="")
    for ending, known in _ENDINGS.items():
        if name is not None and name.lower().endswith(ending):
            return known
    raise JobFileError(
        "the format of the job file is not known" if name is None else f"the ending of {name!r} names no known format",
        hint=f"use one of {', '.join(_ENDINGS)}, or name the format",
        field="",
    )


def _decoded(text: str | bytes) -> str:
    size = len(text.encode("utf-8", "surrogatepass")) if isinstance(text, str) else len(text)
    if size > JOB_FILE_BYTES_MAX:
        raise JobFileError(
            f"the job file has {size} bytes, more than {JOB_FILE_BYTES_MAX}",
            hint="keep data out of the job file; let the command read it from elsewhere",
            field="",
        )
    if isinstance(text, str):
        return text
    try:
        return text.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise JobFileError(
            f"the job file is not UTF-8 at byte {error.start}", hint="save it as UTF-8", field=""
        ) from None


def _load_json(text: str) -> Any:
    return json.loads(text, object_pairs_hook=_pairs, parse_constant=_refuse_constant)


def _pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise _twice(key)
        found[key] = value
    return found


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON number")


class _Loader(yaml.SafeLoader):
    """Safe YAML without aliases, merges and repeated keys; dates and octals stay text."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        """Refuse aliases where they are met, before anything is expanded."""
        if self.check_event(yaml.AliasEvent):
            event = self.get_event()  # type: ignore[no-untyped-call]
            raise JobFileError(
                f"line {event.start_mark.line + 1} uses a YAML alias",
                hint="write the value out; aliases are not read, because a few of them can expand without end",
                field="",
            )
        return super().compose_node(parent, index)


def _mapping(loader: _Loader, node: yaml.MappingNode) -> dict[Any, Any]:
    found: dict[Any, Any] = {}
    for key_node, value_node in node.value:
        key = loader.construct_object(key_node, deep=True)
        if not isinstance(key, str):
            raise JobFileError(
                f"line {key_node.start_mark.line + 1}: the key {_shown(key)} is no text",
                hint="put keys in quotes",
                field="",
            )
        if key in found:
            raise _twice(key)
        found[key] = loader.construct_object(value_node, deep=True)
    return found


_Loader.yaml_constructors = {
    **{f"tag:yaml.org,2002:{plain}": getattr(yaml.SafeLoader, f"construct_yaml_{plain}") for plain in _PLAIN},
    "tag:yaml.org,2002:map": _mapping,
    None: yaml.SafeLoader.construct_undefined,
}
_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def _load_yaml(text: str) -> Any:
    loader = _Loader(text)
    try:
        return loader.get_single_data()
    except yaml.constructor.ConstructorError as error:
        line = error.problem_mark.line + 1 if error.problem_mark is not None else 0
        raise JobFileError(
            f"line {line} of this YAML uses a tag or a merge, or a value that cannot be read: {_one_line(error)[:120]}",
            hint="write plain values; tags (!…) and merges (<<) are not read",
            field="",
        ) from None
    finally:
        loader.dispose()


def _twice(key: str) -> JobFileError:
    return JobFileError(f"the key {_shown(key)} is written twice", hint="keep one of the two", field=key)


def _too_deep(path: str) -> JobFileError:
    return JobFileError(
        f"values are nested deeper than {DEPTH_MAX}", hint="no field of a job needs that", field=path[:100]
    )


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]


def _shown(value: object) -> str:
    return repr(value)[:60]


def _kind(value: object) -> str:
    if value is None:
        return "nothing"
    return "a list" if isinstance(value, list) else "a single value"
