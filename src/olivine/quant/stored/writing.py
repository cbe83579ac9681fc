"""Writing a quantised checkpoint tensor by tensor: all places are known beforehand, and nothing is held in memory.

A safetensors file begins with the names, shapes and places of its tensors. They follow from the shapes of the original
and from the schemes, so every file has its header and its full size before the first weight is rounded.
"""

from __future__ import annotations

import json
import os
import shutil
import struct
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from olivine.models.checkpoint import BITS, CONFIG, INDEX, SINGLE, TensorInfo
from olivine.models.decoder import FLOATS, HEAD, parts
from olivine.quant.packing import pack
from olivine.quant.reading import TensorReader
from olivine.quant.rounding import Rounded
from olivine.quant.scheme import Scheme
from olivine.quant.stored.form import PackedRows, StoredTensor, scales_as
from olivine.quant.stored.forms import FORMS, FormName, linear_modules

SHARD_BYTES = 2_000_000_000
"""Bytes of tensors in one file, unless one alone is larger."""

SYNC_BYTES = 256 << 20
"""Written between two entries into the journal: what a kill may cost."""

COPY_BYTES = 16 << 20
"""Read at a time of a tensor that is copied."""

ROWS = 32
"""Rows that are written apart begin at a multiple of this, so that every form has them in whole words."""

JOURNAL = "journal.jsonl"


@dataclass(frozen=True)
class Done:
    """A module that is written.

    Attributes:
        name: its name in the form.
        error: Frobenius norm of the rounding error over that of the weights, as the caller said.
        bytes: what it takes.
    """

    name: str
    error: float
    bytes: int


@dataclass(frozen=True)
class _Place:
    """Where a tensor is: the file's name, and its first byte there."""

    tensor: StoredTensor
    file: str
    offset: int


@dataclass(frozen=True)
class _Copy:
    """Rows (or elements) ``start`` to ``stop`` of an original tensor, or all of it, stored as ``name``."""

    name: str
    source: str
    start: int | None = None
    stop: int | None = None


class QuantizedCheckpointWriter:
    """Writes one quantised checkpoint.

    Args:
        reader: the original.
        output: folder for the result; it appears there in :meth:`finish`.
        form: how it is stored.
        schemes: what each module is stored as, by its name in the form; the other tensors are copied.
        work: folder that outlives a killed process and belongs to this result alone; what was written before is found
            there again.
        shard_bytes: bytes of tensors in one file.

    Raises:
        ValueError: there is no such module, or the form cannot hold its scheme.
        OSError: there is no room for the result.
    """

    def __init__(
        self,
        reader: TensorReader,
        output: Path,
        form: FormName,
        schemes: Mapping[str, Scheme],
        *,
        work: Path,
        shard_bytes: int = SHARD_BYTES,
    ) -> None:
        self.form = FORMS[form]
        self.schemes = dict(schemes)
        self._reader = reader
        self._output = output
        self._work = work
        checkpoint = reader.checkpoint
        everything = linear_modules(checkpoint.config, checkpoint.modules, self.form)
        for name, scheme in schemes.items():
            reason = "there is none" if name not in everything else None
            reason = reason or self.form.why_not(everything[name].rows, everything[name].width, scheme)
            if reason:
                raise ValueError(f"module {name} cannot be stored: {reason}")
        self.sources = {name: everything[name] for name in schemes}
        """Where the weight of each module is in the original."""
        self._left = [name for name in everything if name not in schemes]
        self._parts: dict[str, dict[str, StoredTensor]] = {
            name: self.form.tensors(name, source.rows, source.width, self.schemes[name], self.scale_dtype(name))
            for name, source in self.sources.items()
        }
        self._copies = self._find_copies()
        self._headers: dict[str, bytes] = {}
        self._sizes: dict[str, int] = {}
        self._places: dict[str, _Place] = {}
        self._lay_out(shard_bytes)
        work.mkdir(parents=True, exist_ok=True)
        self.done: dict[str, Done] = self._prepare()
        """What is written, that of an earlier run included."""
        self._unsynced: list[Done] = []
        self._replaced: dict[str, np.ndarray[Any, Any]] = {}
        self._copied = False

    def scale_dtype(self, module: str) -> str:
        """Return safetensors' word for the type in which the scales of ``module`` are stored."""
        return self.form.scale_dtype(self._reader.tensors[self.sources[module].tensor].dtype)

    @property
    def tensors(self) -> Mapping[str, TensorInfo]:
        """What the original holds."""
        return self._reader.tensors

    @property
    def waiting(self) -> list[str]:
        """The modules that are still to be written."""
        return [name for name in self.schemes if name not in self.done]

    @property
    def total_bytes(self) -> int:
        """What all tensors take that are rounded or copied."""
        copied = sum(_bytes(self._places[copy.name].tensor) for copy in self._copies)
        return copied + sum(map(self.bytes_of, self.schemes))

    def bytes_of(self, module: str) -> int:
        """Return what the tensors of ``module`` take."""
        return sum(_bytes(tensor) for tensor in self._parts[module].values())

    def add(self, module: str, rounded: Rounded, error: float = 0.0) -> None:
        """Write a whole module, and note it as done.

        Args:
            module: its name in the form, or in the original: a fused one is taken apart if the form does.
            rounded: its weights.
            error: Frobenius norm of their error over that of the original.
        """
        if module in self.schemes:
            self.write_rows(module, 0, packed_rows(rounded))
            self.complete(module, error)
            return
        names = [name for name, source in self.sources.items() if source.module == module]
        if not names:
            raise ValueError(f"module {module} is not to be stored")
        for name in names:
            source = self.sources[name]
            self.write_rows(name, 0, packed_rows(rounded, source.start, source.stop))
            self.complete(name, error)

    def write_rows(self, module: str, start: int, rows: PackedRows) -> None:
        """Write some rows of a module. Threads may do so at the same time; any order will do.

        Args:
            module: its name in the form.
            start: the first row, a multiple of :data:`ROWS`.
            rows: the rows; their number is a multiple of it too, except for the last.

        Raises:
            ValueError: they do not fit the module, or its scheme.
        """
        source = self.sources[module]
        stop = start + rows.rows
        fits = start % ROWS == 0 and stop <= source.rows and (stop % ROWS == 0 or stop == source.rows)
        if not fits or rows.in_features != source.width or rows.scheme != self.schemes[module]:
            raise ValueError(
                f"rows {start} to {stop} of {rows.in_features} in {rows.scheme} do not fit {module}: "
                f"{source.rows} of {source.width} in {self.schemes[module]}"
            )
        for suffix, values in self.form.encode(module, rows, self.scale_dtype(module)).items():
            self._write(f"{module}.{suffix}", start, values)

    def complete(self, module: str, error: float = 0.0) -> Done:
        """Note that all rows of ``module`` are written. It is kept if the process is killed from now on or soon."""
        done = Done(module, error, self.bytes_of(module))
        self.done[module] = done
        self._unsynced.append(done)
        if sum(each.bytes for each in self._unsynced) >= SYNC_BYTES:
            self.sync()
        return done

    def sync(self) -> None:
        """Have what is done on the disk, then note it in the journal."""
        for file in sorted({self._file_of(done.name) for done in self._unsynced}):
            _to_disk(self._work / file)
        with open(self._work / JOURNAL, "a", encoding="utf-8") as stream:
            stream.writelines(json.dumps(asdict(done)) + "\n" for done in self._unsynced)
            stream.flush()
            os.fsync(stream.fileno())
        self._unsynced = []

    def replace(self, tensor: str, values: np.ndarray[Any, Any]) -> None:
        """Have :meth:`copy_rest` write ``values`` where it would copy a tensor of the original.

        Args:
            tensor: its name there; one that is not quantised.
            values: float32, numbers of the type in which it is stored.

        Raises:
            ValueError: they do not fit it.
        """
        if all(copy.source != tensor for copy in self._copies) or values.shape != self.tensors[tensor].shape:
            raise ValueError(f"{tensor} cannot be replaced by {' x '.join(map(str, values.shape))} values")
        dtype = self.tensors[tensor].dtype
        self._replaced[tensor] = values.astype(np.float64) if dtype == "F64" else scales_as(values, dtype)

    def copy_rest(self, progress: Callable[[int], None] = lambda _: None) -> None:
        """Copy what is not quantised, in its type; or write what was given to :meth:`replace`.

        Args:
            progress: called with the bytes that were copied since it was last called.

        Raises:
            ModelError: a value is NaN or Inf.
        """
        for module, source in self.sources.items():
            for suffix, values in self.form.constants(source.rows, source.width, self.schemes[module]).items():
                self._write(f"{module}.{suffix}", 0, values)
        for copy in self._copies:
            self._copy(copy, progress)
        self._copied = True

    def finish(self) -> None:
        """Have everything on the disk, and put it into the output folder.

        Raises:
            ValueError: a module is missing, or :meth:`copy_rest` was not called.
        """
        if self.waiting or not self._copied:
            raise ValueError(f"not written yet: {', '.join(self.waiting) or 'what is not quantised'}")
        self.sync()
        checkpoint = self._reader.checkpoint
        weights = {info.file for info in checkpoint.tensors.values()} | {CONFIG, INDEX}
        for file in checkpoint.files:
            if file.name not in weights:
                shutil.copyfile(file, self._output / file.name)
        config = dict(checkpoint.config)
        if HEAD.removesuffix(".weight") in self.schemes and config.get("tie_word_embeddings"):
            config["tie_word_embeddings"] = False  # the output layer has weights of its own now
        config["quantization_config"] = self.form.config(self.schemes, self._left)
        _write_json(self._output / CONFIG, config)
        if len(self._headers) > 1:
            total = sum(_bytes(place.tensor) for place in self._places.values())
            weight_map = {name: place.file for name, place in sorted(self._places.items())}
            _write_json(self._output / INDEX, {"metadata": {"total_size": total}, "weight_map": weight_map})
        for file_name in self._headers:
            _to_disk(self._work / file_name)
            shutil.move(self._work / file_name, self._output / file_name)
        (self._work / JOURNAL).unlink(missing_ok=True)

    def _find_copies(self) -> list[_Copy]:
        """Return what is not quantised, in the order of the original."""
        config, tensors = self._reader.checkpoint.config, self._reader.tensors
        found = []
        for name, info in sorted(tensors.items(), key=lambda item: (item[1].file, item[1].offset)):
            leaf = name.rsplit(".", 1)[-1]
            pieces = parts(name, info.shape[0], config) if self.form.unfuses and info.shape else []
            if len(pieces) > 1:
                found += [_Copy(f"{each}.{leaf}", name, start, stop) for each, start, stop in pieces]
            else:
                found.append(_Copy(name, name))
        quantised = {f"{module}.weight" for module in self.schemes}
        return [copy for copy in found if copy.name not in quantised]

    def _lay_out(self, shard_bytes: int) -> None:
        """Decide where each tensor goes. The tensors of one module are in one file."""
        units: list[dict[str, StoredTensor]] = []
        for copy in self._copies:
            info = self._reader.tensors[copy.source]
            shape = info.shape if copy.start is None else ((copy.stop or 0) - copy.start, *info.shape[1:])
            units.append({copy.name: StoredTensor(info.dtype, shape)})
        for module, tensors in self._parts.items():
            units.append({f"{module}.{suffix}": tensor for suffix, tensor in tensors.items()})
        shards: list[dict[str, StoredTensor]] = [{}]
        for unit in units:
            size = sum(map(_bytes, (shards[-1] | unit).values()))
            if shards[-1] and size > shard_bytes:
                shards.append({})
            shards[-1] |= unit
        for number, shard in enumerate(shards, 1):
            file = SINGLE if len(shards) == 1 else f"model-{number:05}-of-{len(shards):05}.safetensors"
            self._lay_out_file(file, shard)

    def _lay_out_file(self, file: str, shard: Mapping[str, StoredTensor]) -> None:
        """Decide where in ``file`` each tensor goes: wide types first, so that every element is aligned to its size."""
        ordered = dict(sorted(shard.items(), key=lambda item: -BITS[item[1].dtype]))
        header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
        end = 0
        for name, tensor in ordered.items():
            begin, end = end, end + _bytes(tensor)
            header[name] = {"dtype": tensor.dtype, "shape": list(tensor.shape), "data_offsets": [begin, end]}
        text = json.dumps(header, separators=(",", ":")).encode()
        text += b" " * (-len(text) % 8)
        self._headers[file] = struct.pack("<Q", len(text)) + text
        first = len(self._headers[file])
        self._sizes[file] = first + end
        for name, tensor in ordered.items():
            self._places[name] = _Place(tensor, file, first + header[name]["data_offsets"][0])

    def _prepare(self) -> dict[str, Done]:
        """Have every file at its full size with its header; return what an earlier run has written."""
        fresh = {file for file in self._headers if not self._is_ours(file)}
        journal = self._work / JOURNAL
        kept: dict[str, Done] = {}
        if journal.exists():
            lines = journal.read_text(encoding="utf-8").split("\n")[:-1]  # it may have died over the last
            for done in (Done(**json.loads(line)) for line in lines):
                if done.name in self.schemes and self._file_of(done.name) not in fresh:
                    kept[done.name] = done
            following = journal.with_suffix(".new")
            following.write_text("".join(json.dumps(asdict(done)) + "\n" for done in kept.values()), encoding="utf-8")
            following.replace(journal)
        for file in fresh:
            with open(self._work / file, "wb") as stream:
                if hasattr(os, "posix_fallocate"):
                    os.posix_fallocate(stream.fileno(), 0, self._sizes[file])  # a full disk is found now
                stream.truncate(self._sizes[file])
                stream.write(self._headers[file])
        return kept

    def _is_ours(self, file: str) -> bool:
        """Return whether an earlier run left ``file`` for the same tensors."""
        path, header = self._work / file, self._headers[file]
        if not path.is_file() or path.stat().st_size != self._sizes[file]:
            return False
        with open(path, "rb") as stream:
            return stream.read(len(header)) == header

    def _file_of(self, module: str) -> str:
        """Return the file that the tensors of ``module`` are in."""
        return self._places[f"{module}.{self.form.marks}"].file

    def _write(self, name: str, start: int, values: np.ndarray[Any, Any]) -> None:
        """Write the part of a tensor that begins with output feature ``start``."""
        place = self._places[name]
        tensor, values = place.tensor, np.ascontiguousarray(values)
        first = start // tensor.features
        with open(self._work / place.file, "r+b") as stream:
            if tensor.axis == 1:
                for row, line in enumerate(values):
                    stream.seek(place.offset + (row * tensor.shape[1] + first) * values.itemsize)
                    stream.write(line.data)
                return
            row_bytes = values[:1].nbytes
            stream.seek(place.offset + first * row_bytes)
            stream.write(values.reshape(-1).view(np.uint8).data)

    def _copy(self, copy: _Copy, progress: Callable[[int], None]) -> None:
        """Copy one tensor, having looked for NaN and Inf."""
        info = self._reader.tensors[copy.source]
        matrix = len(info.shape) == 2
        if info.dtype in FLOATS and not matrix:
            self._reader.read(copy.source)
        row_bytes = info.bytes // info.shape[0] if info.shape and info.shape[0] else info.bytes
        start = copy.start or 0
        stop = copy.stop if copy.stop is not None else (info.shape[0] if info.shape else 1)
        step = max(1, COPY_BYTES // max(1, row_bytes))
        place = self._places[copy.name]
        with open(self._work / place.file, "r+b") as stream:
            stream.seek(place.offset)
            if copy.source in self._replaced:
                stream.write(self._replaced[copy.source][start:stop].data)
                progress((stop - start) * row_bytes)
                return
            for first in range(start, stop, step):
                last = min(first + step, stop)
                if info.dtype in FLOATS and matrix:
                    self._reader.read_rows(copy.source, first, last)
                stream.write(self._reader.read_bytes(copy.source, first * row_bytes, last * row_bytes).data)
                progress((last - first) * row_bytes)


def packed_rows(rounded: Rounded, start: int = 0, stop: int | None = None) -> PackedRows:
    """Return rows ``start`` to ``stop`` of a rounded matrix, packed and without the padding of their last group."""
    width = rounded.in_features
    codes = rounded.codes[start:stop, :width].cpu().numpy()
    zeros = None if rounded.zeros is None else rounded.zeros[start:stop].cpu().numpy()
    scales = rounded.scales[start:stop].cpu().numpy()
    return PackedRows(rounded.scheme, width, pack(codes, rounded.scheme.bits), scales, zeros)


def _bytes(tensor: StoredTensor) -> int:
    """Return the size of a tensor."""
    return int(np.prod(tensor.shape, dtype=np.int64)) * BITS[tensor.dtype] // 8


def _write_json(file: Path, content: Mapping[str, Any]) -> None:
    file.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def _to_disk(file: Path) -> None:
    with open(file, "r+b") as stream:
        os.fsync(stream.fileno())
