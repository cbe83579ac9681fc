"""Building a GenAI model of a checkpoint that is never in memory: the graph from its skeleton, the weights streamed."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from olivine.hardware.machine import this_machine
from olivine.models.checkpoint import TensorInfo
from olivine.passes.base import RunContext
from olivine.passes.convert.attaching import Attached, Choose, Layout, attach
from olivine.passes.convert.round_trip import check_round_trip
from olivine.passes.convert.skeleton import write_skeleton
from olivine.passes.convert.trial import layers_to_try, make_trial
from olivine.quant.reading import TensorReader
from olivine.quant.stored.reading import QuantizedCheckpointReader
from olivine.quant.streaming import Matrix, Written, stream

JOURNAL = "journal.jsonl"
DATA = "model.onnx.data"


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
    foreseen: Sequence[Matrix] = (),
    beside: bool = False,
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
        foreseen: matrices that the graph will have, each with its place; see :func:`.foreseeing.foresee`.
        beside: whether these are rounded while ``build`` works, which it does in another thread then.

    Raises:
        ModelError: a tensor cannot be read, or is not finite.
        StepError: the runtime computes with other weights than those that were rounded.
        OSError: there is no room for the result; found before anything is rounded, or, with ``beside``, when the graph
            is there.
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
    graphs = {built: None} if tried is None else {built: None, trial: tried}
    data, journal = context.checkpoint / DATA, context.checkpoint / JOURNAL
    progress = _Progress(context, _expected_bytes(foreseen, tensors))

    def round_into_file(matrices: Sequence[Matrix], done: Callable[[Written], None]) -> list[Written]:
        number = threads or this_machine().cores
        return stream(matrices, reader, data, journal, threads=number, done=done, quantised=quantised)

    build_graphs = partial(build, scratch / "in", graphs)
    if beside and foreseen:
        size = Layout(foreseen).size
        if not data.exists() or data.stat().st_size < size:  # it has all its places where a run was killed late
            _make_room(data, journal, size)
        _build_beside(build_graphs, partial(round_into_file, foreseen), progress.tell)
    else:
        build_graphs()
    (graph_file,) = built.glob("*.onnx")
    data_name = f"{graph_file.name}.data"

    def attached_with(choose: Choose, foreseen: Sequence[Matrix]) -> Attached:
        return attach(graph_file, data_name, skeleton, tensors, choose, tied=tied, foreseen=foreseen)

    def size_with(choose: Choose) -> int:
        found = attached_with(choose, foreseen)
        beside = [file for file in built.iterdir() if file.name not in (graph_file.name, data_name)]
        return found.size + int(found.model.ByteSize()) + sum(file.stat().st_size for file in beside)

    choice = choosing(size_with)
    attached = attached_with(choice, foreseen)
    # As a run left it that was killed late, or before it had the graph.
    sizes: tuple[int, ...] = (attached.size, Layout(foreseen).size)
    if not attached.as_foreseen:  # places that no matrix of the graph has would stay empty
        attached, sizes = attached_with(choice, ()), ()
    if data.exists() and data.stat().st_size not in sizes:  # what the journal says is elsewhere
        journal.unlink(missing_ok=True)
        progress.forget()
    _make_room(data, journal, attached.size)
    _copy_small(attached, built / data_name, data)
    progress.total = sum(matrix.bytes for matrix in attached.matrices)
    written = round_into_file(attached.matrices, progress.tell)
    for file in built.iterdir():
        if file.name not in (graph_file.name, data_name):
            shutil.move(file, context.output / file.name)
    onnx.save(attached.model, str(context.output / graph_file.name))
    shutil.move(data, context.output / data_name)
    journal.unlink()
    progress.say(progress.total, "comparing what the runtime computes with")
    check_round_trip(context.output / graph_file.name, attached.matrices, reader, quantised)
    if tried is None:
        return Built(tuple(written), None)
    make_trial(trial, context.output / graph_file.name, context.output / data_name)
    context.note(f"the result is tried with its first {tried} of {layers} layers, for it is large")
    return Built(tuple(written), trial)


def _build_beside(
    build: Callable[[], None],
    round_foreseen: Callable[[Callable[[Written], None]], object],
    done: Callable[[Written], None],
) -> None:
    """Have ``build`` work in another thread meanwhile; ``done`` is called for each matrix that is rounded."""
    with ThreadPoolExecutor(1) as pool:
        building = pool.submit(build)

        def report(written: Written) -> None:
            if building.done():
                building.result()  # raises what went wrong, now and not when all is rounded
            done(written)

        round_foreseen(report)
        building.result()


class _Progress:
    """Tells of each matrix once.

    Attributes:
        total: bytes of all matrices; what is expected, until it is known.
    """

    def __init__(self, context: RunContext, total: int) -> None:
        self.total = total
        self._context = context
        self._told: dict[str, int] = {}

    def tell(self, written: Written) -> None:
        """Tell of a matrix that is done, unless it was told."""
        if written.name not in self._told:
            self._told[written.name] = written.bytes
            self.say(sum(self._told.values()), f"rounding {written.name}", error=written.error)

    def say(self, done: int, message: str, **values: float) -> None:
        """Say how much is done."""
        self._context.progress(done / 1e6, max(done, self.total) / 1e6, unit="MB", message=message, **values)

    def forget(self) -> None:
        """Begin again: what was told is done again."""
        self._told.clear()


def _expected_bytes(foreseen: Sequence[Matrix], tensors: Mapping[str, TensorInfo]) -> int:
    """Return about how many bytes all matrices take, from those of the ``foreseen``."""
    weights = sum(matrix.rows * matrix.width for matrix in foreseen)
    every = sum(tensor.elements for tensor in tensors.values())
    return sum(matrix.bytes for matrix in foreseen) * every // weights if weights else 0


def _make_room(data: Path, journal: Path, size: int) -> None:
    """Have a data file of ``size`` bytes, which keeps what the ``journal`` says is in it."""
    if not data.exists():
        journal.unlink(missing_ok=True)
    with open(data, "r+b" if journal.exists() else "wb") as stream:
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(stream.fileno(), 0, size)  # a full disk is found now
        stream.truncate(size)


def _copy_small(attached: Attached, skeleton_data: Path, data: Path) -> None:
    """Put what the skeleton holds whole into the data file."""
    with open(skeleton_data, "rb") as source, open(data, "r+b") as stream:
        for offset, length, place in attached.copied:
            source.seek(offset)
            stream.seek(place)
            stream.write(source.read(length))
