"""What quantising a checkpoint takes: streaming alone, or layer by layer with a calibration set."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from olivine.passes.base import PlanContext
from olivine.passes.effort import Effort
from olivine.passes.estimate import LIBRARIES, MIB, TRANSFORMERS, Estimate

if TYPE_CHECKING:
    from olivine.passes.quantize.quantize import QuantizeParams

STATES = 1 << 30
"""Bytes of hidden states in memory without a budget; more go to a file."""
FEWEST_STATES = 64 * MIB
"""With whatever budget."""
FILLING = 28 * MIB
"""Bytes that a thread holds on top while it rounds tiles of two million weights; 13 MB were seen, of two threads."""
STREAMING = 181 * MIB
"""Resident bytes of a worker that rounds without torch."""
ROWS = 64 * MIB
"""Bytes of the rows of a matrix that are rounded at a time; there are six copies of them."""
COLUMN = 3e3
"""Steps of the interpreter in the time in which operations on one column of a matrix are begun."""
HEAD_ROWS = 4096
"""Rows of the output layer at a time."""


@dataclass(frozen=True)
class Calibration:
    """What a calibrated method holds.

    Attributes:
        fixed: bytes of a layer, the moments of its inputs, and copies of rows.
        states: bytes of the hidden states of the calibration set.
        widest: largest number of input features.
    """

    fixed: int
    states: int
    widest: int

    def states_within(self, max_memory: int | None) -> int:
        """Return the bytes of hidden states that may be in memory; the others are in a file."""
        if max_memory is None:
            return STATES
        return min(STATES, max(FEWEST_STATES, max_memory - LIBRARIES - self.fixed))


def calibration(params: QuantizeParams, config: Mapping[str, Any], modules: Mapping[str, Sequence[int]]) -> Calibration:
    """Return what a calibrated method holds for a model."""
    layers: dict[str, int] = {}
    widest = rows_held = 0
    for name, (rows, width) in modules.items():
        place = re.match(r"model\.layers\.(\d+)\.", name)
        if place:
            layers[place[1]] = layers.get(place[1], 0) + 4 * rows * width
            widest = max(widest, width)
            rows_held = max(rows_held, min(ROWS, 4 * rows * width))
        elif name == "lm_head":
            rows_held = max(rows_held, 4 * min(rows, HEAD_ROWS) * width)
    streams = _streams(params)
    hidden = config.get("hidden_size")
    states = 4 * streams * params.samples * params.sequence_length * (hidden if isinstance(hidden, int) else 0)
    moments = 24 * widest**2  # they, their inverse, its factor, and what these are made of
    if params.scaling == "awq":
        moments += 8 * widest**2  # both those of the inputs and of the scaled ones
    return Calibration(max(layers.values(), default=0) * streams + moments + 6 * rows_held, states, widest)


def with_calibration(found: Estimate, params: QuantizeParams, context: PlanContext) -> Estimate:
    """Return the estimate with what a layer, the moments of its inputs, and the hidden states take on top."""
    model = context.model
    needs = calibration(params, model.config, model.modules)
    room = needs.states_within(context.max_memory)
    phases = {"calibrating": LIBRARIES + needs.fixed + min(needs.states, room)}
    spilt = needs.states if needs.states > room else 0
    tokens = params.samples * params.sequence_length
    streams = _streams(params)
    matrices = [tuple(shape) for name, shape in model.modules.items() if ".layers." in name]
    forward = 2.0 * tokens * sum(rows * width for rows, width in matrices) * (1 + streams)
    # Moments once for each input that matrices share, about every second; then a row's error goes to those after it.
    moments = sum(tokens * width**2 for _, width in matrices)
    elimination = sum(2.0 * width**3 + 2.0 * rows * width**2 for rows, width in matrices)
    effort = (
        found.effort
        + TRANSFORMERS
        + Effort(
            products=(forward + moments + elimination) / 0.6,
            moved=200.0 * model.parameters,
            written=2.0 * needs.states,
            steps=COLUMN * sum(width for _, width in matrices),
        )
    )
    return replace(found, phases=phases, temporary=found.temporary + 2 * needs.states + spilt, effort=effort)


def _streams(params: QuantizeParams) -> int:
    """Return how many hidden states are kept: with the correction also what the original would compute."""
    return 2 if params.method == "calibrated" and params.correction else 1
