"""Calls to the replicas' APIs from a machine inside the simulation.

Owns: from a call to the network's client and back.  Must not know: what is asked.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import msgspec

from chaos.scenario.backend import Answer, NotSent, Unanswered
from cluster.network import Client, DialFailed


class SimApi:
    """The APIs of all replicas; satisfies `chaos.scenario.backend.Api`.

    Args:
        client: of the calling process.
        addresses: replica id → ``host:port``.
        token: of the API.
    """

    def __init__(self, client: Client, addresses: Mapping[str, str], token: str) -> None:
        self._client = client
        self._addresses = addresses
        self._headers = {"Authorization": f"Bearer {token}"}
        self._with_body = {**self._headers, "Content-Type": "application/json"}
        self.replicas = tuple(sorted(addresses))

    async def ask(self, replica: str, path: str, *, body: Any = None, timeout_s: float) -> Answer:
        """GET, or POST where there is a body."""
        method = "GET" if body is None else "POST"
        data = None if body is None else msgspec.json.encode(body)
        headers = self._headers if data is None else self._with_body
        try:
            async with asyncio.timeout(timeout_s):
                answer = await self._client.call(self._addresses[replica], method, path, headers=headers, body=data)
            return Answer(answer.status, msgspec.json.decode(answer.body) if answer.body else None)
        except DialFailed:
            raise NotSent("unreachable") from None
        except TimeoutError:
            raise Unanswered("timeout") from None
        except (ConnectionError, msgspec.DecodeError) as error:
            raise Unanswered(type(error).__name__) from None
