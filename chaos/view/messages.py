"""Messages: which send met which receipt, and what became of the others.

Owns: pairing by message id, a message's class and fate.  Must not know: the page.
"""

from __future__ import annotations

from msgspec import Struct

from chaos.trace.events import Event, Trace
from chaos.view.lanes import Lane

DELIVERED, DROPPED, UNSEEN = 0, 1, 2
CLASSES = ("election", "replication", "call", "session", "snapshot", "membership", "other")

_WORDS = (
    ("vote", "election"),
    ("snapshot", "snapshot"),
    ("founding", "membership"),
    ("join", "membership"),
    ("append", "replication"),
    ("heartbeat", "replication"),
    ("read", "replication"),
    ("request", "call"),
    ("answer", "call"),
)


class Message(Struct, frozen=True):
    """One message: positions of its events in the trace; `received` is -1 if nobody saw it arrive.

    `state`: delivered, dropped (somebody says so), or unseen (no receipt is in the trace).
    `to`: the lane it went to; -1 if unknown.
    """

    sent: int
    received: int
    to: int
    type: str
    state: int


def class_of(type_: str) -> str:
    """The class that a message type is coloured by; agents' session types are capitalised."""
    if type_[:1].isupper() and not type_.startswith(("Snapshot", "Join")):
        return "session"
    lower = type_.lower()
    return next((found for word, found in _WORDS if word in lower), "other")


def messages_of(trace: Trace, lanes: list[Lane]) -> list[Message]:
    """Every message of the run, in the order of sending."""
    numbers = {lane.name: number for number, lane in enumerate(lanes)}
    sends: dict[str, int] = {}
    receipts: dict[str, list[int]] = {}
    drops: dict[str, int] = {}
    lost: list[int] = []
    for at, event in enumerate(trace.events):
        id = event.text("m")
        if event.k == "send" and id:
            sends.setdefault(id, at)
        elif event.k == "recv" and id:
            receipts.setdefault(id, []).append(at)
        elif event.k == "drop":
            if id:
                drops.setdefault(id, at)
            else:
                lost.append(at)
    homes = _addresses(trace, sends, receipts)
    found = []
    for id, sent in sends.items():
        event = trace.events[sent]
        to = _target(event, numbers, homes)
        if id in receipts:
            for received in receipts[id]:
                lane = numbers[trace.events[received].n]
                found.append(Message(sent, received, lane, event.text("type"), DELIVERED))
        else:
            found.append(Message(sent, -1, to, event.text("type"), DROPPED if id in drops else UNSEEN))
    for at in [*lost, *(at for id, at in drops.items() if id not in sends)]:
        event = trace.events[at]
        found.append(Message(at, -1, _target(event, numbers, homes), event.text("type"), DROPPED))
    return sorted(found, key=lambda message: (message.sent, message.received))


def _addresses(trace: Trace, sends: dict[str, int], receipts: dict[str, list[int]]) -> dict[tuple[str, str], str]:
    """(sender, address) → node: a sender that dials addresses is known by who received."""
    homes: dict[tuple[str, str], str] = {}
    for id, sent in sends.items():
        if id in receipts:
            event = trace.events[sent]
            homes.setdefault((event.n, event.text("to")), trace.events[receipts[id][0]].n)
    return homes


def _target(event: Event, numbers: dict[str, int], homes: dict[tuple[str, str], str]) -> int:
    to = event.text("to")
    return numbers.get(to, numbers.get(homes.get((event.n, to), ""), -1))
