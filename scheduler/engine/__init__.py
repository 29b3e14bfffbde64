"""Placement: filter, score and choose a node, in integers, over all nodes at once."""

from scheduler.engine.decision import Decision, place
from scheduler.engine.drafts import Draft, draft
from scheduler.engine.world import PlacementRequest, World

__all__ = ["Decision", "Draft", "PlacementRequest", "World", "draft", "place"]
