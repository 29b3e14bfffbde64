"""Breaking it on purpose: faults, proxies, scenarios, traces and their checkers."""
