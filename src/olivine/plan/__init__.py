"""What a run will do, worked out before it starts."""

from olivine.plan.plan import Plan, PlannedStep, Source, make_plan
from olivine.plan.step import Step

__all__ = ["Plan", "PlannedStep", "Source", "Step", "make_plan"]
