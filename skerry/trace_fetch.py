"""Bringing a cluster's trace home through its API.

Owns: which files are asked of whom, resuming, and what a replica may name a file.
Must not know: what the lines mean.

Every replica offers the files of its own trace directory.  A file is asked of the first address that has it; what is in
`out` already is kept and goes on from there, since trace files only grow.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
from msgspec import Struct

from skerry.errors import ApiError, Unreachable

FILE_NAME = re.compile(r"[a-z][a-z0-9-]{0,63}-[0-9a-z]{1,32}(\.[0-9]{1,6})?\.jsonl")
"""What a replica may call a file: it becomes a name in a directory of ours."""
TOTAL_BYTES_MAX = 8 << 30
FILES_AT_ONCE = 4
CONNECT_S = 5.0
SILENCE_S = 30.0
CHUNK_BYTES = 256 << 10


class Fetched(Struct, frozen=True):
    """What a fetch brought: the folder, its files, the bytes that came now, and who did not answer."""

    trace: str
    files: int
    new_bytes: int
    unreachable: tuple[str, ...]


class _File(Struct, frozen=True):
    name: str
    bytes: int


class _Listing(Struct, frozen=True):
    files: tuple[_File, ...]


async def fetch_trace(addresses: Sequence[str], *, token: str, out: Path) -> Fetched:
    """Copy every trace file that the replicas at `addresses` offer into `out`.

    Raises:
        Unreachable: nobody answered, or an answer ended early; what came is kept, ask again.
        ApiError: a replica refused.
    """
    urls = [(address if "://" in address else f"http://{address}").rstrip("/") for address in addresses]
    await asyncio.to_thread(out.mkdir, parents=True, exist_ok=True)
    limits = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_S, sock_read=SILENCE_S)
    async with aiohttp.ClientSession(headers={"Authorization": f"Bearer {token}"}, timeout=limits) as session:
        listings = await asyncio.gather(*(_listing(session, url) for url in urls))
        if all(listing is None for listing in listings):
            raise Unreachable(f"no replica answered at {', '.join(urls)}", hint="check the addresses")
        sources: dict[str, tuple[str, int]] = {}
        for url, listing in zip(urls, listings, strict=True):
            for file in listing.files if listing is not None else ():
                if FILE_NAME.fullmatch(file.name):
                    sources.setdefault(file.name, (url, file.bytes))
        if sum(size for _, size in sources.values()) > TOTAL_BYTES_MAX:
            raise Unreachable(f"the trace is larger than {TOTAL_BYTES_MAX} bytes", hint="copy the directory instead")
        turns = asyncio.Semaphore(FILES_AT_ONCE)
        brought = await asyncio.gather(
            *(_file(session, turns, url, out / name, size) for name, (url, size) in sorted(sources.items()))
        )
    silent = tuple(url for url, listing in zip(urls, listings, strict=True) if listing is None)
    return Fetched(str(out), len(sources), sum(brought), silent)


async def _listing(session: aiohttp.ClientSession, url: str) -> _Listing | None:
    try:
        async with session.get(f"{url}/v1/trace") as answer:
            body = await answer.read()
            if answer.status != 200:
                raise _refused(body, answer.status, url)
            return msgspec.json.decode(body, type=_Listing)
    except (aiohttp.ClientError, OSError, TimeoutError):
        return None


async def _file(session: aiohttp.ClientSession, turns: asyncio.Semaphore, url: str, file: Path, size: int) -> int:
    """Fetch what `file` lacks; returns how many bytes came."""
    have = await asyncio.to_thread(_size, file)
    if have >= size:
        return 0
    came = 0
    async with turns:
        try:
            async with session.get(f"{url}/v1/trace/{file.name}", params={"offset": str(have)}) as answer:
                if answer.status != 200:
                    raise _refused(await answer.read(), answer.status, url)
                with file.open("ab") as stream:
                    async for chunk in answer.content.iter_chunked(CHUNK_BYTES):
                        await asyncio.to_thread(stream.write, chunk)
                        came += len(chunk)
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise Unreachable(
                f"{url} broke off in the middle of {file.name}: {error or type(error).__name__}",
                hint="ask again: the fetch goes on where it ended",
            ) from None
    return came


def _size(file: Path) -> int:
    return file.stat().st_size if file.exists() else 0


def _refused(body: bytes, status: int, url: str) -> ApiError:
    try:
        problem = msgspec.json.decode(body, type=dict[str, Any])
    except msgspec.DecodeError:
        problem = {"detail": f"HTTP {status} from {url}"}
    return ApiError(problem, status)
