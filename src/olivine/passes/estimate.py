"""What a Step will take, worked out from shapes alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from olivine.passes.base import ModelFacts

MIB = 2**20
LIBRARIES = 440 * MIB
"""Resident bytes of a worker that has imported torch, transformers and peft, and holds a model of no size."""
BUILDER = 640 * MIB
"""The same with the model builder, onnx, numba and ONNX Runtime."""


@dataclass(frozen=True)
class Estimate:
    """What a Step will take.

    Attributes:
        phases: peak resident bytes of the worker, by phase.
        output: bytes of the result.
        temporary: bytes of disk beside the result while it is made.
        vram: peak bytes of GPU memory.
        work: an amount that the time grows with, in any unit that stays the same for the pass.
        remedy: what to change so that it takes less memory.
    """

    phases: Mapping[str, int] = field(default_factory=dict)
    output: int = 0
    temporary: int = 0
    vram: int = 0
    work: float = 0.0
    remedy: str = ""

    @property
    def memory(self) -> int:
        """Return the peak over all phases."""
        return max(self.phases.values(), default=0)

    @property
    def disk(self) -> int:
        """Return the bytes of disk that it needs while it runs."""
        return self.output + self.temporary


TRIAL = 460 * MIB
"""Resident bytes of a worker that tries what it has built, without the model."""
TRIED = 512 * MIB
"""Bytes of layers that are tried of a model of twice that and more; see :mod:`olivine.passes.convert.trial`."""


def estimate_rounding(
    model: ModelFacts, bits: int, group: int, head_bits: int | None, table_bits: int | None, *, trial: bool = False
) -> Estimate:
    """Return what it takes to round a checkpoint that streams by.

    Args:
        model: the checkpoint.
        bits: of the matrices in layers.
        group: weights that share a 16-bit scale.
        head_bits: of the output layer; ``None`` leaves it as it is.
        table_bits: of the embedding; ``None`` leaves it as it is.
        trial: whether the result, or its first layers, are loaded at the end.
    """
    stored = model.weights / model.parameters

    def bytes_of(shape: tuple[int, ...], width: int | None) -> float:
        rows, columns = shape[0], shape[1]
        if width is None:
            return rows * columns * stored
        return rows * columns * width / 8 + rows * (-(-columns // group) if group > 0 else 1) * 2

    output, matrices, table = 0.0, 0, 0.0
    for name, given in model.modules.items():
        shape = tuple(given)
        matrices += shape[0] * shape[1]
        if "embed" in name or name.endswith("wte"):
            table = bytes_of(shape, table_bits)
            output += table
        else:
            output += bytes_of(shape, head_bits if name.endswith("lm_head") else bits)
    output += (model.parameters - matrices) * stored
    largest = max((shape[0] * shape[1] * stored for shape in map(tuple, model.modules.values())), default=0)
    phases = {"rounding": int(BUILDER + largest)}
    if trial:
        layers = output - table
        phases["trying"] = int(TRIAL + table + (layers if layers < 2 * TRIED else TRIED))
    return Estimate(phases, int(output), int(output) if not trial else 0, work=float(model.parameters))
