"""The deterministic simulator: the production code in virtual time, under faults that a seed repeats."""
