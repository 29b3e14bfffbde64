"""Every state of three consensus cores within small bounds, and what must hold in each.

The unmodified `raft.core.Core` is explored breadth-first: every order of messages, time-outs, disk writes, crashes and
proposals that the bounds of a scope allow, until no new state is left.

| file | owns |
| --- | --- |
| `timeless.py` | a core as a value: copied, stripped of its clock, frozen into a fingerprint, seen in the mirror |
| `member.py` | one member: core, disk, writes in flight, promises; what an event does to it |
| `catalogue.py` | members' states by number; each local transition is computed once |
| `table.py` | three members and the messages between them as one number; symmetry; successors |
| `invariants.py` | what must hold in every state |
| `search.py` | breadth first, with the shortest path to a violation |
| `scopes.py` | named bounds |
"""
