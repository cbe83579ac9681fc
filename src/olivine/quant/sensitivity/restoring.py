"""Weights as the runtime will compute with them, by the rounding that the stream uses."""

from __future__ import annotations

from typing import TYPE_CHECKING

from olivine.quant.scheme import Rounding, Scheme

if TYPE_CHECKING:
    from torch import Tensor

from typing import Literal


def restored(
    weight: Tensor, scheme: Scheme, method: Rounding, scale_type: Literal["float32", "float16"] = "float32"
) -> Tensor:
    """Return ``weight``, float32 on the CPU of shape ``(N, K)``, rounded to ``scheme`` and back."""
    import torch

    from olivine.quant.streaming import stored_scales

    scales, zeros = stored_scales(weight.numpy(), scheme, method, scale_type)
    rows, width = weight.shape
    groups, group = scheme.groups(width), scheme.group(width)
    padded = torch.nn.functional.pad(weight, (0, groups * group - width)) if width % group else weight
    grouped = padded.view(rows, groups, group)
    scale = torch.from_numpy(scales).unsqueeze(-1)
    zero = torch.from_numpy(zeros).unsqueeze(-1).float()
    codes = (grouped * scale.reciprocal()).round_().add_(zero).clamp_(0, scheme.highest)
    return codes.sub_(zero).mul_(scale).view(rows, -1)[:, :width]
