"""Reading a run's trace, checking it, and telling its story."""
