"""Rounding one column after another, each error made up for by the columns that are still free.

GPTQ: Frantar et al., https://arxiv.org/abs/2210.17323.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from olivine.quant.calibration.hessian import damped_factor
from olivine.quant.rounding import Rounded, as_stored, round_weights
from olivine.quant.scheme import Rounding, Scheme

if TYPE_CHECKING:
    import torch
    from torch import Tensor

BLOCK = 128
"""Columns whose errors are passed on to the others at once."""


def gptq(
    weight: Tensor,
    hessian: Tensor,
    scheme: Scheme,
    *,
    scales: Rounding = "search",
    damping: float = 0.01,
    reorder: bool = True,
    scale_dtype: torch.dtype | None = None,
) -> Rounded:
    """Round ``weight`` so that ``trace((w - r) H (w - r)^T)`` is small.

    Args:
        weight: float32, shape ``(N, K)``.
        hessian: ``H``, shape ``(K, K)``: see :attr:`.Moments.hessian`.
        scheme: what to store.
        scales: how scales are found. With ``search``, the error of a column counts by what it would cost if the columns
            after it made up for it as well as they can.
        damping: added to the diagonal of ``H``, as a share of its mean.
        reorder: columns are rounded in the order of their inputs' size, and the groups keep their places ("static
            groups": any form holds them); their scales are found beforehand. Otherwise from left to right, each
            group's scales found when its turn comes.
        scale_dtype: see :func:`~olivine.quant.rounding.round_weights`.
    """
    import torch

    width = weight.shape[1]
    order = torch.argsort(hessian.diagonal(), descending=True) if reorder else torch.arange(width, device=weight.device)
    matrix = hessian[order][:, order]
    factor, matrix = damped_factor(matrix, damping)
    upper = torch.linalg.cholesky(torch.cholesky_inverse(factor), upper=True)
    cost = upper.diagonal().square().reciprocal()
    group = scheme.group(width)
    if reorder:
        importance = torch.empty_like(cost)
        importance[order] = cost
    else:
        importance = cost
    counted = importance if scales in ("search", "k_quant") else None
    first = round_weights(weight, scheme, scales, importance=counted, scale_dtype=scale_dtype)
    left = weight[:, order].clone()
    places = order // group
    codes = torch.empty(weight.shape, dtype=torch.uint8, device=weight.device)
    for start in range(0, width, BLOCK):
        stop = min(start + BLOCK, width)
        errors = torch.empty(len(weight), stop - start, device=weight.device)
        for column in range(start, stop):
            if not reorder and column % group == 0 and column:
                _find_scales(first, left, column, counted, scales, scale_dtype)
            place = int(places[column])
            scale = first.scales[:, place]
            zero = float(scheme.middle) if first.zeros is None else first.zeros[:, place].float()
            code = (left[:, column] / scale).round_().add_(zero).clamp_(0, scheme.highest)
            error = (left[:, column] - (code - zero) * scale) / upper[column, column]
            codes[:, column] = code.to(torch.uint8)
            end = stop if reorder else max(stop, min(width, (column // group + 1) * group))
            left[:, column + 1 : end].addr_(error, upper[column, column + 1 : end], alpha=-1)
            errors[:, column - start] = error
        end = stop if reorder else max(stop, min(width, -(-stop // group) * group))
        left[:, end:] -= errors @ upper[start:stop, end:]
    stored = first.codes.clone()
    stored[:, order] = codes
    return Rounded(scheme, width, stored, first.scales, first.zeros)


def _find_scales(
    found: Rounded,
    left: Tensor,
    column: int,
    importance: Tensor | None,
    method: Rounding,
    scale_dtype: torch.dtype | None,
) -> None:
    """Find the scales of the group that begins with ``column`` again, for what is left of its weights."""
    import torch

    group = found.scheme.group(found.in_features)
    stop = min(column + group, found.in_features)
    part = round_weights(
        left[:, column:stop],
        found.scheme,
        method,
        importance=None if importance is None else importance[column:stop],
        scale_dtype=scale_dtype or torch.float32,
    )
    found.scales[:, column // group] = as_stored(part.scales[:, 0], scale_dtype or torch.float32)
    if found.zeros is not None and part.zeros is not None:
        found.zeros[:, column // group] = part.zeros[:, 0]
