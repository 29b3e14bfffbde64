"""The real sandboxer holds the lease by itself: nobody renews, it is stopped, it is replaced."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Callable

import pytest

from agents.sandbox_client import SandboxerRefused
from tests.integration.sandbox_rig import Rig, alive, assignment, until

pytestmark = pytest.mark.root

STUBBORN = ("/bin/sh", "-c", "trap '' TERM; while :; do sleep 0.02; done")
LATE_S = 0.5
"""δ: how late a fence may be."""


def now_ns() -> int:
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


async def test_with_its_agent_gone_stop_workloads_end_by_deadline_and_grace_and_keep_ones_run_on(rig: Rig) -> None:
    deadline_ns = await rig.renew(0.6, 5)
    strict = await rig.client.start(
        assignment("default/strict.0", *STUBBORN, on_disconnect="stop", grace_s=1), registration=5
    )
    keep = await rig.client.start(assignment("default/keep.0", "sleep", "100"))
    await rig.client.close()
    await until(lambda: not alive(strict.pid), "the stop workload is fenced")
    late_s = (now_ns() - deadline_ns) / 1e9 - 1.0
    assert -0.05 <= late_s <= LATE_S
    assert alive(keep.pid)
    await rig.connect()
    ended = (await rig.exited("default/strict.0")).exit
    assert ended is not None
    assert (ended.reason, ended.signal, ended.status_known) == ("lease", 9, True)


async def test_past_the_deadline_or_under_an_older_registration_nothing_starts(rig: Rig) -> None:
    strict = assignment("default/strict.0", "sleep", "100", on_disconnect="stop")
    deadline_ns = await rig.renew(0.2, 5)
    with pytest.raises(SandboxerRefused) as older:
        await rig.client.start(strict, registration=4)
    await until(lambda: now_ns() > deadline_ns, "the lease ran out")
    with pytest.raises(SandboxerRefused) as late:
        await rig.client.start(strict, registration=5)
    assert (older.value.reason, late.value.reason, late.value.retry_may_help) == ("no-lease", "no-lease", True)
    await rig.renew(30.0, 5)
    assert (await rig.client.start(strict, registration=5)).state == "running"


async def test_a_sandboxer_that_was_stopped_over_the_deadline_fences_before_it_takes_a_renewal(rig: Rig) -> None:
    deadline_ns = await rig.renew(0.3, 5)
    sleeper = assignment("default/strict.0", "sleep", "100", on_disconnect="stop")
    strict = await rig.client.start(sleeper, registration=5)
    os.kill(rig.client.hello.pid, signal.SIGSTOP)
    try:
        await until(lambda: now_ns() > deadline_ns, "the lease ran out")
        renewal = asyncio.ensure_future(rig.client.renew(now_ns() + 30_000_000_000, 6))
        await asyncio.sleep(0)  # it is in the socket when the sandboxer goes on
    finally:
        os.kill(rig.client.hello.pid, signal.SIGCONT)
    await renewal
    ended = (await rig.exited("default/strict.0")).exit
    assert ended is not None
    assert ended.reason == "lease"
    assert not alive(strict.pid)


@pytest.mark.parametrize("kind", ["hybrid", "none"])
async def test_a_new_sandboxer_knows_the_lease_of_the_one_before(make_rig: Callable[..., Rig], kind: str) -> None:
    rig = make_rig(kind)
    await rig.connect()
    await rig.renew(30.0, 5)
    await rig.kill_sandboxer()
    await rig.connect()
    strict = assignment("default/strict.0", "sleep", "100", on_disconnect="stop")
    with pytest.raises(SandboxerRefused):
        await rig.client.start(strict, registration=4)
    assert (await rig.client.start(strict, registration=5)).state == "running"
