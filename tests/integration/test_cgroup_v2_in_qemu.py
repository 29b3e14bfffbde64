"""The sandboxer on a pure cgroup v2: in a virtual machine, since this one may have none."""

from __future__ import annotations

import pytest

from tests.integration.qemu import machine

BOOT_S_MAX = 110


@pytest.mark.qemu
@pytest.mark.timeout(180)
def test_the_conformance_suite_passes_on_cgroup_v2() -> None:
    missing = machine.missing_tools()
    assert not missing, f"apt-get install --no-install-recommends {' '.join(missing)}"
    summary, console = machine.boot(BOOT_S_MAX)
    assert summary is not None, console[-4000:]
    assert summary["failed"] == [], console[-8000:]
    assert (summary["kind"], summary["ran"], summary["skipped"]) == ("v2", 9, 0)
