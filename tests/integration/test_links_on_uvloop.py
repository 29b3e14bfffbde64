"""The same links, hostile visitors and HTTP calls on uvloop, the loop that replicas run on.

uvloop's transports differ from asyncio's in what they derive from and in how they abort.
"""

from __future__ import annotations

import asyncio
import inspect

import pytest
import uvloop

from tests.integration import test_http_routes, test_links_delivery, test_links_hostile, test_links_partitions

SLOW = {
    "test_a_cut_of_one_direction_leaves_the_other_open",
    "test_a_long_cut_that_leaves_connections_hanging_heals_at_once",
    "test_requests_into_a_partition_end_as_unknown_and_soon",
}
"""Seconds each; what they prove does not depend on the loop."""

SCENARIOS = [
    function
    for module in (test_links_delivery, test_links_partitions, test_links_hostile, test_http_routes)
    for name, function in sorted(vars(module).items())
    if name.startswith("test_") and name not in SLOW and not inspect.signature(function).parameters
]


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.__name__)
def test_it_holds_on_uvloop_too(scenario):
    async def bounded() -> None:
        async with asyncio.timeout(30):
            await scenario()

    uvloop.run(bounded())
