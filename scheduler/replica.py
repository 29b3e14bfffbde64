"""The replica process: configuration in, exit code out.

Owns: what is checked before anything is made, signals, and how the end is told.
Must not know: the parts of a replica (`scheduler.assembly`).
"""

from __future__ import annotations

import asyncio
import signal
import sys

import structlog
import uvloop

from cluster.config import Loaded
from cluster.errors import ConfigError
from raft.errors import SkerryError
from scheduler.assembly import Replica

EXIT_OK, EXIT_FAILED, EXIT_USAGE, EXIT_BUG = 0, 1, 2, 70
SWITCH_INTERVAL_S = 0.0005
"""How long a thread may hold the interpreter: the log's writer must not delay the event loop."""


def check_config(loaded: Loaded) -> None:
    """Raise ConfigError unless a replica can be made of this configuration."""
    loaded.require("replica.id", "replica.dir", "replica.peers", "security.link_token", "security.api_token")
    mine = loaded.config.replica
    if mine.id not in mine.peers:
        raise ConfigError(
            f"replica.id = {mine.id} is not among replica.peers ({', '.join(sorted(mine.peers))})",
            hint="replica.peers names all initial replicas with their link addresses, this one included",
            key="replica.peers",
            origin=loaded.origin("replica.peers"),
        )


async def run_replica(loaded: Loaded) -> int:
    """Run one replica until SIGTERM, SIGINT or a fatal error; returns the exit code.

    Args:
        loaded: the configuration; logging is set up by the caller.
    """
    log = structlog.get_logger("replica").bind(node=loaded.config.replica.id)
    try:
        check_config(loaded)
        replica = Replica(loaded.config, log)
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, replica.stop, number.name)
        await replica.run()
    except Exception as error:
        return _say(log, first_cause(error))
    log.info("stopped")
    return EXIT_OK


def first_cause(error: BaseException) -> BaseException:
    """The first error of a group that is a `SkerryError`, else its first error; a lone error itself."""
    if not isinstance(error, BaseExceptionGroup):
        return error
    causes = [first_cause(inner) for inner in error.exceptions]
    return next((cause for cause in causes if isinstance(cause, SkerryError)), causes[0])


def _say(log: structlog.stdlib.BoundLogger, error: BaseException) -> int:
    """Tell what ended the replica; returns the exit code."""
    if not isinstance(error, SkerryError):
        log.error("the replica ends on an internal error", exc_info=error)
        return EXIT_BUG
    log.error(error.message, code=error.code, hint=error.hint, **_plain(error.details))
    return EXIT_USAGE if isinstance(error, ConfigError) else EXIT_FAILED


def _plain(details: dict[str, object]) -> dict[str, str]:
    return {f"about_{key}": str(value) for key, value in details.items()}


def main_replica(loaded: Loaded) -> int:
    """Entry of the process: `run_replica` on uvloop; returns the exit code."""
    if not __debug__:
        sys.stderr.write("skerry: assertions are part of its safety: start it without python -O\n")
        return EXIT_USAGE
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(run_replica(loaded))
