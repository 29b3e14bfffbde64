"""Histories of concurrent calls, and whether one copy could have answered them so."""
