"""A quantised checkpoint as the model it stands for: floats in memory, without the library that its form is from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from olivine.models.decoder import parts
from olivine.quant.stored.compressed import FORMAT
from olivine.quant.stored.forms import FORMS

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from olivine.quant.reading import TensorReader


def can_dequantise(config: Mapping[str, Any]) -> bool:
    """Return whether ``config.json`` speaks of integers in a form that Olivine reads."""
    said = config.get("quantization_config")
    if not isinstance(said, dict):
        return False
    method = said.get("quant_method")
    return method in FORMS and (method != "compressed-tensors" or said.get("format") == FORMAT)


def dequantised(reader: TensorReader, wanted: Mapping[str, Sequence[int]], dtype: torch.dtype) -> dict[str, Tensor]:
    """Return the tensors of a model from its quantised checkpoint.

    Args:
        reader: the checkpoint.
        wanted: shapes of the model's tensors by name. What the form stores apart and the model has in one is put
            together.
        dtype: their type.

    Returns:
        Those of ``wanted`` that the checkpoint has.

    Raises:
        ModelError: the checkpoint is damaged, or stored as Olivine cannot read.
    """
    import torch

    from olivine.quant.stored.reading import QuantizedCheckpointReader

    quantised = QuantizedCheckpointReader(reader)

    def tensor(name: str) -> Tensor | None:
        module = name.removesuffix(".weight")
        if module in quantised.schemes:
            return quantised.read_rounded(module).dequantise().to(dtype)
        return torch.from_numpy(reader.read(name)).to(dtype) if name in reader.tensors else None

    found: dict[str, Tensor] = {}
    for name, shape in wanted.items():
        whole = tensor(name)
        if whole is None and shape:
            leaf = name.rsplit(".", 1)[-1]
            pieces = [tensor(f"{part}.{leaf}") for part, _, _ in parts(name, shape[0], reader.checkpoint.config)]
            present = [piece for piece in pieces if piece is not None]
            whole = torch.cat(present) if present and len(present) == len(pieces) else None
        if whole is not None:
            found[name] = whole
    return found
