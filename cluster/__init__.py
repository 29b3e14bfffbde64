"""Finding, naming and reaching members: configuration, clocks, links, security, metrics, traces."""
