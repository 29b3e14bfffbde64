"""What every test shares: honest skips.

A test that needs root, cgroups, qemu, a browser or Docker is skipped where these do not exist, with the reason;
with SKERRY_NO_SKIPS=1 (continuous integration) a skip is a failure.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from compose_cluster import why_no_docker

NO_SKIPS = os.environ.get("SKERRY_NO_SKIPS") == "1"


def _why_no_root() -> str:
    if os.geteuid() != 0:
        return "needs root: it makes cgroups and namespaces"
    if not Path("/sys/fs/cgroup").is_dir() or not os.access("/sys/fs/cgroup", os.W_OK):
        return "needs a writable cgroup file system at /sys/fs/cgroup"
    return ""


def _why_no_qemu() -> str:
    missing = [name for name in ("qemu-system-x86_64", "busybox", "cpio") if shutil.which(name) is None]
    return f"needs {', '.join(missing)} to boot a machine with cgroup v2" if missing else ""


def _why_no_browser() -> str:
    return "" if any(map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))) else "needs Chromium"


NEEDS = {"root": _why_no_root, "qemu": _why_no_qemu, "browser": _why_no_browser, "docker": why_no_docker}


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--rewrite", action="store_true", help="write the output of transcripts down as it is now")


def pytest_runtest_setup(item: pytest.Item) -> None:
    for mark, why_not in NEEDS.items():
        if item.get_closest_marker(mark) and (why := why_not()):
            pytest.skip(why)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]):
    report = yield
    if NO_SKIPS and report.skipped and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = f"{item.nodeid} was skipped, which SKERRY_NO_SKIPS=1 forbids: {call.excinfo}"
    return report
