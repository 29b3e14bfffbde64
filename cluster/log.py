"""The log for people: structlog to standard error, console or JSON.

Owns: format, level and what never appears in it.  Must not know: the trace.
"""

from __future__ import annotations

import logging
import sys
from typing import Any, TextIO

import structlog

LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40}
_SECRETS = ("token", "authorization", "password", "secret", "cookie")


def configure(*, level: str = "info", form: str = "console", node: str = "", stream: TextIO | None = None) -> None:
    """Set up logging for this process, once, before anything is logged.

    Args:
        level: least severe shown: debug, info, warning, error.
        form: ``console`` for people, ``json`` for machines.
        node: bound to every line.
        stream: standard error unless given; standard output belongs to results.
    """
    target = stream or sys.stderr
    processors: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _redact,
    ]
    if form == "json":
        processors += [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
    else:
        # Plain tracebacks: the pretty ones print local variables, and those can hold secrets.
        renderer = structlog.dev.ConsoleRenderer(
            colors=target.isatty(), exception_formatter=structlog.dev.plain_traceback
        )
        processors.append(renderer)
    structlog.configure(
        processors=processors,
        wrapper_class=structlog.make_filtering_bound_logger(LEVELS[level]),
        logger_factory=structlog.WriteLoggerFactory(file=target),
        cache_logger_on_first_use=False,
    )
    structlog.contextvars.clear_contextvars()
    if node:
        structlog.contextvars.bind_contextvars(node=node)
    _configure_standard_library(target)


def _configure_standard_library(target: TextIO) -> None:
    """Warnings of asyncio and aiohttp go to the same place."""
    root = logging.getLogger()
    for handler in list(root.handlers):
        root.removeHandler(handler)
    handler = logging.StreamHandler(target)
    handler.setFormatter(logging.Formatter("%(asctime)s [%(levelname)s] %(name)s: %(message)s"))
    root.addHandler(handler)
    root.setLevel(logging.WARNING)
    # A request line that is not HTTP is the sender's fault, answered 400 and worth no traceback here.
    logging.getLogger("aiohttp.server").setLevel(logging.CRITICAL)


def _redact(logger: Any, method: str, event: Any) -> Any:
    """Replace the value of every key that names a secret."""
    for key in event:
        if any(word in key.lower() for word in _SECRETS) and isinstance(event[key], str):
            event[key] = "***"
    return event
