"""`absence-stops`: what lives on the node and is in no set is stopped."""

from __future__ import annotations

from scheduler.session import Desired, StopOrder


def stops_of(wanted: Desired, live: tuple[tuple[str, int], ...]) -> dict[tuple[str, int], StopOrder]:
    """In place of `agents.reconcile.stops_of`, which takes stop records alone."""
    stops = {(order.allocation, order.epoch): order for order in wanted.stops}
    named = {(item.allocation, item.epoch) for item in wanted.assignments}
    for key in live:
        if key not in named:
            stops.setdefault(key, StopOrder(key[0], key[1], wanted.index))
    return stops
