"""Reading settings from file, environment and flags, and remembering where each came from.

Owns: precedence, origins, and the words of every configuration error.
Must not know: any particular setting (`cluster.settings` lists them).
"""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args, get_origin

import msgspec
from msgspec import Struct

from cluster.errors import ConfigError
from cluster.quantities import CPU_FORM, SIZE_FORM, cpu_millicores, duration, size_bytes
from cluster.settings import SECRET_KEYS, Config, Key, all_keys

__all__ = ["Config", "Key", "Loaded", "Row", "all_keys", "load"]

CONFIG_FILE_BYTES_MAX = 1 << 20
TOKEN_FILE_BYTES_MAX = 4096
DEFAULT_ORIGIN = "default"

_HEADER = re.compile(r"^\s*\[\s*([A-Za-z0-9_.\"'-]+)\s*\]")
_ASSIGNMENT = re.compile(r"^\s*([A-Za-z0-9_.\"'-]+)\s*=")
_UNIT_SUFFIXES = {"_ms": "ms", "_s": "s"}
_QUANTITIES = {"agent.cpu": (cpu_millicores, CPU_FORM), "agent.memory": (size_bytes, SIZE_FORM)}
"""Kept as written once their form is checked; the section turns them into numbers."""
_BOOLEANS = {"true": True, "false": False}


class Row(Struct, frozen=True):
    """One line of ``config show --origin``."""

    key: str
    value: str
    origin: str
    description: str


class Loaded(Struct, frozen=True):
    """A checked configuration; `origins` maps each dotted key that is not a default to where it stands."""

    config: Config
    origins: dict[str, str]

    def origin(self, key: str) -> str:
        """Where a setting came from: ``default``, ``file skerry.toml:12``, ``env SKERRY_…``, ``flag …``."""
        return self.origins.get(key, DEFAULT_ORIGIN)

    def show(self) -> list[Row]:
        """Every setting with its value and origin; secrets as ``***``."""
        return [Row(k.name, _shown(k, self._value(k)), self.origin(k.name), k.description) for k in all_keys().values()]

    def require(self, *names: str) -> None:
        """Raise ConfigError for the first of these settings that is empty."""
        keys = all_keys()
        for name in names:
            key = keys[name]
            if not self._value(key):
                raise ConfigError(
                    f"{name} is not set",
                    hint=f"set it in the file ([{key.section}] {key.field} = …), as {key.environment}, or as a flag; "
                    f"it is the {key.description}",
                    key=name,
                    origin=self.origin(name),
                )

    def _value(self, key: Key) -> Any:
        return getattr(getattr(self.config, key.section), key.field)


def load(
    config_file: Path | None = None,
    environ: Mapping[str, str] | None = None,
    flags: Mapping[str, Any] | None = None,
) -> Loaded:
    """The configuration of this process; raises ConfigError that names the origin and the allowed form.

    Args:
        config_file: a TOML file that must exist, or None.
        environ: usually ``os.environ``.
        flags: dotted key to value (text or typed); None values count as not given.
    """
    keys = all_keys()
    values: dict[str, tuple[Any, str]] = {}
    if config_file is not None:
        values |= _from_file(config_file, keys)
    values |= _from_environment(environ or {}, keys)
    values |= _from_flags(flags or {}, keys)
    sections: dict[str, dict[str, Any]] = {}
    for name, (raw, origin) in values.items():
        key = keys[name]
        sections.setdefault(key.section, {})[key.field] = _checked(key, raw, origin)
    origins = {name: origin for name, (_, origin) in values.items()}
    _read_token_files(sections, origins, keys)
    return Loaded(msgspec.convert(sections, Config), origins)


def _from_file(path: Path, keys: Mapping[str, Key]) -> dict[str, tuple[Any, str]]:
    text = _read_text(path, CONFIG_FILE_BYTES_MAX, "configuration file")
    try:
        tables = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path} is not TOML: {error}", hint="correct the file", origin=f"file {path}") from None
    lines = _key_lines(text)
    found: dict[str, tuple[Any, str]] = {}
    for section, table in tables.items():
        if not isinstance(table, dict):
            origin = f"file {path}:{lines.get(section, 1)}"
            raise _unknown_key(section, {k.section for k in keys.values()}, origin, "section")
        for field, value in table.items():
            name = f"{section}.{field}"
            origin = f"file {path}:{lines.get(name) or lines.get(section) or 1}"
            _known(name, keys, origin)
            found[name] = (value, origin)
    return found


def _from_environment(environ: Mapping[str, str], keys: Mapping[str, Key]) -> dict[str, tuple[Any, str]]:
    by_variable = {key.environment: key for key in keys.values()}
    prefixes = tuple(sorted({f"SKERRY_{key.section.upper()}_" for key in keys.values()}))
    found: dict[str, tuple[Any, str]] = {}
    for variable in sorted(environ):
        if variable in by_variable:
            found[by_variable[variable].name] = (environ[variable], f"env {variable}")
        elif variable.startswith(prefixes):
            raise _unknown_key(variable, by_variable, f"env {variable}", "environment variable")
    return found


def _from_flags(flags: Mapping[str, Any], keys: Mapping[str, Key]) -> dict[str, tuple[Any, str]]:
    found: dict[str, tuple[Any, str]] = {}
    for name, value in flags.items():
        if value is None:
            continue
        _known(name, keys, f"flag {name}")
        found[name] = (value, f"flag {name}")
    return found


def _checked(key: Key, raw: Any, origin: str) -> Any:
    """`raw` as the setting's own type; raises ConfigError."""
    try:
        value = _parsed(key, raw)
        return msgspec.convert(value, key.type)
    except (ValueError, msgspec.ValidationError) as error:
        shown = "***" if key.name in SECRET_KEYS else repr(raw)
        detail = "" if key.name in SECRET_KEYS and not isinstance(error, msgspec.ValidationError) else f": {error}"
        raise ConfigError(
            f"{key.name} = {shown} is not valid{detail}",
            hint=f"{key.name} ({key.description}) takes {_form(key)}; it stands in {origin}",
            key=key.name,
            origin=origin,
        ) from None


def _parsed(key: Key, raw: Any) -> Any:
    """Text from file, environment or flag turned into the shape of the setting; ValueError."""
    kind = _bare(key.type)
    container = get_origin(kind)
    if key.name in _QUANTITIES and raw != "" and isinstance(raw, str | int | float):
        _QUANTITIES[key.name][0](str(raw))
        return str(raw)
    if not isinstance(raw, str):
        return raw
    if kind is int:
        return _integer(key.field, raw)
    if kind is bool:
        return _BOOLEANS.get(raw.strip().lower(), raw)
    if container is dict:
        return _pairs(raw)
    if container is tuple:
        return [item.strip() for item in raw.split(",") if item.strip()]
    return raw


def _integer(field: str, raw: str) -> int:
    for suffix, unit in _UNIT_SUFFIXES.items():
        if field.endswith(suffix):
            return duration(raw, unit)
    if "bytes" in field.split("_"):
        return size_bytes(raw)
    try:
        return int(raw, 10)
    except ValueError:
        raise ValueError("not a whole number") from None


def _pairs(raw: str) -> dict[str, str]:
    """``n1=host:port,n2=host:port`` as a dict."""
    pairs: dict[str, str] = {}
    for item in filter(None, (part.strip() for part in raw.split(","))):
        name, equals, value = item.partition("=")
        if not equals or name.strip() in pairs:
            raise ValueError(f"{item!r} is not name=host:port, or names one twice")
        pairs[name.strip()] = value.strip()
    return pairs


def _form(key: Key) -> str:
    """The allowed form, in words."""
    if key.name in _QUANTITIES:
        return _QUANTITIES[key.name][1]
    kind = _bare(key.type)
    if get_origin(kind) is dict:
        return "n1=host:port,n2=host:port (in the file: a table of names to addresses)"
    if get_origin(kind) is tuple:
        return "a list of host:port addresses (in the environment: separated by commas)"
    if kind is int:
        return _integer_form(key)
    if kind is bool:
        return "true or false"
    if options := get_args(kind):
        return "one of " + ", ".join(map(str, options))
    return key.form or "text"


def _integer_form(key: Key) -> str:
    form = "a whole number"
    for suffix, unit in _UNIT_SUFFIXES.items():
        if key.field.endswith(suffix):
            form = f"a number of {unit} or a duration such as 150ms or 2s"
    if "bytes" in key.field.split("_"):
        form = "a number of bytes or a size such as 64MiB"
    for meta in getattr(key.type, "__metadata__", ()):
        if meta.ge is not None and meta.le is not None:
            form += f", from {meta.ge} to {meta.le}"
    return form


def _bare(annotated: Any) -> Any:
    return annotated.__origin__ if hasattr(annotated, "__metadata__") else annotated


def _known(name: str, keys: Mapping[str, Key], origin: str) -> None:
    if name not in keys:
        raise _unknown_key(name, keys, origin, "setting")


def _unknown_key(name: str, known: Any, origin: str, what: str) -> ConfigError:
    near = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    hint = f"did you mean {near[0]}?" if near else "see `skerry config show` for all settings"
    return ConfigError(f"unknown {what} {name!r} in {origin}", hint=hint, key=name, origin=origin)


def _key_lines(text: str) -> dict[str, int]:
    """Line number of each ``section`` and ``section.key`` of a TOML text, as far as simple scanning tells."""
    lines: dict[str, int] = {}
    section = ""
    for number, line in enumerate(text.splitlines(), 1):
        if header := _HEADER.match(line):
            section = header.group(1).replace('"', "").replace("'", "")
            lines.setdefault(section, number)
        elif assignment := _ASSIGNMENT.match(line):
            name = assignment.group(1).strip("\"'")
            lines.setdefault(f"{section}.{name}" if section else name, number)
    return lines


def _read_token_files(sections: dict[str, dict[str, Any]], origins: dict[str, str], keys: Mapping[str, Key]) -> None:
    security = sections.get("security", {})
    for field in ("link_token", "api_token"):
        path_text = security.get(f"{field}_file")
        if not path_text:
            continue
        origin = origins[f"security.{field}_file"]
        if security.get(field):
            raise ConfigError(
                f"both security.{field} and security.{field}_file are set",
                hint=f"keep one; they stand in {origins[f'security.{field}']} and {origin}",
                origin=origin,
            )
        token = _read_text(Path(path_text), TOKEN_FILE_BYTES_MAX, f"token file of {origin}").strip()
        if not token:
            raise ConfigError(f"the token file {path_text} is empty", hint="write a token into it", origin=origin)
        security[field] = _checked(keys[f"security.{field}"], token, f"file {path_text}")
        origins[f"security.{field}"] = f"file {path_text}"


def _read_text(path: Path, bytes_max: int, what: str) -> str:
    try:
        with path.open("rb") as file:
            data = file.read(bytes_max + 1)
        if len(data) > bytes_max:
            raise ConfigError(
                f"{path} is larger than {bytes_max} bytes", hint=f"is it really a {what}?", origin=str(path)
            )
        return data.decode()
    except UnicodeDecodeError:
        raise ConfigError(f"{path} is not text", hint=f"is it really a {what}?", origin=str(path)) from None
    except OSError as error:
        raise ConfigError(
            f"the {what} {path} cannot be read: {error.strerror}", hint="check path and permissions", origin=str(path)
        ) from None


def _shown(key: Key, value: Any) -> str:
    if key.name in SECRET_KEYS:
        return "***" if value else ""
    if isinstance(value, dict):
        return ",".join(f"{name}={address}" for name, address in value.items())
    if isinstance(value, tuple):
        return ",".join(value)
    return str(value)
