"""Runs a Plan."""

from olivine.engine.engine import run_plan
from olivine.engine.result import Result, StepResult

__all__ = ["Result", "StepResult", "run_plan"]
