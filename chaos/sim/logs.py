"""What simulated processes say to people, kept instead of printed.

Owns: structlog's configuration while a world runs, and putting it back; errors that libraries log.
Must not know: what is said.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, MutableMapping
from typing import Any, Final

import structlog

from chaos.sim.lives import LIFE

LEVELS: Final = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}
SILENT: Final = "silent"
Line = tuple[int, str, str, dict[str, Any]]
"""(true nanoseconds, life, level, event with its fields)."""


class _Errors(logging.Handler):
    """What libraries log as an error is a failure like any other that nobody caught."""

    def __init__(self, fail: Callable[[dict[str, Any]], None]) -> None:
        super().__init__(logging.ERROR)
        self._fail = fail

    def emit(self, record: logging.LogRecord) -> None:
        error = record.exc_info[1] if record.exc_info else None
        self._fail({"message": f"{record.name}: {record.getMessage()}", "exception": error})


class Logs:
    """Keeps what is said at `level` and above; with ``silent``, saying something costs next to nothing."""

    def __init__(self, level: str, now_ns: Callable[[], int], fail: Callable[[dict[str, Any]], None]) -> None:
        self.lines: list[Line] = []
        self._errors = _Errors(fail)
        self._level = level
        self._now_ns = now_ns
        self._before: dict[str, Any] | None = None

    def apply(self) -> None:
        """From now on."""
        logging.root.addHandler(self._errors)
        self._before = structlog.get_config() if structlog.is_configured() else None
        structlog.configure(
            processors=[self._keep],
            wrapper_class=structlog.make_filtering_bound_logger(LEVELS.get(self._level, logging.CRITICAL)),
            context_class=dict,
            logger_factory=structlog.ReturnLoggerFactory(),
            cache_logger_on_first_use=False,
        )

    def undo(self) -> None:
        """As it was before."""
        logging.root.removeHandler(self._errors)
        if self._before is None:
            structlog.reset_defaults()
        else:
            structlog.configure(**self._before)

    def text(self) -> str:
        """All lines, for people."""
        return "\n".join(
            f"{now_ns / 1e9:12.6f} {life:<20} {level:<8} {' '.join(f'{key}={value}' for key, value in event.items())}"
            for now_ns, life, level, event in self.lines
        )

    def _keep(self, logger: Any, method: str, event: MutableMapping[str, Any]) -> Any:
        """structlog's last processor."""
        life = LIFE.get()
        if not life.dead and self._level != SILENT:
            self.lines.append((self._now_ns(), life.name, method, dict(event)))
        raise structlog.DropEvent
