"""A headless Chromium, driven over its debugging protocol by aiohttp."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import itertools
import os
import re
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import aiohttp

NAMES = ("chromium", "chromium-browser", "google-chrome")
START_S = 20.0
ANSWER_S = 30.0
LISTENING = re.compile(r"DevTools listening on ws://([^/]+)/")


def find_chromium() -> str | None:
    return next((path for name in NAMES if (path := shutil.which(name))), None)


class Page:
    """One tab.  `requests` are the addresses it asked for, `errors` what its scripts complained about."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket
        self._numbers = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self.requests: list[str] = []
        self.errors: list[str] = []

    async def listen(self) -> None:
        async for frame in self._socket:
            message = frame.json()
            if "id" in message:
                waiting = self._waiting.pop(message["id"], None)
                if waiting is not None and not waiting.done():
                    waiting.set_result(message)
                continue
            method, params = message["method"], message["params"]
            if method == "Network.requestWillBeSent":
                self.requests.append(params["request"]["url"])
            elif method == "Runtime.exceptionThrown":
                details = params["exceptionDetails"]
                self.errors.append(details.get("exception", {}).get("description") or details["text"])
            elif method == "Log.entryAdded" and params["entry"]["level"] == "error":
                self.errors.append(params["entry"]["text"])

    async def ask(self, method: str, **params: Any) -> dict[str, Any]:
        number = next(self._numbers)
        answer: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self._waiting[number] = answer
        await self._socket.send_json({"id": number, "method": method, "params": params})
        message = await asyncio.wait_for(answer, ANSWER_S)
        assert "error" not in message, f"{method}: {message['error']}"
        return message["result"]

    async def run(self, script: str) -> Any:
        """The value of an expression; a promise is waited for."""
        result = await self.ask("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in result, result["exceptionDetails"]
        return result["result"].get("value")

    async def until(self, script: str, limit_s: float = ANSWER_S) -> None:
        """Wait for an expression to become true, asked after every frame of the page."""
        ready = f"""new Promise((done) => {{
          const look = () => {{ let is = false; try {{ is = !!({script}); }} catch {{ /* not yet */ }}
            if (is) done(true); else setTimeout(look, 10); }};
          look(); }})"""
        async with asyncio.timeout(limit_s):
            await self.run(ready)

    async def open(self, address: str) -> None:
        await self.ask("Page.navigate", url=address)
        await self.until("document.documentElement.dataset.ready === 'yes'")

    async def size(self, width: int, height: int) -> None:
        shape = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        await self.ask("Emulation.setDeviceMetricsOverride", **shape)
        await self.settle()

    async def settle(self) -> None:
        """Two frames later everything asked for is drawn."""
        await self.run("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")

    async def key(self, name: str, text: str = "") -> None:
        extra = {"text": text} if text else {}
        await self.ask("Input.dispatchKeyEvent", type="keyDown", key=name, **extra)
        await self.ask("Input.dispatchKeyEvent", type="keyUp", key=name)
        await self.settle()

    async def mouse(self, kind: str, x: float, y: float, **more: Any) -> None:
        await self.ask("Input.dispatchMouseEvent", type=kind, x=x, y=y, **more)

    async def click(self, x: float, y: float) -> None:
        await self.mouse("mouseMoved", x, y)
        await self.mouse("mousePressed", x, y, button="left", buttons=1, clickCount=1)
        await self.mouse("mouseReleased", x, y, button="left", clickCount=1)
        await self.settle()

    async def picture(self, file: Path) -> None:
        shot = await self.ask("Page.captureScreenshot", format="png")
        await asyncio.to_thread(file.write_bytes, base64.b64decode(shot["data"]))


@contextlib.contextmanager
def chromium() -> Iterator[str]:
    """A running browser; yields the base address of its debugging port.  Its processes and files end with the block."""
    program = find_chromium()
    assert program is not None, "no Chromium on this machine"
    with tempfile.TemporaryDirectory(prefix="skerry-", ignore_cleanup_errors=True) as home:  # short: it holds sockets
        arguments = [
            "--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-extensions",
            "--hide-scrollbars", "--disable-dev-shm-usage", "--disable-background-networking", "--no-proxy-server",
            "--disable-component-update", f"--user-data-dir={home}", "--remote-debugging-port=0", "about:blank",
        ]  # fmt: skip
        said = Path(home) / "stderr"
        with said.open("wb") as log:
            process = subprocess.Popen(
                [program, *arguments],
                stdout=subprocess.DEVNULL,
                stderr=log,
                start_new_session=True,
                env=os.environ | {"TMPDIR": home},
            )
        try:
            yield _debugging_address(process, said)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _debugging_address(process: subprocess.Popen[bytes], said: Path) -> str:
    end = time.monotonic() + START_S
    while time.monotonic() < end and process.poll() is None:
        found = LISTENING.search(said.read_text(errors="replace"))
        if found:
            return f"http://{found[1]}"
        time.sleep(0.02)
    raise AssertionError(f"Chromium did not start:\n{said.read_text(errors='replace')[-2000:]}")


@contextlib.asynccontextmanager
async def tab(browser: str, *, width: int = 1440, height: int = 860) -> AsyncIterator[Page]:
    """A new tab of the browser at this address."""
    async with aiohttp.ClientSession() as session:
        async with session.put(f"{browser}/json/new?about:blank") as answer:
            made = await answer.json()
        async with session.ws_connect(made["webSocketDebuggerUrl"], max_msg_size=0) as socket:
            page = Page(socket)
            listening = asyncio.ensure_future(page.listen())
            for domain in ("Page", "Runtime", "Network", "Log"):
                await page.ask(f"{domain}.enable")
            await page.size(width, height)
            try:
                yield page
            finally:
                listening.cancel()
        await session.get(f"{browser}/json/close/{made['id']}")
