"""The sandboxer on a pure cgroup v2: in a virtual machine, since this one may have none."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from tests.integration.qemu import machine

BOOT_S_MAX = 110

pytestmark = [pytest.mark.qemu, pytest.mark.timeout(180)]


@pytest.fixture(scope="module")
def booted() -> tuple[dict[str, Any] | None, str]:
    """One boot for all that is asked of it: (the suite's summary, the console)."""
    missing = machine.missing_tools()
    assert not missing, f"apt-get install --no-install-recommends {' '.join(missing)}"
    return machine.boot(BOOT_S_MAX)


def test_the_conformance_suite_passes_on_cgroup_v2(booted: tuple[dict[str, Any] | None, str]) -> None:
    summary, console = booted
    assert summary is not None, console[-4000:]
    assert summary["failed"] == [], console[-8000:]
    assert (summary["kind"], summary["ran"], summary["skipped"]) == ("v2", 10, 0)


def test_in_a_container_on_cgroup_v2_an_agent_gets_limits_once_the_container_is_prepared(
    booted: tuple[dict[str, Any] | None, str],
) -> None:
    _, console = booted
    found = re.search(r"^CONTAINER (.*)$", console, re.MULTILINE)
    assert found is not None, console[-4000:]
    seen = json.loads(found[1])
    assert seen["before"].startswith("refused: "), seen
    assert seen["after"] == "0::/container 25000 100000 50331648 9", seen
    assert (seen["sleeper"], seen["said"]) == ("0::/container", ""), seen
