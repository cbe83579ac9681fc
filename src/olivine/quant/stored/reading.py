"""Reading a quantised checkpoint back: the same integers, scales and zero points that were written."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from olivine.errors import Location, ModelError
from olivine.models.checkpoint import CONFIG, TensorInfo
from olivine.quant.packing import unpack
from olivine.quant.reading import TensorReader
from olivine.quant.rounding import Rounded
from olivine.quant.scheme import Scheme
from olivine.quant.stored.form import PackedRows, StoredForm, StoredTensor
from olivine.quant.stored.forms import FORMS

TYPES: Mapping[str, Any] = {
    "U8": np.uint8, "I32": np.dtype("<i4"), "I64": np.dtype("<i8"),
    "F16": np.float16, "F32": np.float32, "BF16": np.uint16,
}  # fmt: skip
"""Types of the tensors of quantised modules, as numpy reads them."""


class QuantizedCheckpointReader:
    """The quantised modules of one checkpoint; threads may share it.

    Args:
        reader: the checkpoint.

    Raises:
        ModelError: it is not quantised, or in a way that Olivine does not read.
    """

    def __init__(self, reader: TensorReader) -> None:
        self._reader = reader
        self._where = Location(str(reader.checkpoint.path / CONFIG))
        said = reader.checkpoint.config.get("quantization_config")
        self._config: Mapping[str, Any] = said if isinstance(said, dict) else {}
        method = self._config.get("quant_method")
        if not isinstance(method, str) or method not in FORMS:
            raise ModelError(
                f"the checkpoint is quantised by {method}" if said else "the checkpoint is not quantised",
                where=self._where,
                why=f"{', '.join(FORMS)} can be read",
                remedy="give the checkpoint that this one was quantised from" if said else "",
            )
        self.form: StoredForm = FORMS[method]

    @cached_property
    def schemes(self) -> dict[str, Scheme]:
        """What each quantised module is stored as, in the order of the checkpoint.

        Raises:
            ModelError: one is stored as Olivine has no scheme for.
        """
        mark = f".{self.form.marks}"
        modules = [name.removesuffix(mark) for name in self._reader.tensors if name.endswith(mark)]
        return {module: self.form.scheme_of(self._config, module) for module in modules}

    def shape(self, module: str) -> tuple[int, int]:
        """Return the output and input features of ``module``.

        Raises:
            ModelError: its tensors are not of the shapes that its scheme asks for.
        """
        scheme = self.schemes[module]
        rows, width = self._shape(module, scheme)
        scales = "weight_scale" if self.form.marks == "weight_packed" else "scales"
        dtype = self._info(f"{module}.{scales}").dtype
        for suffix, tensor in self.form.tensors(module, rows, width, scheme, dtype).items():
            name = f"{module}.{suffix}"
            if tensor.optional and name not in self._reader.tensors:
                continue
            info = self._info(name)
            if (info.dtype, info.shape) != (tensor.dtype, tensor.shape):
                raise ModelError(
                    f"{name} is {info.dtype} of {info.shape}",
                    where=self._where,
                    why=f"{scheme.bits} bits in groups of {scheme.group_size} ask for {tensor.dtype} of {tensor.shape}",
                    remedy="give a checkpoint whose config.json belongs to its weights",
                )
        return rows, width

    @cached_property
    def logical_tensors(self) -> dict[str, TensorInfo]:
        """The tensors that the checkpoint would have if it were not quantised, in its order.

        Each quantised module is one matrix ``MODULE.weight``, said to be float32.

        Raises:
            ModelError: see :meth:`shape`.
        """
        stored: dict[str, tuple[str, TensorInfo]] = {}
        for module, scheme in self.schemes.items():
            rows, width = self.shape(module)
            weight = TensorInfo("F32", (rows, width), "")
            suffixes = self.form.tensors(module, rows, width, scheme, "F32")
            stored |= dict.fromkeys((f"{module}.{suffix}" for suffix in suffixes), (f"{module}.weight", weight))
        return dict(stored.get(name, (name, info)) for name, info in self._reader.tensors.items())

    def read_packed(self, module: str, start: int = 0, stop: int | None = None) -> PackedRows:
        """Return rows ``start`` (a multiple of 32) to ``stop`` of ``module``.

        Raises:
            ModelError: see :meth:`shape`; or a scale is NaN or Inf.
        """
        rows, width = self.shape(module)
        scheme = self.schemes[module]
        stop = rows if stop is None else stop
        if start % 32:
            raise ValueError(f"rows begin at a multiple of 32, not at {start}")
        tensors = {}
        for suffix, tensor in self.form.tensors(module, rows, width, scheme, "F32").items():
            name = f"{module}.{suffix}"
            if name in self._reader.tensors:
                tensors[suffix] = self._rows(name, tensor, start, stop)
        found = self.form.decode(tensors, scheme, self._config, width)
        if not np.isfinite(found.scales).all():
            raise ModelError(
                f"a scale of {module} is NaN or infinite",
                where=self._where,
                remedy="download the model again, or quantise it again",
            )
        if found.zeros is not None:  # zero points in words have room for more rows
            found = PackedRows(scheme, width, found.packed, found.scales, found.zeros[: stop - start])
        return found

    def read_rounded(self, module: str, start: int = 0, stop: int | None = None) -> Rounded:
        """Return rows ``start`` (a multiple of 32) to ``stop`` of ``module``, as they were rounded.

        Raises:
            ModelError: see :meth:`read_packed`.
        """
        import torch

        packed = self.read_packed(module, start, stop)
        scheme, width = packed.scheme, packed.in_features
        codes = unpack(packed.packed, scheme.bits, width)
        missing = scheme.groups(width) * scheme.group(width) - width
        if missing:  # only a row that is one group has any
            zero = np.full((len(codes), 1), scheme.middle, np.uint8) if packed.zeros is None else packed.zeros
            codes = np.concatenate([codes, np.repeat(zero, missing, axis=1)], axis=1)
        return Rounded(
            scheme,
            width,
            torch.from_numpy(np.ascontiguousarray(codes)),
            torch.from_numpy(np.ascontiguousarray(packed.scales)),
            None if packed.zeros is None else torch.from_numpy(np.ascontiguousarray(packed.zeros)),
        )

    def _shape(self, module: str, scheme: Scheme) -> tuple[int, int]:
        """Return what the tensors of ``module`` say of its features."""
        each = 32 // scheme.bits
        mark = self._info(f"{module}.{self.form.marks}").shape
        if len(mark) != 2:
            raise ModelError(f"{module}.{self.form.marks} is no matrix", where=self._where)
        if self.form.name == "gptq":
            return mark[1], mark[0] * each
        if self.form.name == "olive":
            return mark[0], mark[1] * 8 // scheme.bits
        shape = self._whole(f"{module}.weight_shape")
        if shape.shape != (2,):
            raise ModelError(f"{module}.weight_shape is no shape of a matrix", where=self._where)
        return int(shape[0]), int(shape[1])

    def _info(self, name: str) -> TensorInfo:
        info = self._reader.tensors.get(name)
        if info is None:
            raise ModelError(f"{name} is missing", where=self._where, remedy="download the model again")
        if info.dtype not in TYPES:
            raise ModelError(f"{name} is stored as {info.dtype}", where=self._where, why="no form has it so")
        return info

    def _whole(self, name: str) -> NDArray[Any]:
        info = self._info(name)
        return self._values(name, info, 0, info.bytes).reshape(info.shape)

    def _values(self, name: str, info: TensorInfo, start: int, stop: int) -> NDArray[Any]:
        """Return the elements that bytes ``start`` to ``stop`` of a tensor are."""
        raw: NDArray[Any] = self._reader.read_bytes(name, start, stop)
        return raw.view(TYPES[info.dtype])

    def _rows(self, name: str, tensor: StoredTensor, start: int, stop: int) -> NDArray[Any]:
        """Return the part of a tensor that has output features ``start`` to ``stop``."""
        if tensor.axis is None:
            return self._whole(name)
        first, last = start // tensor.features, -(-stop // tensor.features)
        if tensor.axis == 1:
            return self._whole(name)[:, first:last]
        info = self._info(name)
        row_bytes = info.bytes // info.shape[0]
        part = self._values(name, info, first * row_bytes, last * row_bytes)
        return part.reshape(last - first, *info.shape[1:])
