"""What a Step will take, worked out from shapes alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from olivine.passes.effort import Effort

if TYPE_CHECKING:
    from olivine.passes.base import PlanContext

MIB = 2**20
LIBRARIES = 440 * MIB
"""Resident bytes of a worker that has imported torch, transformers and peft, and holds a model of no size."""
BUILDER = 590 * MIB
"""The same with the model builder, onnx, numba and ONNX Runtime."""
CHARACTERS_PER_TOKEN = 3.5
"""Of English text, a little too few, so that the tokens are not too few."""
STARTING = Effort(steps=2e7)
"""What it takes to start a worker that needs numpy and compiled kernels, or ONNX Runtime, and no torch."""
TORCH = Effort(steps=6e7)
"""The same where torch is imported."""
TRANSFORMERS = Effort(steps=8e7)
"""The same where transformers loads a model."""
TRAINER = Effort(steps=2e8)
"""The same where transformers and peft train one."""
BUILDING = Effort(steps=2.4e8)
"""What it takes on top to import the model builder, and to build a graph."""
DIGESTING = 6.0
"""Bytes that would be copied in the time in which one byte is digested."""
GRAPH = 600_000
"""Bytes of a graph without its weights."""


@dataclass(frozen=True)
class Estimate:
    """What a Step will take.

    Attributes:
        phases: peak resident bytes of the worker, by phase.
        mapped: what of it are pages of mapped files that have been read, by phase: the system takes them back where
            memory is short, so that no machine has to have room for them.
        output: bytes of the result.
        temporary: bytes of disk beside the result while it is made.
        vram: peak bytes of GPU memory, by phase; empty if none is used.
        effort: what takes its time.
        lighter: what would take less memory: what to write, and the estimate with it, the gentlest first.
        remedy: what else helps, where nothing in ``lighter`` does.
        from_shapes: whether ``output`` was worked out from the shapes of what is stored, and is off by a tenth at most.
    """

    phases: Mapping[str, int] = field(default_factory=dict)
    output: int = 0
    temporary: int = 0
    vram: Mapping[str, int] = field(default_factory=dict)
    effort: Effort = field(default_factory=Effort)
    lighter: tuple[tuple[str, Estimate], ...] = ()
    remedy: str = ""
    from_shapes: bool = False
    mapped: Mapping[str, int] = field(default_factory=dict)

    @property
    def memory(self) -> int:
        """Return the peak over all phases."""
        return max(self.phases.values(), default=0)

    @property
    def busiest(self) -> str:
        """Return the phase that needs most."""
        return max(self.phases, key=self._needed, default="running")

    @property
    def needed(self) -> int:
        """Return the peak over all phases without the pages that the system may take back."""
        return max(map(self._needed, self.phases), default=0)

    def _needed(self, phase: str) -> int:
        return self.phases[phase] - self.mapped.get(phase, 0)

    @property
    def gpu_memory(self) -> int:
        """Return the peak of GPU memory over all phases."""
        return max(self.vram.values(), default=0)

    @property
    def disk(self) -> int:
        """Return the bytes of disk that it needs while it runs."""
        return self.output + self.temporary


@dataclass(frozen=True)
class DataSize:
    """How much there is in a data config, from the part of it that the plan has read.

    Attributes:
        rows: rows that will be used.
        characters: of the text of a row, the mean.
    """

    rows: int
    characters: float

    @property
    def tokens_per_row(self) -> float:
        """Tokens of a row, special ones included."""
        return self.characters / CHARACTERS_PER_TOKEN + 2

    @property
    def tokens(self) -> float:
        """Tokens of all rows."""
        return self.rows * self.tokens_per_row


TRIAL = 250 * MIB
"""Resident bytes of a worker that tries what it has built, without the model."""
TRIED = 512 * MIB
"""Bytes of layers that are tried of a model of twice that and more; see :mod:`olivine.passes.convert.trial`."""


TILE = 12 * MIB
"""Bytes that a thread holds while it rounds a tile of a million weights."""
ROUNDING = 60.0
"""Bytes that would be copied in the time in which one core searches the scale of one weight."""


def threads_within(max_memory: int | None, fixed: int, each: int, cores: int) -> int:
    """Return how many threads may work at a time, so that the pass takes at most ``max_memory`` bytes; 1 at least.

    Args:
        fixed: bytes that it takes with none.
        each: bytes of a thread.
        cores: threads without a budget.
    """
    if max_memory is None:
        return cores
    return max(1, min(cores, (max_memory - fixed) // each))


def in_words(max_memory: int) -> str:
    """Return a budget as notes name it."""
    amount = f"{max_memory / 1e9:.1f} GB" if max_memory >= 1e9 else f"{max_memory / 1e6:.0f} MB"
    return f"to keep within engine.max_memory ({amount})"


def told_of_threads(context: PlanContext, fixed: int, each: int) -> list[str]:
    """Return the note that a budget leaves room for fewer threads, if it does; see :func:`threads_within`."""
    threads = threads_within(context.max_memory, fixed, each, context.cores)
    if threads == context.cores or context.max_memory is None:
        return []
    return [f"{threads} of {context.cores} threads round, {in_words(context.max_memory)}"]


def estimate_rounding(
    context: PlanContext,
    bits: int,
    group: int,
    head_bits: int | None,
    table_bits: int | None,
    *,
    fixed: int = BUILDER,
    tile: int = TILE,
    scale: int = 2,
    trial: bool = False,
) -> Estimate:
    """Return what it takes to round a checkpoint that streams by.

    Args:
        context: the checkpoint, and how many threads round it within which memory.
        bits: of the matrices in layers.
        group: weights that share a scale.
        head_bits: of the output layer; ``None`` leaves it as it is.
        table_bits: of the embedding; ``None`` leaves it as it is.
        fixed: bytes that the worker holds without a thread.
        tile: bytes that a thread holds.
        scale: bytes of a scale, and of what is not rounded in a graph.
        trial: whether a graph is built, and the result, or its first layers, are loaded at the end.
    """
    model = context.model
    stored = model.weights / model.parameters

    def bytes_of(shape: tuple[int, ...], width: int | None) -> float:
        rows, columns = shape[0], shape[1]
        if width is None:
            return rows * columns * stored
        return rows * columns * width / 8 + rows * (-(-columns // group) if group > 0 else 1) * scale

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
    threads = threads_within(context.max_memory, fixed, tile, context.cores)
    phases = {"rounding": fixed + threads * tile}
    if trial:
        layers = output - table
        phases["trying"] = int(TRIAL + table + (layers if layers < 2 * TRIED else TRIED))
    effort = STARTING + Effort(moved=ROUNDING * model.parameters / threads, read=float(model.weights), written=output)
    if not trial:
        return Estimate(phases, int(output), effort=effort, from_shapes=True)
    # The checkpoint's stand-in and the graphs that the builder makes of it, sixteen bytes for a row.
    stand_ins = 64 * sum(shape[0] for shape in model.modules.values())
    return Estimate(phases, int(output) + GRAPH, stand_ins, effort=effort + BUILDING, from_shapes=True)
