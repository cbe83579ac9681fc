"""Rows of matrices from safetensors files, one tile at a time.

Files are read, not mapped: what is mapped counts as resident until the system takes it back, and
a file that is cut off while it is read ends the process. Threads may share a reader.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from olivine.errors import Location, ModelError
from olivine.models.checkpoint import Checkpoint, TensorInfo, read_checkpoint

FLOATS: Mapping[str, type[Any]] = {"F64": np.float64, "F32": np.float32, "F16": np.float16, "BF16": np.uint16}
"""Types in which weights are stored, as numpy reads them."""


class TensorReader:
    """The tensors of one checkpoint folder.

    Args:
        path: checkpoint folder; or what :func:`~olivine.models.checkpoint.read_checkpoint` says of it.

    Raises:
        ModelError: see :func:`~olivine.models.checkpoint.read_checkpoint`.
    """

    def __init__(self, path: Path | Checkpoint) -> None:
        self.checkpoint = path if isinstance(path, Checkpoint) else read_checkpoint(path)
        self.tensors: Mapping[str, TensorInfo] = self.checkpoint.tensors

    def read(self, name: str) -> NDArray[np.float32]:
        """Return the whole tensor ``name`` in float32.

        Raises:
            ModelError: its type is no float, its file is cut off, or it holds NaN or Inf.
        """
        info = self.tensors[name]
        return self._floats(name, info, 0, info.elements).reshape(info.shape)

    def read_rows(self, name: str, start: int, stop: int) -> NDArray[np.float32]:
        """Return rows ``start`` to ``stop`` of the matrix ``name`` in float32, shape ``(stop - start, K)``.

        Raises:
            ModelError: see :meth:`read`.
        """
        info = self.tensors[name]
        width = info.shape[1]
        return self._floats(name, info, start * width, stop * width).reshape(stop - start, width)

    def read_bytes(self, name: str, start: int, stop: int) -> NDArray[np.uint8]:
        """Return bytes ``start`` to ``stop`` of the tensor ``name`` as they are stored."""
        info = self.tensors[name]
        return self._read(info, info.offset + start, stop - start)

    def _floats(self, name: str, info: TensorInfo, start: int, stop: int) -> NDArray[np.float32]:
        stored = FLOATS.get(info.dtype)
        if stored is None:
            raise ModelError(
                f"{name} is stored as {info.dtype}, which is no type of unquantised weights",
                where=Location(str(self.checkpoint.path / info.file)),
                why=f"weights are {', '.join(FLOATS)}",
                remedy="give the checkpoint that this one was quantised from",
            )
        size = np.dtype(stored).itemsize
        raw = self._read(info, info.offset + start * size, (stop - start) * size).view(stored)
        if info.dtype == "BF16":
            from olivine.quant.kernels import widen  # numba, which is not for those who read the names only

            values, finite = widen(raw)
        else:
            values = raw.astype(np.float32, copy=False)
            with np.errstate(over="ignore", invalid="ignore"):
                total = values.sum()
            finite = bool(np.isfinite(total) or np.isfinite(values).all())  # a sum may overflow without either
        if not finite:
            place = start + int(np.flatnonzero(~np.isfinite(values))[0])
            raise ModelError(
                f"{name} holds {values[place - start]} at element {place:,}",
                where=Location(str(self.checkpoint.path / info.file)),
                why="a model with such a weight computes nothing but it",
                remedy="download the model again; if you trained it, it diverged: take an earlier checkpoint",
            )
        return values

    def _read(self, info: TensorInfo, offset: int, length: int) -> NDArray[np.uint8]:
        buffer = np.empty(length, np.uint8)
        view = buffer.data
        done = 0
        with open(self.checkpoint.path / info.file, "rb", buffering=0) as stream:
            stream.seek(offset)
            while done < length:
                count = stream.readinto(view[done:])
                if not count:
                    raise ModelError(
                        f"{info.file} ends before its last tensor does",
                        where=Location(str(self.checkpoint.path / info.file)),
                        why="it was cut off while it was read",
                        remedy="download or copy the model again",
                    )
                done += count
        return buffer


def widened(raw: NDArray[np.uint16]) -> NDArray[np.float32]:
    """Return bfloat16 bits as float32: the upper half of the word, the lower being zero.

    torch's own conversion reaches a fraction of the memory's speed on processors without bfloat16 units.
    """
    return np.left_shift(raw, 16, dtype=np.uint32).view(np.float32)
