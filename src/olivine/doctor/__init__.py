"""What may keep Olivine from working here, each with the way out. Nothing is downloaded or sent."""

from olivine.doctor.examination import examine
from olivine.doctor.finding import Finding, State

__all__ = ["Finding", "State", "examine"]
