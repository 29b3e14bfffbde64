"""Who owns which arcs of the ring: one owner an arc and epoch, and only what has to move moves.

Owns: the promises of DESIGN.md §5 about owners.  Must not know: how the ring is computed; it reads the owners of fixed
probes that every change of owners tells, and of the nodes that placements name.
"""

from __future__ import annotations

from chaos.trace.checkers.base import Rule
from chaos.trace.events import Event


class OneOwner(Rule):
    """An epoch has one set of owners and an arc one owner in it, on every replica; epochs follow one another."""

    name = "one-owner-per-arc"
    nothing = "owners were never told twice"

    def __init__(self) -> None:
        super().__init__()
        self._epochs: dict[int, Event] = {}
        self._owners: dict[tuple[int, str], Event] = {}

    def on_shard(self, event: Event) -> None:
        """New owners are in force."""
        epoch = event.number("epoch")
        first = self._epochs.setdefault(epoch, event)
        self.verdict.checked += first is not event
        if any(first.f.get(name) != event.f.get(name) for name in ("index", "owners", "probes")):
            self.verdict.violated(f"{first.n} and {event.n} know epoch {epoch} differently", first, event)

    def on_place(self, event: Event) -> None:
        """A placement tells who owns its node in the epoch of the moment."""
        epoch, owner = event.number("ring_now"), event.f.get("owner")
        if epoch < 0:
            return
        first = self._owners.setdefault((epoch, event.text("node")), event)
        self.verdict.checked += first is not event
        if first.f.get("owner") != owner:
            self.verdict.violated(
                f"{event.text('node')} belongs to {first.f.get('owner')} and to {owner} in epoch {epoch}", first, event
            )


class RingMoves(Rule):
    """Keys move only to an owner that joined or from one that left (consistent hashing)."""

    name = "ring-moves-little"
    nothing = "owners never changed"

    def __init__(self) -> None:
        super().__init__()
        self._epochs: dict[int, Event] = {}
        self._compared: set[int] = set()

    def on_shard(self, event: Event) -> None:
        """New owners: compare the probes with those of the epochs beside it."""
        epoch = event.number("epoch")
        self._epochs.setdefault(epoch, event)
        for later in (epoch, epoch + 1):
            if later - 1 in self._epochs and later in self._epochs and later not in self._compared:
                self._compared.add(later)
                self._compare(self._epochs[later - 1], self._epochs[later])

    def _compare(self, before: Event, after: Event) -> None:
        old, new = before.f.get("probes"), after.f.get("probes")
        if not isinstance(old, list | tuple) or not isinstance(new, list | tuple):
            return
        left = set(before.f.get("owners", ())) - set(after.f.get("owners", ()))
        joined = set(after.f.get("owners", ())) - set(before.f.get("owners", ()))
        self.verdict.checked += 1
        for number, (one, other) in enumerate(zip(old, new, strict=False)):
            if one != other and one not in left and other not in joined:
                self.verdict.violated(
                    f"probe {number} moved from {one} to {other} at epoch {after.number('epoch')}, and both owned arcs "
                    "before and after",
                    before,
                    after,
                )
                return


class StaleOwner(Rule):
    """A plan made before its node changed owners is refused (DESIGN.md §5)."""

    name = "no-stale-owner"
    nothing = "no plan of an earlier epoch came"

    def on_place(self, event: Event) -> None:
        """A placement, with the owner of its node in the plan's epoch, where that is not the present one."""
        if "owner_then" not in event.f:
            return
        self.verdict.checked += 1
        then, now = event.f["owner_then"], event.f.get("owner")
        if event.f.get("do") == "bind" and then != now:
            self.verdict.violated(
                f"{event.text('allocation')} was placed on {event.text('node')} by a plan of epoch "
                f"{event.number('ring')}, when {then} owned it; since epoch {event.number('ring_now')} {now} does",
                event,
            )
