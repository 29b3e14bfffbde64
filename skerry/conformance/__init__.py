"""Placement rules held against tables of answers: the same functions that place, asked case by case."""
