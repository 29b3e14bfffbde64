"""Which row of a table a path belongs to.

Owns: templates with parameters, and percent-decoding.  Must not know: what is behind a row.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Generic, TypeVar
from urllib.parse import unquote

from msgspec import Struct

Row = TypeVar("Row")


class Found(Struct, Generic[Row], frozen=True):
    """A template that a path fits: its rows by method, and the values of its parameters."""

    path: str
    by_method: Mapping[str, Row]
    parameters: dict[str, str]


class Paths(Generic[Row]):
    """Templates such as ``/v1/jobs/{namespace}/{name}``; a parameter stands for one whole segment.

    Of templates that both fit, the one that was added first counts.
    """

    def __init__(self) -> None:
        self._rows: dict[str, dict[str, Row]] = {}
        self._by_length: dict[int, list[tuple[str, list[str]]]] = {}

    def add(self, path: str, method: str, row: Row) -> None:
        """Add a row; one row a path and method."""
        rows = self._rows.get(path)
        if rows is None:
            rows = self._rows[path] = {}
            segments = path.split("/")
            self._by_length.setdefault(len(segments), []).append((path, segments))
        assert method not in rows, f"{method} {path} is in the table twice"
        rows[method] = row

    def find(self, path: str) -> Found[Row] | None:
        """The rows for a percent-encoded path, if any."""
        segments = [unquote(segment) for segment in path.split("/")]
        for template, wanted in self._by_length.get(len(segments), ()):
            parameters = _fit(wanted, segments)
            if parameters is not None:
                return Found(template, self._rows[template], parameters)
        return None


def _fit(wanted: list[str], segments: list[str]) -> dict[str, str] | None:
    """The values of the parameters in `wanted`, or None when `segments` do not fit."""
    parameters: dict[str, str] = {}
    for pattern, segment in zip(wanted, segments, strict=True):
        if pattern.startswith("{"):
            if not segment:
                return None
            parameters[pattern[1:-1]] = segment
        elif pattern != segment:
            return None
    return parameters
