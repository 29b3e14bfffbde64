"""A sandboxer with one function replaced, ``dying_sandboxer.py STEP`` and its usual arguments.

It kills itself at that step, or (`kernel-cannot-tell`) runs on a kernel without PIDFD_INFO_EXIT.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from typing import Any

from agents.sandboxer import __main__ as sandboxer
from agents.sandboxer import events, exit_status, launcher, process, runtime


def die(*_: Any, **__: Any) -> Any:
    os.kill(os.getpid(), signal.SIGKILL)


def after(function: Callable[..., Any]) -> Callable[..., Any]:
    def called(*arguments: Any, **named: Any) -> Any:
        function(*arguments, **named)
        return die()

    return called


def on_event(kind: type) -> Callable[..., Any]:
    dispatch = runtime.Runtime.dispatch

    def called(self: runtime.Runtime, event: events.Event) -> None:
        if isinstance(event, kind):
            die()
        dispatch(self, event)

    return called


def arm(step: str) -> None:
    """Replace one production function."""
    if step == "intent-durable":
        runtime.Runtime._spawn = die  # type: ignore[method-assign]
    elif step == "group-made":
        launcher.Launcher._plan = die  # type: ignore[method-assign]
    elif step == "forked":
        launcher.Launcher._record = die  # type: ignore[method-assign]
    elif step == "recorded":
        process.Child.go = die  # type: ignore[method-assign]
    elif step == "executed":
        runtime.Runtime.dispatch = on_event(events.Executed)  # type: ignore[method-assign]
    elif step == "exit-seen":
        runtime.Runtime.dispatch = on_event(events.MainExited)  # type: ignore[method-assign]
    elif step == "exit-durable":
        runtime.Runtime._release = die  # type: ignore[method-assign]
    elif step == "stop-ordered":
        runtime.Runtime._terminate = die  # type: ignore[method-assign]
    elif step == "kernel-cannot-tell":
        exit_status.of_stranger = lambda *_: None
        runtime.FOREIGN_STATUS_S_MAX = 0.2  # type: ignore[misc]
    else:
        raise SystemExit(f"no step {step!r}")


if __name__ == "__main__":
    arm(sys.argv[1])
    sys.exit(sandboxer.main(sys.argv[2:]))
