"""Kubernetes quantities: ``250m``, ``0.5``, ``64Mi``, ``1G`` ↔ exact integers.

Owns: the grammar and the rounding rule.  Must not know: jobs or nodes.

Grammar (Kubernetes API reference, "resource quantity"): a decimal number, then one of the
suffixes m, k, M, G, T, P, E (powers of ten) or Ki, Mi, Gi, Ti, Pi, Ei (powers of 1,024), or an
exponent such as ``e3``.  Amounts are computed exactly, never through floats.  What is not a
whole millicore or byte is refused, not rounded: nothing is booked other than what was written.
"""

from __future__ import annotations

import re
from fractions import Fraction
from typing import Final

CPU_MILLICORES_MAX: Final = 1 << 40
MEMORY_BYTES_MAX: Final = 1 << 60
_TEXT_MAX: Final = 32
_EXPONENT_MAX: Final = 18

_WHOLE: Final = re.compile(r"[+-]?[0-9]{1,18}")
_QUANTITY: Final = re.compile(
    r"([0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE]([+-]?[0-9]{1,3})|(m|k|M|G|T|P|E|[KMGTPE]i))?", re.A
)
_SUFFIXES: Final = {
    "": Fraction(1),
    "m": Fraction(1, 1000),
    "k": Fraction(1000),
    "M": Fraction(1000**2),
    "G": Fraction(1000**3),
    "T": Fraction(1000**4),
    "P": Fraction(1000**5),
    "E": Fraction(1000**6),
    "Ki": Fraction(1024),
    "Mi": Fraction(1024**2),
    "Gi": Fraction(1024**3),
    "Ti": Fraction(1024**4),
    "Pi": Fraction(1024**5),
    "Ei": Fraction(1024**6),
}


class UnitError(ValueError):
    """A quantity cannot be used; `hint` says how to write it."""

    def __init__(self, message: str, hint: str) -> None:
        super().__init__(message)
        self.hint = hint


def parse_cpu_millicores(text: str) -> int:
    """CPU as millicores: ``250m`` → 250, ``0.5`` → 500, ``2`` → 2000.

    Raises:
        UnitError: no quantity, not above 0, not a whole number of millicores, or too much.
    """
    hint = "write cores or millicores, such as 2, 0.5 or 250m"
    cores = _number(text, hint)
    return _whole(cores * 1000, text, unit="millicores", most=CPU_MILLICORES_MAX, hint=hint)


def parse_memory_bytes(text: str) -> int:
    """Memory as bytes: ``64Mi`` → 67108864, ``1G`` → 1000000000, ``4096`` → 4096.

    Raises:
        UnitError: no quantity, not above 0, not a whole number of bytes, or too much.
    """
    hint = "write bytes with a suffix, such as 64Mi, 1Gi or 500M"
    amount = _number(text, hint)
    if text.strip().endswith("m"):
        raise UnitError(
            f"{text!r} is in thousandths of a byte", "the suffix m means milli; for megabytes write M or Mi"
        )
    return _whole(amount, text, unit="bytes", most=MEMORY_BYTES_MAX, hint=hint)


def format_cpu(millicores: int) -> str:
    """Shortest spelling: 2000 → ``2``, 250 → ``250m``."""
    return str(millicores // 1000) if millicores % 1000 == 0 else f"{millicores}m"


def format_memory(amount_bytes: int) -> str:
    """Shortest exact spelling with a binary suffix: 67108864 → ``64Mi``, 1000 → ``1000``."""
    for suffix in ("Ei", "Pi", "Ti", "Gi", "Mi", "Ki"):
        size = _SUFFIXES[suffix].numerator
        if amount_bytes and amount_bytes % size == 0:
            return f"{amount_bytes // size}{suffix}"
    return str(amount_bytes)


def _number(text: str, hint: str) -> Fraction:
    if len(text) > _TEXT_MAX:
        raise UnitError(f"a quantity of {len(text)} characters is too long", hint)
    match = _QUANTITY.fullmatch(text)
    if match is None:
        raise UnitError(f"{text!r} is no quantity", hint)
    digits, exponent, suffix = match.groups()
    number = Fraction(digits)
    if exponent is None:
        return number * _SUFFIXES[suffix or ""]
    if abs(int(exponent)) > _EXPONENT_MAX:
        raise UnitError(f"the exponent of {text!r} is out of range", hint)
    return number * Fraction(10) ** int(exponent)


def _whole(amount: Fraction, text: str, *, unit: str, most: int, hint: str) -> int:
    if amount <= 0:
        raise UnitError(f"{text!r} is not above zero", hint)
    if amount.denominator != 1:
        raise UnitError(f"{text!r} is not a whole number of {unit}", hint)
    if amount > most:
        raise UnitError(f"{text!r} is more than {most} {unit}", hint)
    return amount.numerator


def whole_number(text: str) -> int | None:
    """The plain decimal number that `text` is, or None."""
    return int(text) if _WHOLE.fullmatch(text) else None
