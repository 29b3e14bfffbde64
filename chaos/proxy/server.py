"""The proxy as a process: configuration file, API, trace, signals.

Owns: starting and ending.  Must not know: what is proxied.
"""

from __future__ import annotations

import asyncio
import json
import signal
import tomllib
from pathlib import Path
from typing import Any

import structlog
from aiohttp import web
from msgspec import Struct

from chaos.errors import ProxyConfigInvalid
from chaos.proxy.api import application
from chaos.proxy.registry import Registry
from chaos.proxy.toxic import BadRequest, parse_address
from cluster.clock import SystemClock
from cluster.dice import SystemDice
from cluster.trace import new_incarnation
from cluster.trace_writer import file_tracer

PROXIES_FILE_BYTES_MAX = 4 << 20
SHUTDOWN_S = 2.0


class ProxyConfig(Struct, frozen=True, kw_only=True):
    """How to run the proxy.

    `listen`: ``host:port`` of the API.  `proxies`: a JSON or TOML file, a list of
    ``{name, listen, upstream}`` (in TOML under ``[[proxies]]``).  `trace`: folder of the trace.
    `token`: bearer token asked of every caller; None = none.
    """

    listen: str = "127.0.0.1:8474"
    proxies: Path | None = None
    trace: Path | None = None
    seed: int = 0
    token: str | None = None
    node: str = "proxy"


def load_proxies(path: Path) -> list[dict[str, Any]]:
    """The proxies of a file; raises ProxyConfigInvalid."""
    try:
        if path.stat().st_size > PROXIES_FILE_BYTES_MAX:
            raise ProxyConfigInvalid(f"{path} is larger than {PROXIES_FILE_BYTES_MAX} bytes")
        text = path.read_text(encoding="utf-8")
        found = tomllib.loads(text) if path.suffix == ".toml" else json.loads(text)
    except (OSError, ValueError) as error:
        raise ProxyConfigInvalid(
            f"cannot read the proxies of {path}: {error}", hint="give a JSON or TOML file of proxies"
        ) from None
    if isinstance(found, dict):
        found = found.get("proxies")
    if not isinstance(found, list):
        raise ProxyConfigInvalid(
            f"{path} holds no list of proxies", hint='write [{"name": "n1~n2", "listen": "…", "upstream": "…"}]'
        )
    return found


async def run_proxy(config: ProxyConfig, *, stop: asyncio.Event | None = None) -> int:
    """Serve until `stop` (or SIGINT, SIGTERM); returns the exit code.

    Raises:
        ProxyConfigInvalid: an address is malformed or taken, or the file is wrong.
    """
    log = structlog.get_logger("chaos.proxy")
    stop = stop or _stop_on_signals()
    incarnation = new_incarnation(SystemDice())
    tracer = file_tracer(
        config.node,
        config.trace,
        SystemClock(),
        incarnation=incarnation,
        meta={"backend": "proxy", "seed": config.seed},
    )
    registry = Registry(tracer, seed=config.seed, run_id=incarnation)
    runner = web.AppRunner(
        application(registry, token=config.token),
        access_log=None,
        shutdown_timeout=SHUTDOWN_S,
        lingering_time=SHUTDOWN_S,
    )
    try:
        host, port = _address(config.listen)
        await _populate(registry, config.proxies)
        await runner.setup()
        try:
            await web.TCPSite(runner, host, port).start()
        except OSError as error:
            raise ProxyConfigInvalid(f"cannot listen on {config.listen}: {error}", hint="choose another port") from None
        log.info("chaos proxy serves", listen=config.listen, proxies=len(registry.relays()))
        await stop.wait()
    finally:
        await runner.cleanup()
        await registry.close()
        tracer.close()
    return 0


async def _populate(registry: Registry, path: Path | None) -> None:
    if path is None:
        return
    try:
        await registry.populate(load_proxies(path))
    except (BadRequest, OSError) as error:
        raise ProxyConfigInvalid(f"{path}: {error}", hint="correct the file or free the port") from None


def _address(text: str) -> tuple[str, int]:
    try:
        return parse_address(text, "listen")
    except BadRequest as error:
        raise ProxyConfigInvalid(str(error), hint="give host:port") from None


def _stop_on_signals() -> asyncio.Event:
    stop, loop = asyncio.Event(), asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    return stop


def main_proxy(config: ProxyConfig) -> int:
    """Run the proxy on uvloop until a signal; returns the exit code."""
    import uvloop  # not at the top: reading traces and scenarios needs no event loop

    code: int = uvloop.run(run_proxy(config))
    return code
