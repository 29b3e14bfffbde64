"""`skerry dev`: a cluster of real processes on one machine."""
