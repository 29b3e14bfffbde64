"""Which situations a run reached.

Owns: from counts to "reached".  Must not know: how a situation is seen in a trace (`chaos.trace.sometimes`).
"""

from __future__ import annotations

from chaos.trace.events import Trace
from chaos.trace.sometimes import sometimes


def situations(trace: Trace) -> dict[str, bool]:
    """Which situations the run reached."""
    return {name: count > 0 for name, count in sometimes(trace).items()}
