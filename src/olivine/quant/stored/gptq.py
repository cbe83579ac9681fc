"""The GPTQ form, version 1, which GPTQModel, vLLM, transformers and onnxruntime-genai's model builder read."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from olivine.errors import ModelError
from olivine.quant.scheme import Scheme
from olivine.quant.stored.form import (
    FormName,
    PackedRows,
    StoredForm,
    StoredTensor,
    commonest,
    divides,
    entries,
    matches,
    read_scheme,
    scales_as,
    scales_from,
    stored_zeros,
)

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class GptqForm(StoredForm):
    """``qweight`` int32 ``(K * bits / 32, N)``, ``scales`` ``(groups, N)``, ``qzeros`` int32, ``g_idx`` int32 ``(K,)``.

    A zero point of 0 would be stored as -1; readers that add the 1 back to whole words (GPTQModel) carry it over into
    the next zero point. So a group with a zero point of 0 is turned round: ``q`` to ``2**bits - 1 - q``, the scale
    negative, which is the same weights exactly.
    Source: the layout of AutoGPTQ; the method is https://arxiv.org/abs/2210.17323. ``dynamic`` is GPTQModel's.
    """

    name: ClassVar[FormName] = "gptq"

    def tensors(self, module: str, rows: int, width: int, scheme: Scheme, scale_dtype: str) -> dict[str, StoredTensor]:
        """See :meth:`StoredForm.tensors`."""
        groups, each = scheme.groups(width), 32 // scheme.bits
        return {
            "qweight": StoredTensor("I32", (width // each, rows), axis=1),
            "qzeros": StoredTensor("I32", (groups, rows // each), axis=1, features=each),
            "scales": StoredTensor(scale_dtype, (groups, rows), axis=1),
            "g_idx": StoredTensor("I32", (width,), axis=None, optional=True),
        }

    def why_not(self, rows: int, width: int, scheme: Scheme) -> str | None:
        """See :meth:`StoredForm.why_not`."""
        for count, what in ((width, "input"), (rows, "output")):
            if count * scheme.bits % 32:
                return f"its {count} {what} features of {scheme.bits} bits do not fill whole 32-bit words"
        return divides(width, scheme)

    def config(self, schemes: Mapping[str, Scheme], left: Sequence[str]) -> dict[str, Any]:
        """See :meth:`StoredForm.config`.

        ``dynamic`` is matched against the beginning of a module's name, by the builder of a tensor's.
        """
        base = commonest(schemes)
        dynamic: dict[str, dict[str, Any]] = {
            f"+:^{re.escape(module)}(\\.|$)": {
                "bits": scheme.bits,
                "group_size": scheme.group_size,
                "sym": scheme.symmetric,
            }
            for module, scheme in schemes.items()
            if scheme != base
        }
        dynamic |= {f"-:^{re.escape(module)}$": {} for module in left if module != "lm_head"}
        return {
            "quant_method": self.name,
            "checkpoint_format": "gptq",
            "bits": base.bits,
            "group_size": base.group_size,
            "sym": base.symmetric,
            "desc_act": False,
            "lm_head": "lm_head" in schemes,
            "dynamic": dynamic,
        }

    def scheme_of(self, config: Mapping[str, Any], module: str) -> Scheme:
        """See :meth:`StoredForm.scheme_of`."""
        own = dict(config)
        for pattern, said in entries(config.get("dynamic")).items():
            if not pattern.startswith("-:") and matches(pattern.removeprefix("+:"), module):
                own |= said
                break
        return read_scheme(own.get("bits"), own.get("group_size"), own.get("sym", True), module)

    def encode(self, module: str, rows: PackedRows, scale_dtype: str) -> dict[str, NDArray[Any]]:
        """See :meth:`StoredForm.encode`."""
        import numpy as np

        from olivine.quant.packing import pack_gptq_zeros

        rows = _turned(rows)
        scheme, zeros = rows.scheme, rows.zeros
        if zeros is None:
            zeros = np.full(rows.scales.shape, scheme.middle, np.uint8)
        words = np.ascontiguousarray(rows.packed).view("<i4")
        return {
            "qweight": np.ascontiguousarray(words.T),
            "qzeros": pack_gptq_zeros(zeros, scheme.bits),
            "scales": scales_as(np.ascontiguousarray(rows.scales.T), scale_dtype),
        }

    def constants(self, rows: int, width: int, scheme: Scheme) -> dict[str, NDArray[Any]]:
        """See :meth:`StoredForm.constants`."""
        return {"g_idx": _group_of_each(scheme, width)}

    def decode(
        self, tensors: Mapping[str, NDArray[Any]], scheme: Scheme, config: Mapping[str, Any], width: int
    ) -> PackedRows:
        """See :meth:`StoredForm.decode`."""
        import numpy as np

        from olivine.quant.packing import unpack_gptq_zeros

        if "g_idx" in tensors and not np.array_equal(tensors["g_idx"], _group_of_each(scheme, width)):
            raise ModelError(
                "the groups of the checkpoint are not consecutive input features",
                why="it was quantised in the order of activations (desc_act), which no other form can hold",
                remedy="give a checkpoint that was quantised with desc_act: false, or the original",
            )
        zeros = unpack_gptq_zeros(tensors["qzeros"], scheme.bits)
        if config.get("checkpoint_format") == "gptq_v2":  # stores them as they are
            zeros = ((zeros.astype(np.int16) - 1) % 2**scheme.bits).astype(np.uint8)
        packed = np.ascontiguousarray(tensors["qweight"].T).view(np.uint8)
        scales = np.ascontiguousarray(scales_from(tensors["scales"]).T)
        return PackedRows(scheme, width, packed, scales, stored_zeros(zeros, scheme))


def _group_of_each(scheme: Scheme, width: int) -> NDArray[np.int32]:
    """Return the group of each input feature."""
    import numpy as np

    return np.arange(width, dtype=np.int32) // scheme.group(width)


def _turned(rows: PackedRows) -> PackedRows:
    """Return the same weights without zero points of 0."""
    import numpy as np

    from olivine.quant.packing import pack, unpack

    if rows.zeros is None or rows.zeros.all():
        return rows
    scheme, width = rows.scheme, rows.in_features
    turn = rows.zeros == 0
    codes = unpack(rows.packed, scheme.bits, width)
    codes = np.where(np.repeat(turn, scheme.group(width), axis=1)[:, :width], scheme.highest - codes, codes)
    return PackedRows(
        scheme,
        width,
        pack(codes, scheme.bits),
        np.where(turn, -rows.scales, rows.scales),
        np.where(turn, scheme.highest, rows.zeros).astype(np.uint8),
    )
