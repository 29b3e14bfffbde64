"""Finding, naming and reaching members: configuration, clock, dice, links, HTTP, metrics, trace.

Owns: the implementations of the seams that `raft.protocols` declares, and what every process
of Skerry needs before it does anything.  Must not know: jobs, nodes or placements.
"""
