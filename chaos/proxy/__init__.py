"""Our own fault proxy with Toxiproxy's HTTP API: one relay a directed link, toxics in its streams."""
