"""What simulated workloads do: how long they run, how they end, how they take SIGTERM.

Owns: the meaning of a command line, and what is drawn where it says nothing.
Must not know: processes, time, or who starts them.

``/bin/sim-run MS|forever CODE [WORD…]`` is the program made for simulated runs; words fix what would be drawn:
``obeys``, ``dies`` and ``ignores`` (SIGTERM), ``forks``, ``alone`` (no child left behind), ``oom``, ``lean`` (no OOM),
``quiet`` (writes nothing outside).  ``sleep``, ``true`` and ``false`` mean what they say; any other program runs until
it is told to end, and ``/bin/sim-missing`` is none.
"""

from __future__ import annotations

from random import Random
from typing import Final

from msgspec import Struct

MS_NS: Final = 1_000_000
RUN: Final = "/bin/sim-run"
MISSING: Final = "/bin/sim-missing"
OBEYS, DIES, IGNORES = "obeys", "dies", "ignores"
FOREVER_NS: Final = 1 << 62
EFFECT_EVERY_MS: Final = 2_000


class Program(Struct, frozen=True):
    """One run of a program.  Times in nanoseconds of its machine."""

    runs_ns: int
    code: int
    term: str = DIES
    """What SIGTERM does: `OBEYS` (it ends with code 0 after `term_ns`), `DIES` (at once, by it), `IGNORES`."""
    term_ns: int = 0
    helpers: int = 0
    """Processes it leaves behind in its group."""
    oom_ns: int = FOREVER_NS
    """When it has taken more memory than it may."""
    effect_ns: int = 0
    """It writes to the store at its start and every so often; 0 = never."""


def program_of(command: tuple[str, ...], dice: Random) -> Program | None:
    """What `command` will do; None if there is no such program."""
    name = command[0].rpartition("/")[2]
    if command[0] == MISSING:
        return None
    if command[0] == RUN:
        return _drawn(command, dice)
    if name in ("true", "false"):
        return Program(MS_NS, 0 if name == "true" else 1)
    if name == "sleep" and len(command) == 2 and command[1].replace(".", "", 1).isdigit():
        return Program(int(float(command[1]) * 1000) * MS_NS, 0)
    return Program(FOREVER_NS, 0)


def _drawn(command: tuple[str, ...], dice: Random) -> Program:
    runs, code, *words = (*command[1:], "0") if len(command) == 2 else command[1:]
    runs_ns = FOREVER_NS if runs == "forever" else int(runs) * MS_NS
    term = dice.choice((OBEYS, OBEYS, OBEYS, OBEYS, DIES, IGNORES))
    term_ns = dice.choice((0, dice.randrange(50), dice.randrange(1_500))) * MS_NS
    helpers = 1 if dice.random() < 0.15 else 0
    oom_ns = dice.randrange(50, 4_000) * MS_NS if dice.random() < 0.02 else FOREVER_NS
    effect_ns = EFFECT_EVERY_MS * MS_NS
    for word in words:
        if word in (OBEYS, DIES, IGNORES):
            term, term_ns = word, 0
        elif word in ("forks", "alone"):
            helpers = 1 if word == "forks" else 0
        elif word in ("oom", "lean"):
            oom_ns = 50 * MS_NS if word == "oom" else FOREVER_NS
        elif word == "quiet":
            effect_ns = 0
    return Program(runs_ns, int(code), term, term_ns, helpers, oom_ns, effect_ns)
