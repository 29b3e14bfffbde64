"""Taints and labels as people write them: ``key=value:Effect`` and ``key=value``.

Owns: reading and spelling them.  Must not know: nodes, or what a taint does.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from scheduler.model import LABEL_KEY_PATTERN, LABEL_VALUE_PATTERN, Taint, TaintEffect
from scheduler.units import UnitError

_KEY: Final = re.compile(LABEL_KEY_PATTERN)
_VALUE: Final = re.compile(LABEL_VALUE_PATTERN)


def parse_taint(text: str) -> Taint:
    """``key=value:Effect`` or ``key:Effect``; raises UnitError for anything else."""
    mark, colon, effect = text.rpartition(":")
    if not colon or effect not in tuple(TaintEffect):
        raise UnitError(f"{text[:80]!r} is no taint", hint=f"write key=value:EFFECT, one of {', '.join(TaintEffect)}")
    key, value = _parts(mark)
    return Taint(key, value, TaintEffect(effect))


def parse_label(text: str) -> tuple[str, str]:
    """``key=value``; raises UnitError for anything else."""
    if "=" not in text:
        raise UnitError(f"{text[:80]!r} is no label", hint="write key=value, or key- to take it back")
    return _parts(text)


def check_labels(labels: Mapping[str, str]) -> None:
    """Raise UnitError unless all of these are labels."""
    for key, value in labels.items():
        _parts(f"{key}={value}")


def spelled(taint: Taint) -> str:
    """As Kubernetes writes it: ``key=value:Effect``, without the sign when there is no value."""
    return f"{taint.key}={taint.value}:{taint.effect}" if taint.value else f"{taint.key}:{taint.effect}"


def _parts(text: str) -> tuple[str, str]:
    key, _, value = text.partition("=")
    if not _KEY.fullmatch(key):
        raise UnitError(f"{key[:80]!r} is no label key", hint="use letters, digits, - _ . and perhaps example.org/")
    if not _VALUE.fullmatch(value):
        raise UnitError(f"{value[:80]!r} is no label value", hint="use at most 63 letters, digits, - _ .")
    return key, value
