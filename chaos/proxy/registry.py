"""All proxies of one server, and the changes of many at once.

Owns: names, limits, atomic populate, reset.  Must not know: HTTP.
"""

from __future__ import annotations

from random import Random
from typing import Any

from chaos.proxy.relay import Emitter, Relay
from chaos.proxy.toxic import (
    BadRequest,
    ProxySpec,
    Toxic,
    check_attributes,
    check_toxicity,
    parse_address,
    parse_proxy,
    parse_toxic,
)

PROXIES_MAX = 4096


class NotFound(LookupError):
    """No proxy or toxic of that name."""


class Exists(ValueError):
    """The name is taken."""


class Registry:
    """Every proxy by name.

    Args:
        emitter: receives `fault` and `heal` events.
        seed: chance of all proxies derives from it and the proxy's name.
        run_id: makes fault ids unique over restarts of the server.
    """

    def __init__(self, emitter: Emitter, *, seed: int | str = 0, run_id: str = "0") -> None:
        self._emitter = emitter
        self._seed = seed
        self._run_id = run_id
        self._relays: dict[str, Relay] = {}

    def relays(self) -> dict[str, Relay]:
        """All, in order of creation."""
        return self._relays

    def get(self, name: str) -> Relay:
        """One proxy; raises NotFound."""
        try:
            return self._relays[name]
        except KeyError:
            raise NotFound("proxy not found") from None

    async def create(self, given: Any) -> Relay:
        """Create and open one proxy; raises BadRequest, Exists or OSError."""
        spec = parse_proxy(given)
        if spec.name in self._relays:
            raise Exists("proxy already exists")
        return await self._create(spec)

    async def _create(self, spec: ProxySpec) -> Relay:
        if len(self._relays) >= PROXIES_MAX:
            raise BadRequest(f"at most {PROXIES_MAX} proxies")
        dice = Random(f"{self._seed}:{spec.name}")  # noqa: S311  repeatable on purpose
        relay = Relay(spec, self._emitter, dice, self._run_id)
        self._relays[spec.name] = relay
        try:
            if spec.enabled:
                await relay.open()
        except BaseException:
            del self._relays[spec.name]
            raise
        return relay

    async def populate(self, given: Any) -> list[Relay]:
        """Create all that are absent or differ; when one fails, none of the new ones stays."""
        if not isinstance(given, list):
            raise BadRequest("populate takes a list of proxies")
        specs = [parse_proxy(each) for each in given]
        if len({spec.name for spec in specs}) != len(specs):
            raise BadRequest("two proxies have one name")
        created: list[str] = []
        result: list[Relay] = []
        try:
            for spec in specs:
                existing = self._relays.get(spec.name)
                if existing is not None and _same(existing.spec, spec):
                    await existing.set_enabled(spec.enabled)
                    result.append(existing)
                    continue
                if existing is not None:
                    await self.delete(spec.name)
                created.append(spec.name)
                result.append(await self._create(spec))
        except BaseException:
            for name in created:
                if name in self._relays:
                    await self.delete(name)
            raise
        return result

    async def update(self, name: str, given: Any) -> Relay:
        """Change listen, upstream (both drop connections) or enabled."""
        relay = self.get(name)
        if not isinstance(given, dict):
            raise BadRequest("a proxy must be an object")
        spec = relay.spec
        wanted = parse_proxy(
            {
                "name": name,
                "listen": given.get("listen") or spec.listen,
                "upstream": given.get("upstream") or spec.upstream,
                "enabled": spec.enabled if given.get("enabled") is None else given["enabled"],
            }
        )
        if not _same(spec, wanted):
            relay.close()
            before = (spec.listen, spec.upstream)
            spec.listen, spec.upstream = wanted.listen, wanted.upstream
            if spec.enabled and wanted.enabled:
                try:
                    await relay.open()
                except OSError:
                    spec.listen, spec.upstream = before
                    await relay.open()
                    raise
        await relay.set_enabled(wanted.enabled)
        return relay

    async def delete(self, name: str) -> None:
        """Close and forget one proxy."""
        relay = self.get(name)
        relay.end_faults()
        relay.close()
        del self._relays[name]
        await relay.drained()

    async def reset(self) -> None:
        """Enable every proxy and remove every toxic."""
        for relay in list(self._relays.values()):
            for toxic in list(relay.toxics):
                relay.remove_toxic(toxic)
            await relay.set_enabled(True)

    async def close(self) -> None:
        """Close every proxy."""
        for name in list(self._relays):
            await self.delete(name)

    # -- toxics ---------------------------------------------------------------------------

    def add_toxic(self, proxy: str, given: Any) -> Toxic:
        """Put a toxic into force; raises NotFound, BadRequest or Exists."""
        relay = self.get(proxy)
        toxic = parse_toxic(given)
        if toxic.name in relay.toxics:
            raise Exists("toxic already exists")
        relay.add_toxic(toxic)
        return toxic

    def get_toxic(self, proxy: str, name: str) -> Toxic:
        """One toxic; raises NotFound."""
        try:
            return self.get(proxy).toxics[name]
        except KeyError:
            raise NotFound("toxic not found") from None

    def update_toxic(self, proxy: str, name: str, given: Any) -> Toxic:
        """Change attributes and toxicity; absent ones stay."""
        toxic = self.get_toxic(proxy, name)
        if not isinstance(given, dict):
            raise BadRequest("a toxic must be an object")
        attributes = check_attributes(toxic.type, given.get("attributes"), toxic.attributes)
        self.get(proxy).update_toxic(toxic, attributes, check_toxicity(given.get("toxicity", toxic.toxicity)))
        return toxic

    def remove_toxic(self, proxy: str, name: str) -> None:
        """Take a toxic out of force; raises NotFound."""
        self.get_toxic(proxy, name)
        self.get(proxy).remove_toxic(name)


def _same(one: ProxySpec, other: ProxySpec) -> bool:
    addresses = [
        (parse_address(each.listen, "listen"), parse_address(each.upstream, "upstream")) for each in (one, other)
    ]
    return addresses[0] == addresses[1]
