"""Bounds within which every state is visited.

Owns: the numbers, and where each exploration begins.  Must not know: how states are made or counted.
"""

from __future__ import annotations

from msgspec import Struct


class Scope(Struct, frozen=True, kw_only=True):
    """What may happen, and how often.

    Attributes:
        begins_with: moves from a formed cluster at rest, in term 1, to where the exploration begins.
        terms_max: the highest term.
        timeouts_max, beats_max: how often a member stands for election, and a leader sends heartbeats.
        commands_max: commands in one log, beside the leaders' own entries.
        crashes_max, duplicates_max, losses_max: how often one crashes, a message stays to arrive again, or is lost.
        link_max: messages on the way in one direction between two members; one more is lost.
        silence: whether a member may have given up its leader before it stands for election itself.
        hands_over: whether leaders hand their leadership over.
    """

    terms_max: int
    begins_with: tuple[str, ...] = ()
    timeouts_max: int = 7
    beats_max: int = 0
    commands_max: int = 0
    crashes_max: int = 0
    duplicates_max: int = 0
    losses_max: int = 0
    link_max: int = 2
    silence: bool = True
    hands_over: bool = False


N1_LEADS = (
    "timeout n1",
    "deliver n1->n2 pre-vote request, term 2, log ends 1@1",
    "lose n1->n3 pre-vote request, term 2, log ends 1@1",
    "deliver n2->n1 pre-vote granted, term 2",
    "persist n1",
    "lose n1->n3 vote request, term 2, log ends 1@1",
    "deliver n1->n2 vote request, term 2, log ends 1@1",
    "persist n2",
    "deliver n2->n1 vote granted, term 2",
)
"""n1 was just elected in term 2; its first entry is not on disk yet, and n3 has heard nothing."""

TWO_LED = (
    *N1_LEADS,
    "persist n1",
    "lose n1->n2 append, term 2, behind 1@1, commit 0: 2@2 no-op",
    "lose n1->n3 append, term 2, behind 1@1, commit 0: 2@2 no-op",
    "timeout n3",
    "lose n3->n1 pre-vote request, term 2, log ends 1@1",
    "deliver n3->n2 pre-vote request, term 2, log ends 1@1",
    "deliver n2->n3 pre-vote refused, term 2",
    "persist n3",
    "timeout n3",
    "lose n3->n1 pre-vote request, term 3, log ends 1@1",
    "deliver n3->n2 pre-vote request, term 3, log ends 1@1",
    "deliver n2->n3 pre-vote granted, term 3",
    "persist n3",
    "lose n3->n1 vote request, term 3, log ends 1@1",
    "deliver n3->n2 vote request, term 3, log ends 1@1",
    "persist n2",
    "deliver n2->n3 vote granted, term 3",
    "persist n3",
    "lose n3->n1 append, term 3, behind 1@1, commit 0: 2@3 no-op",
    "lose n3->n2 append, term 3, behind 1@1, commit 0: 2@3 no-op",
)
"""Figure 8 (b) with three members: n1 led term 2 and n3 leads term 3, each with an entry 2 that nobody else has."""

SCOPES = {
    "candidacy": Scope(terms_max=2, timeouts_max=1, crashes_max=1, duplicates_max=1, losses_max=1),
    "rivals": Scope(terms_max=2, timeouts_max=2, crashes_max=1, link_max=1, silence=False),
    "replication": Scope(
        begins_with=N1_LEADS, terms_max=2, timeouts_max=0, commands_max=1, crashes_max=1, duplicates_max=1
    ),
    "succession": Scope(begins_with=N1_LEADS, terms_max=3, timeouts_max=1, crashes_max=1, link_max=1),
    "succession-two-crashes": Scope(begins_with=N1_LEADS, terms_max=3, timeouts_max=1, crashes_max=2, link_max=1),
    "hand-over": Scope(begins_with=N1_LEADS, terms_max=3, timeouts_max=0, crashes_max=1, link_max=1, hands_over=True),
    "figure-8": Scope(begins_with=TWO_LED, terms_max=4, timeouts_max=1, crashes_max=1, link_max=1, silence=False),
    "open": Scope(terms_max=3, beats_max=7, commands_max=2, crashes_max=2, duplicates_max=1, losses_max=1, link_max=4),
}
"""What is explored by name; all but `open` come to an end."""

MILLION = "succession-two-crashes"
"""The scope of more than a million states, with all that must have been reached in them."""
