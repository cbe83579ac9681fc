"""A checkpoint streams through rounding into a quantised one: in tiles, on all cores, a bounded number in flight."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Literal

from olivine.quant.kernels import encode
from olivine.quant.reading import TensorReader
from olivine.quant.scheme import Rounding
from olivine.quant.stored.form import PackedRows
from olivine.quant.stored.forms import Source
from olivine.quant.stored.writing import ROWS, Done, QuantizedCheckpointWriter
from olivine.quant.streaming import stored_scales, tile_errors

TILE = 1 << 21
"""Weights in a tile: 8 MiB in float32. A form that stores columns writes each tile in as many pieces as it has columns,
so smaller tiles cost it time."""

SCALE_TYPES: dict[str, Literal["float32", "float16", "bfloat16"]] = {
    "F32": "float32",
    "F16": "float16",
    "BF16": "bfloat16",
}
"""What safetensors' types of scales are called elsewhere."""


@dataclass(frozen=True)
class _Module:
    name: str
    source: Source


def fill(
    writer: QuantizedCheckpointWriter,
    reader: TensorReader,
    method: Rounding,
    *,
    threads: int,
    done: Callable[[Done], None] = lambda _: None,
) -> list[Done]:
    """Round every module that ``writer`` still waits for, and write it.

    Args:
        writer: the result.
        reader: the original.
        method: how weights are rounded.
        threads: tiles that are worked on at the same time.
        done: called for each module when it is done, those of an earlier run first.

    Returns:
        One entry per module, in the writer's order.

    Raises:
        ModelError: a weight is NaN or Inf, or a file is cut off.
    """
    for each in list(writer.done.values()):
        done(each)
    waiting = [_Module(name, writer.sources[name]) for name in writer.waiting]
    calls = (
        (module, partial(_tile, writer, reader, module, start, stop, method))
        for module in waiting
        for start, stop in _tiles(module.source)
    )
    tiles = {module.name: sum(1 for _ in _tiles(module.source)) for module in waiting}
    for module, error in tile_errors(calls, tiles, threads):
        done(writer.complete(module.name, error))
    return [writer.done[name] for name in writer.schemes]


def _tiles(source: Source) -> Iterator[tuple[int, int]]:
    """Yield the rows of each tile, counted from the first of the module."""
    step = max(1, TILE // source.width // ROWS) * ROWS
    for start in range(0, source.rows, step):
        yield start, min(start + step, source.rows)


def _tile(
    writer: QuantizedCheckpointWriter, reader: TensorReader, module: _Module, start: int, stop: int, method: Rounding
) -> tuple[float, float]:
    """Round one tile and write it; return the squares of the norms of its error and of itself."""
    source, scheme = module.source, writer.schemes[module.name]
    values = reader.read_rows(source.tensor, source.start + start, source.start + stop)
    scales, zeros = stored_scales(values, scheme, method, SCALE_TYPES[writer.scale_dtype(module.name)])
    packed, lost, whole = encode(values, scheme, scales, zeros)
    row_bytes = -(-source.width * scheme.bits // 8)  # without the padding of a row that is one group
    rows = PackedRows(scheme, source.width, packed[:, :row_bytes], scales, None if scheme.symmetric else zeros)
    writer.write_rows(module.name, start, rows)
    return lost, whole
