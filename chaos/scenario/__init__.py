"""Scenarios: what to break when, under which load, and what must hold."""
