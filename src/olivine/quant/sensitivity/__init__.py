"""What each matrix of a model can bear: the divergence that every way to store it causes, and the choice among them."""

from typing import Literal

Measure = Literal["fisher", "exact"]
"""How the divergence is found: estimated from gradients, or measured."""
