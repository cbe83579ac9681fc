"""A checkpoint streams through rounding into one file: tile by tile, over all cores, a bounded number in flight.

Nothing here holds more than a few tiles of any matrix. Where each part of each matrix goes is known beforehand, so
tiles are written in whatever order they are done, and a run that was killed goes on with the matrices that are not in
its journal.
"""

from __future__ import annotations

import json
import os
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from io import FileIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from olivine.quant.kernels import as_stored, encode, find_scales
from olivine.quant.packing import pack
from olivine.quant.reading import TensorReader
from olivine.quant.scheme import Rounding, Scheme

if TYPE_CHECKING:
    from olivine.quant.stored.reading import QuantizedCheckpointReader

TILE = 1 << 20
"""Weights in a tile: 4 MiB in float32. Smaller ones cost more in calls, larger ones more memory."""

SYNC_BYTES = 256 << 20
"""Written between two entries into the journal: half of what a kill may cost."""


class Named(Protocol):
    """What has a name."""

    @property
    def name(self) -> str:
        """Its name."""


NamedT = TypeVar("NamedT", bound=Named)


@dataclass(frozen=True)
class Slice:
    """Rows ``start`` to ``stop`` of the matrix ``tensor`` of a checkpoint."""

    tensor: str
    start: int
    stop: int

    @property
    def rows(self) -> int:
        """Number of rows."""
        return self.stop - self.start


@dataclass(frozen=True)
class Region:
    """Where a matrix of ``N`` rows goes in the file; places in bytes.

    Attributes:
        codes: packed codes (or values), row after row.
        scales: scales, row after row.
        zeros: packed zero points, row after row, each row in whole bytes; ``None`` if the scheme is symmetric.
    """

    codes: int
    scales: int = 0
    zeros: int | None = None


@dataclass(frozen=True)
class Matrix:
    """One matrix to be rounded and written.

    Attributes:
        name: for progress and the journal.
        slices: whose rows it has, in order; all of one width.
        width: ``K``, input features.
        scheme: what it is stored as; ``None`` if it is not rounded, and its values go where the codes would.
        method: how it is rounded; ``None`` if the checkpoint holds it rounded.
        scale_type: numpy's name of the type in which its scales, or its values, are stored.
        region: where it goes.
    """

    name: str
    slices: tuple[Slice, ...]
    width: int
    scheme: Scheme | None
    method: Rounding | None
    scale_type: Literal["float32", "float16"]
    region: Region

    @property
    def rows(self) -> int:
        """``N``, output features."""
        return sum(each.rows for each in self.slices)

    @property
    def sizes(self) -> tuple[int, int, int]:
        """Bytes of its codes (or values), scales and zero points."""
        size = np.dtype(self.scale_type).itemsize
        if self.scheme is None:
            return self.rows * self.width * size, 0, 0
        return self.scheme.stored_parts(self.rows, self.width, size)

    @property
    def bytes(self) -> int:
        """Bytes that it takes in the file."""
        return sum(self.sizes)

    @property
    def end(self) -> int:
        """The byte of the file after its last."""
        places = (self.region.codes, self.region.scales, self.region.zeros or 0)
        return max(place + size for place, size in zip(places, self.sizes, strict=True))


@dataclass(frozen=True)
class Written:
    """A matrix that is done.

    Attributes:
        name: its name.
        error: Frobenius norm of the error over that of the matrix.
        bytes: what it takes.
    """

    name: str
    error: float
    bytes: int


def stream(
    matrices: Sequence[Matrix],
    reader: TensorReader,
    file: Path,
    journal: Path,
    *,
    threads: int,
    done: Callable[[Written], None] = lambda _: None,
    quantised: QuantizedCheckpointReader | None = None,
) -> list[Written]:
    """Round every matrix and write it into ``file``, which has its final size already.

    Args:
        matrices: what to do, in this order.
        reader: the checkpoint.
        file: where to.
        journal: file that remembers what is done; delete it and everything is done again. It must belong to these
            matrices and this file.
        threads: tiles that are worked on at the same time.
        done: called for each matrix when it is done, those of an earlier run first.
        quantised: the same checkpoint, for matrices that it holds rounded; their slices name modules with ``.weight``.

    Returns:
        One entry per matrix.

    Raises:
        ModelError: a weight is NaN or Inf, or a file is cut off.
    """
    finished = _read_journal(journal)
    for matrix in matrices:
        if matrix.name in finished:
            done(finished[matrix.name])
    waiting = [matrix for matrix in matrices if matrix.name not in finished]
    unsynced: list[Written] = []
    # The disk is waited for beside the rounding, for one part at a time: a kill costs two of them at most.
    with ThreadPoolExecutor(1) as pool:
        recorded: Future[None] | None = None
        for written in _written(waiting, reader, file, threads, quantised):
            done(written)
            finished[written.name] = written
            unsynced.append(written)
            if sum(each.bytes for each in unsynced) >= SYNC_BYTES:
                if recorded is not None:
                    recorded.result()
                recorded, unsynced = pool.submit(_record, journal, file, unsynced), []
        if recorded is not None:
            recorded.result()
        _record(journal, file, unsynced)
    return [finished[matrix.name] for matrix in matrices]


def _written(
    matrices: Sequence[Matrix],
    reader: TensorReader,
    file: Path,
    threads: int,
    quantised: QuantizedCheckpointReader | None,
) -> Iterator[Written]:
    """Yield each matrix when its last tile is in the file."""
    calls = (
        (
            matrix,
            partial(_tile, matrix, matrix.method, first, part, reader, file)
            if matrix.method is not None or quantised is None
            else partial(_stored_tile, matrix, first, part, quantised, file),
        )
        for matrix in matrices
        for first, part in _tiles(matrix)
    )
    left = {matrix.name: sum(1 for _ in _tiles(matrix)) for matrix in matrices}
    for matrix, error in tile_errors(calls, left, threads):
        yield Written(matrix.name, error, matrix.bytes)


def tile_errors(
    calls: Iterator[tuple[NamedT, Callable[[], tuple[float, float]]]], tiles: Mapping[str, int], threads: int
) -> Iterator[tuple[NamedT, float]]:
    """Make ``calls`` in ``threads`` threads, twice as many in flight; yield each matrix with its error when it is done.

    Args:
        calls: for each tile its matrix, and what returns the squares of the norms of its error and of itself.
        tiles: how many tiles each matrix has, by name.
        threads: calls at the same time.
    """
    pending: deque[tuple[NamedT, Future[tuple[float, float]]]] = deque()
    errors: dict[str, list[tuple[float, float]]] = {}
    with ThreadPoolExecutor(threads) as pool:
        try:
            while True:
                while len(pending) < 2 * threads and (upcoming := next(calls, None)) is not None:
                    pending.append((upcoming[0], pool.submit(upcoming[1])))
                if not pending:
                    return
                matrix, future = pending.popleft()
                found = errors.setdefault(matrix.name, [])
                found.append(future.result())
                if len(found) == tiles[matrix.name]:
                    lost, whole = (sum(parts) for parts in zip(*errors.pop(matrix.name), strict=True))
                    yield matrix, (lost / whole) ** 0.5 if whole else 0.0
        finally:
            for _, future in pending:
                future.cancel()


def _tiles(matrix: Matrix) -> Iterator[tuple[int, Slice]]:
    """Yield the first row in the matrix and the slice of each tile."""
    step = max(32, TILE // matrix.width // 32 * 32)  # a word of packed zero points may span 32 rows
    first = 0
    for each in matrix.slices:
        for start in range(each.start, each.stop, step):
            part = Slice(each.tensor, start, min(start + step, each.stop))
            yield first, part
            first += part.rows


def _stored_tile(
    matrix: Matrix, first: int, part: Slice, quantised: QuantizedCheckpointReader, file: Path
) -> tuple[float, float]:
    """Write one tile as the checkpoint holds it; its error is not known."""
    before = part.start % 32
    found = quantised.read_packed(part.tensor.removesuffix(".weight"), part.start - before, part.stop)
    region = matrix.region
    parts = [(region.codes, found.packed), (region.scales, found.scales.astype(matrix.scale_type, copy=False))]
    if found.zeros is not None and region.zeros is not None:
        parts.append((region.zeros, pack(found.zeros, found.scheme.bits)))
    rows = [(start, np.ascontiguousarray(each[before:])) for start, each in parts]
    _write(file, [(start + first * each[0].nbytes, each) for start, each in rows])
    return 0.0, 0.0


def _tile(
    matrix: Matrix, method: Rounding | None, first: int, part: Slice, reader: TensorReader, file: Path
) -> tuple[float, float]:
    """Round one tile and write it; return the squares of the norms of its error and of itself."""
    values = reader.read_rows(part.tensor, part.start, part.stop)
    if matrix.scheme is None or method is None:
        stored = values.astype(matrix.scale_type, copy=False)
        _write(file, [(matrix.region.codes + first * matrix.width * stored.itemsize, stored)])
        lost = values - stored
        return float(np.vdot(lost, lost)), float(np.vdot(values, values))
    scheme, region = matrix.scheme, matrix.region
    scales, zeros = stored_scales(values, scheme, method, matrix.scale_type)
    packed, lost_square, whole_square = encode(values, scheme, scales, zeros)
    parts = [(region.codes, packed), (region.scales, scales.astype(matrix.scale_type, copy=False))]
    if region.zeros is not None:
        parts.append((region.zeros, pack(zeros, scheme.bits)))
    _write(file, [(start + first * each[0].nbytes, each) for start, each in parts])
    return lost_square, whole_square


def stored_scales(
    values: NDArray[np.float32], scheme: Scheme, method: Rounding, scale_type: Literal["float32", "float16", "bfloat16"]
) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """Return scales as they will be stored in ``scale_type``, and zero points, also for a symmetric scheme."""
    if method != "hqq":
        found, zeros = find_scales(values, scheme, method)
        return as_stored(found, scale_type), zeros
    import torch

    from olivine.quant.rounding import round_weights

    dtype = getattr(torch, scale_type)
    rounded = round_weights(torch.from_numpy(values), scheme, "hqq", scale_dtype=dtype)
    scales = rounded.scales.numpy()
    if rounded.zeros is None:
        return scales, np.full(scales.shape, scheme.middle, np.uint8)
    return scales, rounded.zeros.numpy()


def _write(file: Path, parts: Sequence[tuple[int, NDArray[Any]]]) -> None:
    """Write each array at its place."""
    with open(file, "r+b", buffering=0) as stream:
        for place, values in parts:
            stream.seek(place)
            _write_whole(stream, np.ascontiguousarray(values))


def _write_whole(stream: FileIO, values: NDArray[Any]) -> None:
    """Write all of ``values``: an unbuffered file may take less at a time, at a full disk for one."""
    view = values.reshape(-1).view(np.uint8).data
    while view:
        view = view[stream.write(view) :]


def _read_journal(journal: Path) -> dict[str, Written]:
    """Return what an earlier run has done, having cut off a last line that it died over."""
    if not journal.exists():
        return {}
    lines = journal.read_text(encoding="utf-8").split("\n")[:-1]
    journal.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
    return {found["name"]: Written(**found) for found in map(json.loads, lines)}


def _record(journal: Path, file: Path, written: Sequence[Written]) -> None:
    """Have ``file`` on the disk, then note ``written`` in the journal."""
    with open(file, "r+b") as stream:
        os.fsync(stream.fileno())
    with open(journal, "a", encoding="utf-8") as stream:
        stream.writelines(json.dumps(asdict(each)) + "\n" for each in written)
        stream.flush()
        os.fsync(stream.fileno())
