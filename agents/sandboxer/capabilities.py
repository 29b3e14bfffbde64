"""Giving up capabilities for good.

Owns: all five sets of a process.  Must not know: what runs without them.
"""

from __future__ import annotations

from typing import Final

from agents.sandboxer import linux

_CAPBSET_READ, _CAPBSET_DROP, _SET_SECUREBITS, _CAP_AMBIENT = 23, 24, 28, 47
_AMBIENT_CLEAR_ALL: Final = 4
_ROOT_IS_NOTHING: Final = 0b10_1111
"""SECBIT_NOROOT and NO_SETUID_FIXUP, both locked, KEEP_CAPS locked off: user id 0 gains nothing by exec, for good."""
SET_PCAP: Final = 8
_HIGHEST: Final = 63


def drop_bounding() -> None:
    """Empty the bounding and ambient sets, and bind root; needs CAP_SETPCAP, without it there is nothing to do."""
    if not linux.effective_capabilities() >> SET_PCAP & 1:
        return
    for number in range(_HIGHEST + 1):
        if linux.prctl_value(_CAPBSET_READ, number) < 0:
            break
        linux.prctl(_CAPBSET_DROP, number)
    linux.prctl(_CAP_AMBIENT, _AMBIENT_CLEAR_ALL)
    linux.prctl(_SET_SECUREBITS, _ROOT_IS_NOTHING)


def drop_all() -> None:
    """Empty every set.  Raises OSError."""
    drop_bounding()
    linux.empty_capabilities()


def works() -> str:
    """Try it in a child; "" or why capabilities cannot be given up."""
    return linux.tried(drop_all)
