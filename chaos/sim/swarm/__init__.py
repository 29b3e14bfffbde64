"""The swarm: what a seed decides, one seed's run, and campaigns over many seeds."""
