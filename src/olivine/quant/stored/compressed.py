"""The ``pack-quantized`` form of compressed-tensors, which transformers and vLLM read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from olivine.errors import ModelError
from olivine.quant.scheme import PER_CHANNEL, Scheme
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
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

FORMAT = "pack-quantized"


class CompressedTensorsForm(StoredForm):
    """``weight_packed`` int32 ``(N, words)``, ``weight_scale`` ``(N, groups)``, ``weight_shape`` and zero points.

    Codes and zero points are offset by ``2**(bits - 1)``, so they are stored as Olivine has them. Zero points are
    packed along the output features. Readers keep scales in the type of the weights, so they are stored in it.
    Source: ``compressors/pack_quantized`` of compressed-tensors 0.20.
    """

    name: ClassVar[FormName] = "compressed-tensors"
    marks: ClassVar[str] = "weight_packed"

    def scale_dtype(self, source: str) -> str:
        """See :meth:`StoredForm.scale_dtype`."""
        return source if source in ("F16", "BF16") else "F32"

    def tensors(self, module: str, rows: int, width: int, scheme: Scheme, scale_dtype: str) -> dict[str, StoredTensor]:
        """See :meth:`StoredForm.tensors`."""
        groups, each = scheme.groups(width), 32 // scheme.bits
        found = {
            "weight_packed": StoredTensor("I32", (rows, -(-width // each))),
            "weight_scale": StoredTensor(scale_dtype, (rows, groups)),
            "weight_shape": StoredTensor("I64", (2,), axis=None),
        }
        if not scheme.symmetric:
            found["weight_zero_point"] = StoredTensor("I32", (-(-rows // each), groups), features=each)
        return found

    def why_not(self, rows: int, width: int, scheme: Scheme) -> str | None:
        """See :meth:`StoredForm.why_not`."""
        return divides(width, scheme)

    def config(self, schemes: Mapping[str, Scheme], left: Sequence[str]) -> dict[str, Any]:
        """See :meth:`StoredForm.config`. An exact name counts more than ``Linear``."""
        base = commonest(schemes)
        targets: dict[Scheme, list[str]] = {base: ["Linear"]}
        for module, scheme in schemes.items():
            if scheme != base:
                targets.setdefault(scheme, []).append(module)
        return {
            "quant_method": self.name,
            "format": FORMAT,
            "quantization_status": "compressed",
            "config_groups": {
                f"group_{number}": {
                    "targets": names,
                    "weights": {
                        "num_bits": scheme.bits,
                        "type": "int",
                        "symmetric": scheme.symmetric,
                        "strategy": "channel" if scheme.group_size == PER_CHANNEL else "group",
                        "group_size": None if scheme.group_size == PER_CHANNEL else scheme.group_size,
                        "dynamic": False,
                    },
                    "input_activations": None,
                    "output_activations": None,
                    "format": FORMAT,
                }
                for number, (scheme, names) in enumerate(targets.items())
            },
            "ignore": list(left),
            "kv_cache_scheme": None,
        }

    def scheme_of(self, config: Mapping[str, Any], module: str) -> Scheme:
        """See :meth:`StoredForm.scheme_of`."""
        groups = entries(config.get("config_groups")).values()
        for fits in (_exactly, _by_pattern, _by_class):
            for group in groups:
                if any(fits(target, module) for target in group.get("targets") or ()):
                    return _scheme(group, module)
        raise ModelError(
            f"quantization_config does not say how {module} is quantised",
            remedy="give the checkpoint that this one was quantised from",
        )

    def encode(self, module: str, rows: PackedRows, scale_dtype: str) -> dict[str, NDArray[Any]]:
        """See :meth:`StoredForm.encode`."""
        import numpy as np

        from olivine.quant.packing import pack_compressed

        missing = -rows.packed.shape[1] % 4
        packed = np.pad(rows.packed, ((0, 0), (0, missing))) if missing else np.ascontiguousarray(rows.packed)
        found: dict[str, NDArray[Any]] = {
            "weight_packed": packed.view("<i4"),
            "weight_scale": scales_as(rows.scales, scale_dtype),
        }
        if rows.zeros is not None:
            along_features = pack_compressed(np.ascontiguousarray(rows.zeros.T), rows.scheme.bits)
            found["weight_zero_point"] = np.ascontiguousarray(along_features.T)
        return found

    def constants(self, rows: int, width: int, scheme: Scheme) -> dict[str, NDArray[Any]]:
        """See :meth:`StoredForm.constants`."""
        import numpy as np

        return {"weight_shape": np.array([rows, width], np.int64)}

    def decode(
        self, tensors: Mapping[str, NDArray[Any]], scheme: Scheme, config: Mapping[str, Any], width: int
    ) -> PackedRows:
        """See :meth:`StoredForm.decode`."""
        import numpy as np

        from olivine.quant.packing import unpack_compressed

        words, scales = tensors["weight_packed"], scales_from(tensors["weight_scale"])
        packed = np.ascontiguousarray(words).view(np.uint8)[:, : -(-width * scheme.bits // 8)]
        zeros = None
        if not scheme.symmetric:
            along_features = np.ascontiguousarray(tensors["weight_zero_point"].T)
            zeros = np.ascontiguousarray(unpack_compressed(along_features, scheme.bits, len(words)).T)
        return PackedRows(scheme, width, packed, scales, zeros)


def _exactly(target: str, module: str) -> bool:
    return target == module


def _by_pattern(target: str, module: str) -> bool:
    return target.startswith("re:") and matches(target.removeprefix("re:"), module)


def _by_class(target: str, module: str) -> bool:
    return target == "Linear"


def _scheme(group: Mapping[str, Any], module: str) -> Scheme:
    """Return the scheme of a group of ``config_groups``.

    Raises:
        ModelError: it is none of integers alone.
    """
    weights = group.get("weights") or {}
    strategy = weights.get("strategy")
    others = weights.get("type", "int") != "int" or weights.get("actorder") not in (None, "static", "weight")
    if group.get("input_activations") or others or strategy not in ("group", "channel"):
        raise ModelError(
            f"{module} is quantised in a way that Olivine does not read",
            why=f"its config group has weights of type {weights.get('type')}, strategy {strategy}",
            remedy="give the checkpoint that this one was quantised from",
        )
    size = PER_CHANNEL if strategy == "channel" else weights.get("group_size")
    return read_scheme(weights.get("num_bits"), size, weights.get("symmetric", True), module)
