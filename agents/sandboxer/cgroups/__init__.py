"""Control groups: limits, usage, killing, and the record of what runs, in any kernel's arrangement."""
