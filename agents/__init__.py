"""Running it on a node: the agent, and below it the sandboxer."""
