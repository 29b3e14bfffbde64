"""A development cluster in the background: start it, wait until it is ready, stop it.

Owns: the supervisor's process as its starter sees it.  Must not know: what the supervisor does.
"""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import select
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from skerry.dev.control import DevControl
from skerry.errors import DevError

LOCK = "dev.lock"
START_S = 120.0
STOP_S = 60.0
POLL_S = 0.1
OTHER_MARKS = ("ready:", "  ", "try:", "{", "error:", "hint:")
"""Beginnings of the supervisor's announcement and of its last words, which are not progress."""


def facts_of(directory: Path) -> dict[str, Any] | None:
    """``dev.json`` of `directory` if a cluster runs there, else None.

    A file that a killed supervisor left behind does not count: the supervisor holds a lock.

    Raises:
        DevError: the file is damaged.
    """
    file = directory / "dev.json"
    try:
        facts: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError) as error:
        raise DevError(f"{file} cannot be read: {error}", hint="is it a `skerry dev` directory?") from None
    return facts if lock_is_held(directory) else None


def lock_is_held(directory: Path) -> bool:
    """Whether a supervisor lives in `directory`."""
    try:
        descriptor = os.open(directory / LOCK, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def start_detached(directory: Path, arguments: Sequence[str], say: Callable[[str], None]) -> dict[str, Any]:
    """Run ``skerry dev`` with `arguments` in the background; returns its facts once it is ready.

    Raises:
        DevError: it runs already, ended, or was not ready in time.
    """
    if facts_of(directory):
        raise DevError(
            f"a cluster runs in {directory} already", hint=f"end it with `skerry dev stop --dir {directory}`"
        )
    (directory / "dev.json").unlink(missing_ok=True)  # of a supervisor that was killed
    directory.parent.mkdir(parents=True, exist_ok=True)
    log_file = directory.parent / f"{directory.name}.log"
    with log_file.open("wb") as log:
        child = subprocess.Popen(  # noqa: S603  # our own interpreter and arguments
            [sys.executable, "-m", "skerry", "dev", "--dir", str(directory), *arguments],
            stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
        )  # fmt: skip
    deadline, shown = time.monotonic() + START_S, 0
    try:
        while time.monotonic() < deadline:
            shown = _show_progress(log_file, shown, say)
            if facts := facts_of(directory):
                return facts
            if child.poll() is not None:
                words = log_file.read_text(encoding="utf-8", errors="replace").strip()
                raise DevError(f"the cluster did not start:\n{words}", hint=f"logs: {directory / 'logs'}")
            time.sleep(POLL_S)
    except KeyboardInterrupt:
        child.terminate()
        child.wait(STOP_S)
        raise
    child.terminate()
    raise DevError(f"the cluster was not ready within {START_S:g} s", hint=f"see {log_file} and {directory / 'logs'}")


def _show_progress(log_file: Path, shown: int, say: Callable[[str], None]) -> int:
    lines = log_file.read_text(encoding="utf-8", errors="replace").splitlines()
    for line in lines[shown:]:
        if not line.startswith(OTHER_MARKS):
            say(line)
    return len(lines)


def stop_detached(directory: Path) -> None:
    """End the cluster of `directory`; returns once its supervisor is gone.

    Raises:
        DevError: none runs there, or it did not end in time.
    """
    facts = facts_of(directory)
    if facts is None:
        raise DevError(f"no cluster runs in {directory}", hint="it has ended, or --dir names another directory")
    pid = facts["supervisor"]
    pidfd = os.pidfd_open(pid)
    try:
        asyncio.run(DevControl(directory).stop())
        ended, _, _ = select.select([pidfd], [], [], STOP_S)
    finally:
        os.close(pidfd)
    if not ended:
        raise DevError(f"the supervisor (pid {pid}) did not end within {STOP_S:g} s", hint="see the logs")
