"""The running cluster, as scenarios see it.

Owns: `DevCluster` and `RemoteCluster`, which satisfy the scenario runner's protocol of a cluster.
Must not know: scenarios.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from skerry.client import Client
from skerry.dev.control import DevControl
from skerry.errors import NoProcessControl, Unreachable, UsageError


class DevCluster(DevControl):
    """Addresses, credentials and process control of one `skerry dev` cluster.

    Args:
        facts: the content of its ``dev.json``.
    """

    chaos_token: str | None = None

    def __init__(self, facts: dict[str, Any]) -> None:
        super().__init__(Path(facts["dir"]))
        self.apis: dict[str, str] = facts["apis"]
        self.chaos_api: str = facts["chaos_api"]
        self.trace = Path(facts["trace"])
        self.token = Path(facts["token_file"]).read_text(encoding="utf-8").strip()

    async def collect_trace(self) -> None:
        """Nothing to do: every process writes into `trace` itself."""


class RemoteCluster:
    """A cluster known by its addresses alone: containers, or other machines.

    Its links can be broken through the chaos proxy; its processes are out of reach.

    Args:
        apis: replica id → base URL; see `find_apis`.
        token: of the API.
        chaos_api: base URL of the chaos proxy.
        chaos_token: of the chaos proxy; None = it asks for none.
        trace: local folder to bring the trace to.
    """

    def __init__(
        self, apis: dict[str, str], *, token: str, chaos_api: str, chaos_token: str | None, trace: Path
    ) -> None:
        self.apis = apis
        self.token = token
        self.chaos_api = chaos_api
        self.chaos_token = chaos_token
        self.trace = trace

    async def collect_trace(self) -> None:
        """Fetch what the processes have written, through the API."""
        from skerry.trace_fetch import fetch_trace

        await fetch_trace(list(self.apis.values()), token=self.token, out=self.trace)

    async def kill(self, name: str) -> None:
        """Refused."""
        raise _no_control(name, "kill")

    async def start(self, name: str) -> None:
        """Refused."""
        raise _no_control(name, "start")

    async def pause(self, name: str) -> None:
        """Refused."""
        raise _no_control(name, "pause")

    async def resume(self, name: str) -> None:
        """Refused."""
        raise _no_control(name, "resume")

    async def pids(self) -> dict[str, int]:
        """Refused: processes elsewhere have no numbers here."""
        raise _no_control("the cluster", "list the processes of")


async def find_apis(addresses: Sequence[str], token: str) -> dict[str, str]:
    """Replica id → base URL, by asking each address who it is.

    Raises:
        Unreachable: an address does not answer.
        UsageError: a replica of the cluster has no address here, or one has two.
    """

    async def ask(address: str) -> tuple[str, str, list[str]]:
        url = (address if "://" in address else f"http://{address}").rstrip("/")
        async with Client([url], token=token, timeout_s=10.0) as client:
            status = await client.status()
        return status["answered_by"], url, [row["id"] for row in status["replicas"]]

    answers = await asyncio.gather(*(ask(address) for address in addresses), return_exceptions=True)
    found: dict[str, str] = {}
    members: set[str] = set()
    for address, answer in zip(addresses, answers, strict=True):
        if isinstance(answer, BaseException):
            if isinstance(answer, Unreachable):
                raise Unreachable(f"{address} does not answer", hint="heal the cluster first; every replica is needed")
            raise answer
        id, url, rows = answer
        found[id] = url
        members.update(rows)
    if missing := sorted(members - set(found)):
        raise UsageError(
            f"no API address is given for {', '.join(missing)}",
            hint="pass the addresses of all replicas, comma-separated: --address or SKERRY_ADDRESS",
        )
    return dict(sorted(found.items()))


def _no_control(name: str, verb: str) -> NoProcessControl:
    return NoProcessControl(
        f"cannot {verb} {name}: only the addresses of this cluster are known, and no way to its processes",
        hint="run the scenario on a `skerry dev` cluster (--dir), or kill the process by hand",
    )
