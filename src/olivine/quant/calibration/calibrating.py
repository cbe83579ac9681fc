"""A checkpoint goes layer by layer through a calibrated method into a quantised one; a killed run goes on at its layer.

Matrices are rounded in the order in which they compute: what a matrix sees is computed with all that was rounded before
it, in its own layer too.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from olivine.quant.calibration.activations import BUDGET, Activations
from olivine.quant.calibration.gptq import Elimination
from olivine.quant.calibration.hessian import Moments
from olivine.quant.calibration.methods import Method
from olivine.quant.calibration.scaling import Scaled, scale_layer, summary
from olivine.quant.calibration.walking import DecoderLayer, LayerWalker
from olivine.quant.stored.filling import SCALE_TYPES
from olivine.quant.stored.writing import Done, QuantizedCheckpointWriter, packed_rows

if TYPE_CHECKING:
    from torch import Tensor

HEAD = "lm_head"

HEAD_ROWS = 4096
"""Rows of the output layer that are read at a time."""

STATES = "states"
"""Folder, beside what is written, with the hidden states that enter the first layer that is not done."""

SCALED = "scaled.pt"
"""In that folder, how the layers that are done were scaled."""


def calibrate(
    writer: QuantizedCheckpointWriter,
    walker: LayerWalker,
    sequences: Sequence[Sequence[int]],
    method: Method,
    *,
    work: Path,
    scaling: bool = False,
    budget: int = BUDGET,
    done: Callable[[Done], None] = lambda _: None,
    note: Callable[[str], None] = lambda _: None,
) -> list[Done]:
    """Round every module of ``writer`` with ``method``, and write it.

    Args:
        writer: the result.
        walker: the original.
        sequences: token ids of the calibration set.
        method: how matrices are rounded.
        work: folder that outlives a killed process and belongs to this result alone. Hidden states are kept there
            while the run lasts.
        scaling: scale inputs before rounding, see :mod:`.scaling`.
        budget: bytes of hidden states that may be in memory.
        done: called for each module when it is done, those of an earlier run first.
        note: called at the end with what is worth knowing.

    Returns:
        One entry per module, in the writer's order.

    Raises:
        ModelError: a weight is missing, NaN or Inf, or a file is cut off.
    """
    work.mkdir(parents=True, exist_ok=True)
    copies = 2 if method.correction else 1
    ordered = sorted(sequences, key=len)
    lengths = [len(each) for each in ordered]
    folder = work / STATES
    first, streams, scaled = _resume(folder, lengths, walker.width, copies, budget)
    ours = {
        name: [module for module, source in writer.sources.items() if source.module == name]
        for name in {source.module for source in writer.sources.values()}
    }
    before = [module for module in writer.schemes if module != HEAD and walker.layer_of(module) < first]
    if any(module not in writer.done for module in before):  # somebody removed what was written
        first, streams, scaled = 0, [], {}
    else:
        for module in before:
            done(writer.done[module])
    if not streams:
        streams = [walker.embed(ordered, budget=budget // copies, folder=work) for _ in range(copies)]
    for index in range(first, walker.layer_count):
        with walker.layer(index) as layer:
            if scaling:
                scaled |= scale_layer(layer, streams[0], writer, method)
            _round_layer(layer, writer, ours, method, streams, done)
        writer.sync()
        _keep(folder, index + 1, streams, scaled)
    if HEAD in writer.schemes:
        _round_head(walker, writer, method, streams[0], done)
        writer.sync()
    for each in filter(None, scaled.values()):
        for name, values in each.vectors.items():
            writer.replace(name, values.cpu().numpy())
    for line in summary(scaled):
        note(line)
    for stream in streams:
        stream.close()
    return [writer.done[name] for name in writer.schemes]


def discard(work: Path) -> None:
    """Remove what a finished run has kept in ``work``."""
    shutil.rmtree(work / STATES, ignore_errors=True)


def _round_layer(
    layer: DecoderLayer,
    writer: QuantizedCheckpointWriter,
    ours: Mapping[str, Sequence[str]],
    method: Method,
    streams: Sequence[Activations],
    done: Callable[[Done], None],
) -> None:
    """Round the matrices of one layer, and take the hidden states through it."""
    originals = {name: linear.weight for name, linear in layer.linears.items()} if len(streams) > 1 else {}
    for group in layer.groups():
        wanted = [name for name in group if ours.get(name)]
        if not wanted:
            continue
        moments = _moments(layer, wanted[0], originals, streams)
        inputs = method.eliminate(moments.hessian)
        for name in wanted:
            original = layer.linears[name].weight
            whole = original.clone()  # rows that are not quantised stay as they are
            for module in ours[name]:
                source = writer.sources[module]
                rows = slice(source.start, source.stop)
                whole[rows] = _round(writer, module, original[rows], inputs, moments, method)
                done(writer.done[module])
            _replace(layer, name, whole)
    layer.advance(streams[0])
    for other in streams[1:]:
        for name, weight in originals.items():
            _replace(layer, name, weight)
        layer.advance(other)


def _moments(
    layer: DecoderLayer, name: str, originals: Mapping[str, Tensor], streams: Sequence[Activations]
) -> Moments:
    """Return the second moments of what the module ``name`` gets, and of what it would in the original model."""
    found = Moments(layer.linears[name].in_features, layer.linears[name].weight.device)
    if len(streams) == 1:
        layer.observe(streams[0], {name: found.add})
        return found
    current = {each: linear.weight for each, linear in layer.linears.items()}
    for batch in streams[0].batches(layer.batch_tokens):
        for each, weight in originals.items():
            _replace(layer, each, weight)
        before = layer.inputs(streams[1].read(batch), [name])[name]
        for each, weight in current.items():
            _replace(layer, each, weight)
        found.add(layer.inputs(streams[0].read(batch), [name])[name], before)
    return found


def _round(
    writer: QuantizedCheckpointWriter,
    module: str,
    original: Tensor,
    inputs: Elimination,
    moments: Moments,
    method: Method,
    start: int = 0,
) -> Tensor:
    """Round rows of ``module`` that begin with ``start``, write them, and return what they are now.

    The module is done if they are all it has.
    """
    import torch

    dtype = SCALE_TYPES[writer.scale_dtype(module)]
    weight = moments.corrected(original, method.correction, method.damping)
    rounded = method.round(weight, inputs, moments.mean_square, writer.schemes[module], getattr(torch, dtype))
    writer.write_rows(module, start, packed_rows(rounded))
    found = rounded.dequantise()
    if len(original) == writer.sources[module].rows:
        writer.complete(module, float((found - original).norm() / original.norm().clamp_min(1e-30)))
    return found


def _round_head(
    walker: LayerWalker,
    writer: QuantizedCheckpointWriter,
    method: Method,
    states: Activations,
    done: Callable[[Done], None],
) -> None:
    """Round the output layer, some rows at a time: it is the largest matrix of many a model."""
    import torch

    source = writer.sources[HEAD]
    moments = Moments(source.width, walker.device)
    for values in walker.head_inputs(states):
        moments.add(values)
    inputs = method.eliminate(moments.hessian)
    lost = whole = 0.0
    for start in range(0, source.rows, HEAD_ROWS):
        stop = min(start + HEAD_ROWS, source.rows)
        original = torch.from_numpy(walker.reader.read_rows(source.tensor, source.start + start, source.start + stop))
        original = original.to(walker.device)
        found = _round(writer, HEAD, original, inputs, moments, method, start)
        lost += float((found - original).square().sum())
        whole += float(original.square().sum())
    done(writer.complete(HEAD, (lost / whole) ** 0.5 if whole else 0.0))


def _replace(layer: DecoderLayer, name: str, weight: Tensor) -> None:
    """Make ``weight`` that of the module ``name``."""
    from torch import nn

    layer.linears[name].weight = nn.Parameter(weight.detach(), requires_grad=False)


def _keep(folder: Path, index: int, streams: Sequence[Activations], scaled: Mapping[str, Scaled | None]) -> None:
    """Have on the disk what enters layer ``index``, and how those before it were scaled.

    What was there before goes when the new is complete.
    """
    import torch

    following = folder.with_suffix(".new")
    shutil.rmtree(following, ignore_errors=True)
    following.mkdir()
    for number, each in enumerate(streams):
        each.save(following / str(number))
    torch.save({name: each and (each.alpha, dict(each.vectors)) for name, each in scaled.items()}, following / SCALED)
    (following / "layer").write_text(str(index), encoding="utf-8")
    before = folder.with_suffix(".old")
    shutil.rmtree(before, ignore_errors=True)
    if folder.exists():
        folder.rename(before)
    following.rename(folder)
    shutil.rmtree(before, ignore_errors=True)


def _resume(
    folder: Path, lengths: Sequence[int], width: int, copies: int, budget: int
) -> tuple[int, list[Activations], dict[str, Scaled | None]]:
    """Return the first layer that is not done, what enters it, and how those before it were scaled."""
    import torch

    if not folder.exists():  # it may have died between the two renames
        for other in (folder.with_suffix(".new"), folder.with_suffix(".old")):
            if (other / "layer").exists():
                other.rename(folder)
                break
        else:
            return 0, [], {}
    streams = [Activations(lengths, width, budget=budget // copies, folder=folder.parent) for _ in range(copies)]
    for number, each in enumerate(streams):
        each.load(folder / str(number))
    kept = torch.load(folder / SCALED, weights_only=True)
    scaled = {name: Scaled(*each) if each else None for name, each in kept.items()}
    return int((folder / "layer").read_text(encoding="utf-8")), streams, scaled
