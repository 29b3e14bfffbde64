"""Limits of production that some seeds draw small, so that what happens at them happens often.

Owns: which limits, how small, and putting them back.  Must not know: what they limit.

They are constants in production because nobody needs to set them; a simulated cluster never grows to where they
matter.  A module that is listed here reads its limit when it needs it.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from msgspec import Struct

from chaos.sim.swarm.profile import stream


class Knob(Struct, frozen=True):
    """One limit: where it is, and what it may be instead; `always`: in every seed."""

    module: str
    name: str
    values: tuple[int, ...]
    always: bool = False


KNOBS: Final = (
    Knob("scheduler.held_session", "DESIRED_BYTES_MAX", (300, 1_500)),
    Knob("scheduler.lease_keeper", "LOSSES_MAX", (1,)),
    Knob("scheduler.renewals", "CALL_RENEWALS_MAX", (1, 2)),
    Knob("raft.replication", "APPLY_ENTRIES_MAX", (1, 7)),
    # A simulated state never fills a page of production's size, and would be hashed and copied in ones that are empty.
    Knob("scheduler.state.columns", "PAGE_ROWS", (64, 256), always=True),
)
TURNED: Final = 0.3
"""Share of seeds in which a knob is turned, each by itself."""


def drawn(seed: int) -> dict[Knob, int]:
    """The knobs that are turned in this seed, and to what."""
    dice = stream(seed, "knobs")
    chosen = [(knob, dice.random() < TURNED or knob.always, dice.choice(knob.values)) for knob in KNOBS]
    return {knob: value for knob, turned, value in chosen if turned}


@contextmanager
def turned(seed: int) -> Iterator[None]:
    """Turn the seed's knobs, and turn them back at the end."""
    before = []
    try:
        for knob, value in drawn(seed).items():
            module = importlib.import_module(knob.module)
            before.append((module, knob.name, getattr(module, knob.name)))
            setattr(module, knob.name, value)
        yield
    finally:
        for module, name, value in before:
            setattr(module, name, value)
