"""Building a GenAI model of a checkpoint that is never in memory: the graph from its skeleton, the weights streamed."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from olivine.hardware.machine import this_machine
from olivine.passes.base import RunContext
from olivine.passes.convert.attaching import Attached, Choose, attach
from olivine.passes.convert.round_trip import check_round_trip
from olivine.passes.convert.skeleton import write_skeleton
from olivine.passes.convert.trial import layers_to_try, make_trial
from olivine.quant.reading import TensorReader
from olivine.quant.stored.reading import QuantizedCheckpointReader
from olivine.quant.streaming import Written, stream

JOURNAL = "journal.jsonl"


Choosing = Callable[[Callable[[Choose], int]], Choose]
"""Called when the graph is there, with what tells the bytes of the whole result for a choice; makes the choice."""


@dataclass(frozen=True)
class Built:
    """What was built.

    Attributes:
        written: one entry per matrix.
        trial: folder of the model's first layers, if they are to be tried in its place.
    """

    written: tuple[Written, ...]
    trial: Path | None

    @property
    def error(self) -> float:
        """Relative error of the weights that were rounded here, the mean over matrices weighted by their bytes."""
        total = sum(each.bytes for each in self.written)
        return sum(each.error * each.bytes for each in self.written) / total if total else 0.0


def build_streamed(
    reader: TensorReader,
    context: RunContext,
    build: Callable[[Path, Mapping[Path, int | None]], None],
    choosing: Choosing,
    *,
    tied: bool,
    quantised: QuantizedCheckpointReader | None = None,
    threads: int | None = None,
) -> Built:
    """Build ``context.output``.

    Args:
        reader: the checkpoint; it has a skeleton.
        context: ``checkpoint`` keeps what is written until all of it is there, so a killed run goes on.
        build: has the model builder build the checkpoint in its first argument into folders, each with as many layers
            as are given with it, ``None`` for all.
        choosing: see :data:`Choosing`.
        tied: whether the embedding takes the output layer's weights.
        quantised: the same checkpoint, if it is quantised.
        threads: tiles that are rounded at the same time; default: as many as this process has cores.

    Raises:
        ModelError: a tensor cannot be read, or is not finite.
        StepError: the runtime computes with other weights than those that were rounded.
        OSError: there is no room for the result; found before anything is rounded.
    """
    import onnx

    scratch = context.checkpoint / "skeleton"
    shutil.rmtree(scratch, ignore_errors=True)  # of a build that was killed
    context.progress(0, None, message="building the graph")
    tensors = reader.tensors if quantised is None else quantised.logical_tensors
    skeleton = write_skeleton(reader, tensors, scratch / "in")
    built = scratch / "out"
    trial = scratch / "trial"
    layers = int(reader.checkpoint.config.get("num_hidden_layers") or 0)
    expected = sum(tensor.elements for tensor in tensors.values()) // 2
    tried = layers_to_try(expected, layers)
    build(scratch / "in", {built: None} if tried is None else {built: None, trial: tried})
    (graph_file,) = built.glob("*.onnx")
    data_name = f"{graph_file.name}.data"

    def attached_with(choose: Choose) -> Attached:
        return attach(graph_file, data_name, skeleton, tensors, choose, tied=tied)

    def size_with(choose: Choose) -> int:
        found = attached_with(choose)
        beside = [file for file in built.iterdir() if file.name not in (graph_file.name, data_name)]
        return found.size + int(found.model.ByteSize()) + sum(file.stat().st_size for file in beside)

    attached = attached_with(choosing(size_with))
    data = context.checkpoint / data_name
    _prepare(data, context.checkpoint / JOURNAL, attached, built / data_name)
    total = sum(matrix.bytes for matrix in attached.matrices)
    so_far = 0

    def report(written: Written) -> None:
        nonlocal so_far
        so_far += written.bytes
        context.progress(so_far / 1e6, total / 1e6, unit="MB", message=f"rounding {written.name}", error=written.error)

    written = stream(
        attached.matrices,
        reader,
        data,
        context.checkpoint / JOURNAL,
        threads=threads or this_machine().cores,
        done=report,
        quantised=quantised,
    )
    for file in built.iterdir():
        if file.name not in (graph_file.name, data_name):
            shutil.move(file, context.output / file.name)
    onnx.save(attached.model, str(context.output / graph_file.name))
    shutil.move(data, context.output / data_name)
    (context.checkpoint / JOURNAL).unlink()
    context.progress(total / 1e6, total / 1e6, unit="MB", message="comparing what the runtime computes with")
    check_round_trip(context.output / graph_file.name, attached.matrices, reader, quantised)
    if tried is None:
        return Built(tuple(written), None)
    make_trial(trial, context.output / graph_file.name, context.output / data_name)
    context.note(f"the result is tried with its first {tried} of {layers} layers, for it is large")
    return Built(tuple(written), trial)


def _prepare(data: Path, journal: Path, attached: Attached, skeleton_data: Path) -> None:
    """Have a data file of the right size with the small tensors in it; keep the one that a killed run left."""
    if not data.exists() or data.stat().st_size != attached.size:
        journal.unlink(missing_ok=True)
        with open(data, "wb") as stream:
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(stream.fileno(), 0, attached.size)  # a full disk is found now
            stream.truncate(attached.size)
    with open(skeleton_data, "rb") as source, open(data, "r+b") as stream:
        for offset, length, place in attached.copied:
            source.seek(offset)
            stream.seek(place)
            stream.write(source.read(length))
