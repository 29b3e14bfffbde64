"""Durations, sizes and amounts of CPU as people write them.

Owns: the forms a setting may take.  Must not know: which settings exist.
"""

from __future__ import annotations

import re

_NUMBER = re.compile(r"^([0-9]+(?:\.[0-9]+)?)\s*([A-Za-z]*)$")

_DURATION_NS = {"ns": 1, "us": 10**3, "ms": 10**6, "s": 10**9, "m": 60 * 10**9, "min": 60 * 10**9, "h": 3600 * 10**9}
_SIZE_BYTES = {
    "": 1,
    "B": 1,
    "k": 10**3,
    "kB": 10**3,
    "M": 10**6,
    "MB": 10**6,
    "G": 10**9,
    "GB": 10**9,
    "T": 10**12,
    "TB": 10**12,
    "Ki": 1 << 10,
    "KiB": 1 << 10,
    "Mi": 1 << 20,
    "MiB": 1 << 20,
    "Gi": 1 << 30,
    "GiB": 1 << 30,
    "Ti": 1 << 40,
    "TiB": 1 << 40,
}
_CPU_MILLI = {"": 1000, "m": 1}

DURATION_FORM = "a duration such as 150ms, 2s or 5m"
SIZE_FORM = "a size such as 65536, 64MiB or 1GiB"
CPU_FORM = "an amount of CPU such as 4, 0.5 or 500m"


def duration(text: str, unit: str) -> int:
    """`text` in whole `unit`s ("ms", "s" …); a bare number is taken in that unit.  ValueError otherwise."""
    number, suffix = _split(text, DURATION_FORM)
    scale = _DURATION_NS.get(suffix or unit)
    if scale is None:
        raise ValueError(f"unknown unit {suffix!r}; write {DURATION_FORM}")
    return _whole(number, scale, _DURATION_NS[unit], text, DURATION_FORM)


def size_bytes(text: str) -> int:
    """`text` in bytes; ValueError otherwise."""
    number, suffix = _split(text, SIZE_FORM)
    scale = _SIZE_BYTES.get(suffix)
    if scale is None:
        raise ValueError(f"unknown unit {suffix!r}; write {SIZE_FORM}")
    return _whole(number, scale, 1, text, SIZE_FORM)


def cpu_millicores(text: str) -> int:
    """`text` in thousandths of a CPU; ValueError otherwise."""
    number, suffix = _split(text, CPU_FORM)
    scale = _CPU_MILLI.get(suffix)
    if scale is None:
        raise ValueError(f"unknown unit {suffix!r}; write {CPU_FORM}")
    return _whole(number, scale, 1, text, CPU_FORM)


def _split(text: str, form: str) -> tuple[str, str]:
    match = _NUMBER.match(text.strip())
    if match is None:
        raise ValueError(f"{text!r} is not {form}")
    return match.group(1), match.group(2)


def _whole(number: str, scale: int, unit: int, text: str, form: str) -> int:
    """`number`·`scale` in `unit`s, exactly: half a byte or a tenth of a millisecond is refused."""
    whole, _, fraction = number.partition(".")
    numerator = int(whole + fraction) * scale
    denominator = int(10 ** len(fraction)) * unit
    if numerator % denominator:
        raise ValueError(f"{text!r} is finer than this setting's unit; write {form}")
    return numerator // denominator
