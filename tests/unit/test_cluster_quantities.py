"""Durations, sizes and CPU as people write them."""

from __future__ import annotations

import pytest

from cluster.quantities import cpu_millicores, duration, size_bytes


@pytest.mark.parametrize(
    ("text", "unit", "value"),
    [
        ("150", "ms", 150),
        ("150ms", "ms", 150),
        ("2s", "ms", 2000),
        ("0.25s", "ms", 250),
        ("5m", "s", 300),
        ("1h", "s", 3600),
    ],
)
def test_durations(text, unit, value):
    assert duration(text, unit) == value


@pytest.mark.parametrize(
    ("text", "value"),
    [("0", 0), ("64Ki", 65536), ("64KiB", 65536), ("1.5MiB", 1572864), ("2GB", 2_000_000_000), (" 7 B", 7)],
)
def test_sizes(text, value):
    assert size_bytes(text) == value


@pytest.mark.parametrize(("text", "value"), [("4", 4000), ("0.5", 500), ("250m", 250), ("1.001", 1001)])
def test_cpu(text, value):
    assert cpu_millicores(text) == value


@pytest.mark.parametrize("text", ["", "-1", "1e3", "one", "1..2", "0x10", "1 2", "٣", "1q", "0.0001"])
def test_what_is_no_quantity_is_refused_with_the_form(text):
    for parse, form in ((lambda t: duration(t, "ms"), "150ms"), (size_bytes, "64MiB"), (cpu_millicores, "500m")):
        with pytest.raises(ValueError, match=form):
            parse(text)
