"""Telling a run in words: each narrator turns events of its kind into sentences that name them."""
