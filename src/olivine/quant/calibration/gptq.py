"""Rounding one column after another, each error made up for by the columns that are still free.

GPTQ: Frantar et al., https://arxiv.org/abs/2210.17323.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from olivine.quant.calibration.hessian import damped_factor
from olivine.quant.rounding import Rounded, as_stored, round_weights
from olivine.quant.scheme import Rounding, Scheme

if TYPE_CHECKING:
    import torch
    from torch import Tensor

BLOCK = 128
"""Columns whose errors are passed on to the others at once."""


@dataclass(frozen=True)
class Elimination:
    """What rounding needs of the inputs' second moments; matrices with the same inputs share it.

    Attributes:
        order: columns in the order in which they are rounded.
        ordered: whether that is not simply from left to right.
        upper: ``U``, upper triangular, with ``U^T U`` the inverse of the damped moments in that order.
        matrix: the damped moments, columns in their own order, shape ``(K, K)``.
    """

    order: Tensor
    ordered: bool
    upper: Tensor
    matrix: Tensor

    @classmethod
    def of(cls, hessian: Tensor, *, damping: float = 0.01, by_size: bool = True) -> Elimination:
        """Factorise ``hessian``, shape ``(K, K)``.

        Args:
            hessian: see :attr:`.Moments.hessian`.
            damping: added to its diagonal, as a share of its mean.
            by_size: order columns by the size of their inputs, the largest first.
        """
        import torch

        diagonal = hessian.diagonal()
        order = torch.argsort(diagonal, descending=True, stable=True) if by_size else torch.arange(len(hessian))
        order = order.to(hessian.device)
        factor, matrix = damped_factor(hessian[order][:, order], damping)
        upper = torch.linalg.cholesky(torch.cholesky_inverse(factor), upper=True)
        place = torch.argsort(order)
        return cls(order, by_size, upper, matrix[place][:, place])

    @property
    def cost(self) -> Tensor:
        """What an error in each column costs if those rounded later make up for it, in the columns' own order."""
        import torch

        found = torch.empty_like(self.upper[0])
        found[self.order] = self.upper.diagonal().square().reciprocal()
        return found


def gptq(
    weight: Tensor,
    inputs: Elimination,
    scheme: Scheme,
    *,
    scales: Rounding = "search",
    scale_dtype: torch.dtype | None = None,
) -> Rounded:
    """Round ``weight`` so that ``trace((w - r) H (w - r)^T)`` is small.

    If columns are ordered by size, the groups keep their places ("static groups": every form can hold them), and
    their scales are found beforehand. Otherwise each group's are found when its turn comes.

    Args:
        weight: float32, shape ``(N, K)``.
        inputs: of the moments ``H``.
        scheme: what to store.
        scales: how scales are found. With ``search`` and ``k_quant``, columns count by :attr:`Elimination.cost`.
        scale_dtype: see :func:`~olivine.quant.rounding.round_weights`.
    """
    import torch

    width = weight.shape[1]
    group = scheme.group(width)
    order, upper, ordered = inputs.order, inputs.upper, inputs.ordered
    importance = inputs.cost if scales in ("search", "k_quant") else None
    first = round_weights(weight, scheme, scales, importance=importance, scale_dtype=scale_dtype)
    left = weight[:, order].clone()
    places = (order // group).tolist()
    pivots = upper.diagonal().tolist()
    codes = torch.empty(weight.shape, dtype=torch.uint8, device=weight.device)
    block = BLOCK if ordered else max(BLOCK, min(group, width))  # a group is up to date when its turn comes
    for start in range(0, width, block):
        stop = min(start + block, width)
        errors = torch.empty(len(weight), stop - start, device=weight.device)
        for column in range(start, stop):
            if not ordered and column % group == 0:
                _find_scales(first, left, column, importance, scales, scale_dtype)
            place = places[column]
            scale = first.scales[:, place]
            zero = float(scheme.middle) if first.zeros is None else first.zeros[:, place].float()
            code = (left[:, column] / scale).round_().add_(zero).clamp_(0, scheme.highest)
            error = (left[:, column] - (code - zero) * scale) / pivots[column]
            codes[:, column] = code.to(torch.uint8)
            left[:, column + 1 : stop].addr_(error, upper[column, column + 1 : stop], alpha=-1)
            errors[:, column - start] = error
        left[:, stop:] -= errors @ upper[start:stop, stop:]
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
