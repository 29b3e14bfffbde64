"""Quantities: exact, and refused when they are not."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scheduler.units import UnitError, format_cpu, format_memory, parse_cpu_millicores, parse_memory_bytes


@pytest.mark.parametrize(
    ("text", "millicores"),
    [
        ("250m", 250),
        ("0.5", 500),
        ("2", 2000),
        ("1.", 1000),
        (".25", 250),
        ("0.001", 1),
        ("1m", 1),
        ("1500m", 1500),
        ("1k", 1_000_000),
        ("2e0", 2000),
        ("5e-1", 500),
        ("1E1", 10_000),
        ("0.1", 100),
        ("1.1", 1100),
    ],
)
def test_cpu_is_read_exactly_as_millicores(text: str, millicores: int) -> None:
    assert parse_cpu_millicores(text) == millicores


@pytest.mark.parametrize(
    ("text", "amount"),
    [
        ("64Mi", 64 << 20),
        ("1Gi", 1 << 30),
        ("500M", 500_000_000),
        ("4096", 4096),
        ("1k", 1000),
        ("1Ki", 1024),
        ("1.5Gi", 3 << 29),
        ("0.5Ki", 512),
        ("1e3", 1000),
        ("12E6", 12_000_000),
        ("1T", 10**12),
        ("1Ti", 1 << 40),
        ("0.1G", 100_000_000),
    ],
)
def test_memory_is_read_exactly_as_bytes(text: str, amount: int) -> None:
    assert parse_memory_bytes(text) == amount


@pytest.mark.parametrize(
    "text",
    ["", " ", "m", "abc", "1.5.2", "-1", "+1", "1 000", "1_000", "0", "0m", "0.0001", "0.5m", "1Mi ", " 1", "1mi", "1K",
     "1e", "1e999", "1e3m", "NaN", "inf", "0x10", "１", "1" * 33, "1e18", "1\n"],
)  # fmt: skip
def test_what_is_no_cpu_amount_is_refused_with_a_hint(text: str) -> None:
    with pytest.raises(UnitError) as caught:
        parse_cpu_millicores(text)
    assert caught.value.hint
    assert str(caught.value)


@pytest.mark.parametrize(
    "text", ["", "Mi", "64MB", "64mb", "64mi", "128m", "1.5", "-1Mi", "0", "0.1Ki", "2Ei", "1e19", "1Mi\n"]
)
def test_what_is_no_memory_amount_is_refused_with_a_hint(text: str) -> None:
    with pytest.raises(UnitError) as caught:
        parse_memory_bytes(text)
    assert caught.value.hint


def test_milli_bytes_are_told_from_megabytes() -> None:
    with pytest.raises(UnitError) as caught:
        parse_memory_bytes("128m")
    assert "megabytes" in caught.value.hint


@settings(deadline=None)
@given(st.integers(1, 1 << 39))
def test_formatted_cpu_reads_back_as_itself(millicores: int) -> None:
    assert parse_cpu_millicores(format_cpu(millicores)) == millicores


@settings(deadline=None)
@given(st.integers(1, 1 << 60))
def test_formatted_memory_reads_back_as_itself(amount: int) -> None:
    assert parse_memory_bytes(format_memory(amount)) == amount


@settings(deadline=None)
@given(st.text(max_size=40))
def test_any_text_is_an_amount_or_a_unit_error(text: str) -> None:
    for parse in (parse_cpu_millicores, parse_memory_bytes):
        with contextlib.suppress(UnitError):
            assert parse(text) > 0
