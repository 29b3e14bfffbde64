"""What of Python's standard library tells time or throws dice, replaced while a world runs.

Owns: the list of replacements and undoing them.
Must not know: who calls them; production code is given its clock and dice, the libraries under it are not.

A module that was imported while a world ran may have kept a replacement for good: outside of any world they tell the
machine's time.
"""

from __future__ import annotations

import asyncio
import os
import random
import time
import uuid
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, Final

import aiohappyeyeballs.impl
import aiohttp.connector
from aiohttp.client_proto import ResponseHandler

from chaos.sim.handles import NUMBERS, SimTask
from chaos.sim.lives import LIFE
from chaos.sim.streams import SimSocket

BOOT_CLOCKS: Final = frozenset(
    {time.CLOCK_BOOTTIME, time.CLOCK_MONOTONIC, time.CLOCK_MONOTONIC_RAW, getattr(time, "CLOCK_UPTIME_RAW", -1)}
)


def _now_ns() -> int:
    return LIFE.get().clock.now_ns()


def _wall_ns() -> int:
    return LIFE.get().clock.wall_ns()


def _now() -> float:
    return LIFE.get().clock.now_ns() / 1e9


def _wall() -> float:
    return LIFE.get().clock.wall_ns() / 1e9


def _numbered(self: Any) -> int:
    """A hash that repeats, for what libraries keep in sets and iterate."""
    number: int | None = self.__dict__.get("_sim_number")
    if number is None:
        number = self.__dict__["_sim_number"] = NUMBERS.next()
    return number


def _sleep(seconds: float) -> None:
    raise RuntimeError("time.sleep holds up the whole simulated world")


class Patches:
    """Puts the replacements in force; `undo` takes them off.

    Args:
        dice: for the global functions of chance.
    """

    def __init__(self, dice: random.Random) -> None:
        self._dice = dice
        self._undo: list[tuple[Any, str, Any]] = []
        self._state: Any = None
        self._cpu_clock: Callable[[int], int] = time.clock_gettime_ns

    def apply(self) -> None:
        """Put them in force."""
        dice = self._dice
        self._state = random.getstate()
        random.seed(dice.getrandbits(64))
        for name, function in (
            ("time", _wall),
            ("time_ns", _wall_ns),
            ("monotonic", _now),
            ("monotonic_ns", _now_ns),
            ("perf_counter", _now),
            ("perf_counter_ns", _now_ns),
            ("clock_gettime", lambda clock: self._clock_ns(clock) / 1e9),
            ("clock_gettime_ns", self._clock_ns),
            ("sleep", _sleep),
        ):
            self._set(time, name, function)
        self._set(os, "urandom", dice.randbytes)
        self._set(random, "_urandom", dice.randbytes)
        self._set(uuid, "uuid4", self._uuid)
        self._set(uuid, "uuid1", self._uuid)
        self._set(asyncio, "Task", SimTask)  # aiohttp calls it by name on Python 3.12 and later
        self._set(aiohttp.connector, "monotonic", _now)  # the age of names in its cache
        self._set(ResponseHandler, "__hash__", _numbered)  # a connector keeps its connections in a set
        self._set(aiohappyeyeballs.impl, "socket", SimpleNamespace(socket=SimSocket))

    def undo(self) -> None:
        """Take them off, latest first."""
        while self._undo:
            owner, name, original = self._undo.pop()
            setattr(owner, name, original)
        if self._state is not None:
            random.setstate(self._state)
            self._state = None

    def _set(self, owner: Any, name: str, value: Any) -> None:
        self._undo.append((owner, name, getattr(owner, name)))
        setattr(owner, name, value)

    def _clock_ns(self, clock: int) -> int:
        if clock == time.CLOCK_REALTIME:
            return _wall_ns()
        return _now_ns() if clock in BOOT_CLOCKS else self._cpu_clock(clock)

    def _uuid(self, *fields: Any) -> uuid.UUID:
        return uuid.UUID(int=self._dice.getrandbits(128), version=4)
