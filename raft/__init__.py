"""Consensus: elections, replication and durability.  Imports nothing of ours."""
