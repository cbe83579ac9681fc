"""What a run will do, worked out before it starts."""

from olivine.planning.making import make_plan
from olivine.planning.plan import Plan, PlannedStep, Source
from olivine.planning.step import Step

__all__ = ["Plan", "PlannedStep", "Source", "Step", "make_plan"]
