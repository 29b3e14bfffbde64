"""Placement: filter, score and choose a node, in integers, over all nodes at once."""

from scheduler.engine.draft import Draft, draft
from scheduler.engine.place import Decision, place
from scheduler.engine.world import PlacementRequest, World

__all__ = ["Decision", "Draft", "PlacementRequest", "World", "draft", "place"]
