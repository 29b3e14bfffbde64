"""The rules by which a new sandboxer judges what it finds, one at a time."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from agents.sandboxer import exit_status, fence
from agents.sandboxer.adoption import Verdict, judged
from agents.sandboxer.birth import WAITING_NAME
from agents.sandboxer.fence import Lease
from agents.sandboxer.journal_file import line_of, parse, torn_bytes
from agents.sandboxer.linux import ProcessStat

STAT = ProcessStat(pid=40, name="web", state="S", parent=1, session=40, start_ticks=700, wait_status=0)
ZOMBIE = replace(STAT, state="Z", wait_status=3 << 8)


@pytest.mark.parametrize(
    ("stat", "ticks", "in_group", "verdict"),
    [
        (None, 700, True, Verdict.GONE),
        (STAT, 700, True, Verdict.OURS),
        (STAT, 701, True, Verdict.GONE),
        (STAT, 700, False, Verdict.GONE),
        (ZOMBIE, 700, False, Verdict.OURS),
        (ZOMBIE, 701, False, Verdict.GONE),
        (replace(STAT, name=WAITING_NAME), 700, True, Verdict.WAITS),
        (replace(ZOMBIE, name=WAITING_NAME), 700, False, Verdict.WAITS),
    ],
)
def test_a_number_is_a_process_only_with_its_start_time_and_its_group(stat, ticks, in_group, verdict) -> None:
    assert judged(stat, ticks, lambda: in_group) is verdict


class Told:
    """A kernel that knows one ended process."""

    def __init__(self, stat: ProcessStat | None, told: int | None, *, root: bool = True, reaped: bool = False) -> None:
        self._stat, self._told, self._root, self._reaped = stat, told, root, reaped

    def stat(self, pid: int) -> ProcessStat | None:
        return self._stat

    def told(self, pidfd: int) -> int | None:
        return self._told

    def sees_zombies(self) -> bool:
        return self._root

    def signal(self, pidfd: int, number: int) -> bool:
        assert number == 0, "asking harms nobody"
        return not self._reaped


@pytest.mark.parametrize(
    ("kernel", "status"),
    [
        (Told(None, 9), 9),
        (Told(ZOMBIE, None), 3 << 8),
        (Told(ZOMBIE, 5 << 8), 5 << 8),
        (Told(ZOMBIE, None, root=False), None),
        (Told(ZOMBIE, None, reaped=True), None),
        (Told(STAT, None), None),
        (Told(None, None), None),
    ],
)
def test_a_strangers_status_is_the_kernels_word_or_its_own_zombies(kernel: Any, status) -> None:
    assert exit_status.of_stranger(kernel, 40, 3) == status


def test_no_status_is_never_a_code() -> None:
    assert not exit_status.decoded(None).known
    assert (exit_status.decoded(3 << 8).code, exit_status.decoded(9).signal) == (3, 9)
    assert exit_status.decoded(0).code == 0


@pytest.mark.parametrize(
    ("on_disconnect", "registration", "now_ns", "may"),
    [
        ("stop", 4, 99, True),
        ("stop", 4, 100, False),
        ("stop", 3, 99, False),
        ("stop", 5, 99, False),
        ("keep", 0, 100, True),
    ],
)
def test_what_may_run_now(on_disconnect, registration, now_ns, may) -> None:
    assert fence.may_run(Lease(100, 4), on_disconnect, registration, now_ns) is may


def test_every_cut_of_a_journal_keeps_whole_records_and_goes_on_behind_them() -> None:
    records = [{"k": "fence", "a": f"default/w.{number}", "e": number} for number in range(3)]
    lines = [line_of(record) for record in records]
    data = b"".join(lines)
    for cut in range(len(data) + 1):
        torn = data[:cut]
        whole = torn[: cut - torn_bytes(torn)]
        kept = parse(whole).records
        assert kept == records[: len(kept)]
        assert whole == b"".join(lines[: len(kept)])
        assert parse(torn).damaged == 0, "a torn end is no damage"
        assert parse(whole + line_of({"k": "boot"})).records == [*kept, {"k": "boot"}]
