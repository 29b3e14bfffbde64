"""What the network does to packets between two hosts, and the faults that change it.

Owns: the impairments in force on each directed link and what they add up to.
Must not know: connections; pipes are told when their link changed.

A fault is a lease: it is put on under a name and taken off by it, so faults that overlap add up and each ends alone.
"""

from __future__ import annotations

from typing import Any, Final

from msgspec import Struct

from chaos.sim.lives import NS_PER_S

US: Final = 1_000
MS: Final = 1_000_000


class Impairment(Struct, frozen=True, omit_defaults=True):
    """What one fault does to one directed link.

    `cut`: everything is lost.  `refuse`: whoever dials is refused.  `loss`: share of segments lost.  `delay_ns` and
    `jitter_ns` are added.  `bytes_per_s`: 0 = unlimited.
    """

    cut: bool = False
    refuse: bool = False
    loss: float = 0.0
    delay_ns: int = 0
    jitter_ns: int = 0
    bytes_per_s: int = 0


CUT: Final = Impairment(cut=True)


class Link:
    """One direction between two hosts, or what befalls the connections that one of them dials to the other.

    `plain`: neither cut nor lossy nor throttled, so a segment's arrival is one throw of the dice.
    """

    __slots__ = (
        "arrived",
        "base_ns",
        "bytes_per_s",
        "calm_base_ns",
        "calm_loss",
        "calm_span_ns",
        "cut",
        "free_ns",
        "impairments",
        "loss",
        "pipes",
        "plain",
        "refuse",
        "source",
        "span_ns",
        "target",
    )

    def __init__(self, source: str, target: str, base_ns: int, span_ns: int, loss: float) -> None:
        self.source = source
        self.target = target
        self.calm_base_ns = base_ns
        self.calm_span_ns = span_ns
        self.calm_loss = loss
        self.arrived = 0
        """Segments that came through."""
        self.free_ns = 0
        """When the throttled line is free for the next segment."""
        self.pipes: dict[Any, None] = {}
        self.impairments: dict[str, Impairment] = {}
        self.cut = self.refuse = False
        self.base_ns, self.span_ns, self.loss, self.bytes_per_s = base_ns, span_ns, loss, 0
        self.plain = not loss

    def impair(self, name: str, impairment: Impairment) -> None:
        """Put a fault on; what is in flight is lost if it cuts."""
        self.impairments[name] = impairment
        self._changed()

    def heal(self, name: str) -> None:
        """Take a fault off; harmless if it is not on."""
        if self.impairments.pop(name, None) is not None:
            self._changed()

    def calm(self, base_ns: int, span_ns: int, loss: float) -> None:
        """What the link is like without faults."""
        self.calm_base_ns, self.calm_span_ns, self.calm_loss = base_ns, span_ns, loss
        self._changed()

    def queue_ns(self, now_ns: int, size_bytes: int) -> int:
        """How long a segment waits for the throttled line, and takes on it."""
        start_ns = max(now_ns, self.free_ns)
        self.free_ns = start_ns + size_bytes * NS_PER_S // self.bytes_per_s
        return self.free_ns - now_ns

    def _changed(self) -> None:
        was_cut = self.cut
        self.cut = self.refuse = False
        self.base_ns, self.span_ns, self.bytes_per_s = self.calm_base_ns, self.calm_span_ns, 0
        arrives = 1.0 - self.calm_loss
        for each in self.impairments.values():
            self.cut |= each.cut
            self.refuse |= each.refuse
            arrives *= 1.0 - each.loss
            self.base_ns += each.delay_ns
            self.span_ns += each.jitter_ns
            if each.bytes_per_s:
                self.bytes_per_s = min(self.bytes_per_s or each.bytes_per_s, each.bytes_per_s)
        self.loss = 1.0 - arrives
        self.plain = not (self.cut or self.loss or self.bytes_per_s)
        for pipe in tuple(self.pipes):
            pipe.link_changed(cut_now=self.cut and not was_cut)
