"""The parent of all workloads of a node.  Standard library alone."""
