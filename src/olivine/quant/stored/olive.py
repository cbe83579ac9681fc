"""Olive's form: rows of codes as ONNX Runtime has them. onnxruntime-genai's model builder reads it as it is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from olivine.quant.scheme import PER_CHANNEL, Scheme
from olivine.quant.stored.form import (
    FormName,
    PackedRows,
    StoredForm,
    StoredTensor,
    commonest,
    divides,
    entries,
    read_scheme,
    scales_as,
    scales_from,
    stored_zeros,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray


class OliveForm(StoredForm):
    """``qweight`` uint8 ``(N, K * bits / 8)``, ``scales`` ``(N, groups)``, ``qzeros`` uint8 ``(N, bytes of a row)``.

    The builder splits the zero points of a fused matrix at the wrong rows, so matrices are stored apart. It takes every
    matrix of a layer for a quantised one. It joins q, k and v, and fails if they have no zero points: so these have
    them also where the scheme is symmetric.
    Source: ``onnxruntime_genai/models/loaders/olive.py``, and ``olive/common/quant`` of Olive 0.13.
    """

    name: ClassVar[FormName] = "olive"
    unfuses: ClassVar[bool] = True
    all_or_nothing: ClassVar[bool] = True

    def tensors(self, module: str, rows: int, width: int, scheme: Scheme, scale_dtype: str) -> dict[str, StoredTensor]:
        """See :meth:`StoredForm.tensors`."""
        groups = scheme.groups(width)
        found = {
            "qweight": StoredTensor("U8", (rows, width * scheme.bits // 8)),
            "scales": StoredTensor(scale_dtype, (rows, groups)),
        }
        if not scheme.symmetric or _is_joined(module):
            zero_bytes = -(-groups * scheme.bits // 8)
            found["qzeros"] = StoredTensor("U8", (rows, zero_bytes), optional=scheme.symmetric)
        return found

    def why_not(self, rows: int, width: int, scheme: Scheme) -> str | None:
        """See :meth:`StoredForm.why_not`."""
        if scheme.group_size == PER_CHANNEL and scheme.group(width) != width:
            return f"one group of its {width} input features is no power of two, which the runtime's kernels ask for"
        return divides(width, scheme) or scheme.why_no_kernel(width)

    def config(self, schemes: Mapping[str, Scheme], left: Sequence[str]) -> dict[str, Any]:
        """See :meth:`StoredForm.config`."""
        base = commonest(schemes)
        return {
            "quant_method": self.name,
            "bits": base.bits,
            "group_size": base.group_size,
            "symmetric": base.symmetric,
            "lm_head": "lm_head" in schemes,
            "embeds": False,
            "modules_to_not_convert": [module for module in left if module != "lm_head"],
            "overrides": {
                module: {"bits": scheme.bits, "group_size": scheme.group_size, "symmetric": scheme.symmetric}
                for module, scheme in schemes.items()
                if scheme != base
            },
        }

    def scheme_of(self, config: Mapping[str, Any], module: str) -> Scheme:
        """See :meth:`StoredForm.scheme_of`."""
        own = {**config, **entries(config.get("overrides")).get(module, {})}
        return read_scheme(own.get("bits"), own.get("group_size"), own.get("symmetric"), module)

    def encode(self, module: str, rows: PackedRows, scale_dtype: str) -> dict[str, NDArray[Any]]:
        """See :meth:`StoredForm.encode`."""
        import numpy as np

        from olivine.quant.packing import pack

        found: dict[str, NDArray[Any]] = {"qweight": rows.packed, "scales": scales_as(rows.scales, scale_dtype)}
        zeros = rows.zeros
        if zeros is None and _is_joined(module):
            zeros = np.full(rows.scales.shape, rows.scheme.middle, np.uint8)
        if zeros is not None:
            found["qzeros"] = pack(zeros, rows.scheme.bits)
        return found

    def decode(
        self, tensors: Mapping[str, NDArray[Any]], scheme: Scheme, config: Mapping[str, Any], width: int
    ) -> PackedRows:
        """See :meth:`StoredForm.decode`."""
        from olivine.quant.packing import unpack

        zeros = None
        if "qzeros" in tensors:
            zeros = stored_zeros(unpack(tensors["qzeros"], scheme.bits, scheme.groups(width)), scheme)
        return PackedRows(scheme, width, tensors["qweight"], scales_from(tensors["scales"]), zeros)


def _is_joined(module: str) -> bool:
    """Return whether the builder joins ``module`` with others."""
    return module.endswith((".q_proj", ".k_proj", ".v_proj"))
