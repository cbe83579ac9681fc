"""The calibrated methods by name: which of the parts in this room they put together."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from olivine.quant.calibration.descent import descend
from olivine.quant.calibration.gptq import Elimination, gptq
from olivine.quant.rounding import Rounded, round_weights
from olivine.quant.scheme import Calibrated, Scheme

if TYPE_CHECKING:
    import torch
    from torch import Tensor

ROW_BYTES = 64 << 20
"""Bytes of a matrix's rows that are rounded at a time: rows are independent, and each method holds several copies."""


@dataclass(frozen=True)
class Method:
    """How matrices are rounded with what is known of their inputs.

    Attributes:
        name: ``gptq``: see :func:`.gptq.gptq`. ``scale_estimation``: scales by search, errors counted by the mean
            square of the inputs; then codes and scales in turn, see :func:`.descent.descend`. ``calibrated``: GPTQ,
            then the same.
        damping: added to the diagonal of the second moments, as a share of its mean.
        act_order: whether GPTQ rounds the columns with the largest inputs first.
        sweeps: how often codes and scales have their turn.
        correction: how much of what earlier layers lost each matrix makes up for, 0 to 1: see
            :meth:`.Moments.corrected`. Costs a second run of every layer.
    """

    name: Calibrated = "calibrated"
    damping: float = 0.01
    act_order: bool = True
    sweeps: int = 4
    correction: float = 0.5

    def eliminate(self, hessian: Tensor) -> Elimination:
        """Return what :meth:`round` needs of ``hessian``."""
        return Elimination.of(hessian, damping=self.damping, by_size=self.act_order)

    def round(
        self, weight: Tensor, inputs: Elimination, mean_square: Tensor, scheme: Scheme, scale_dtype: torch.dtype
    ) -> Rounded:
        """Round ``weight``, float32, shape ``(N, K)``, some rows at a time.

        Args:
            weight: the rows.
            inputs: of their inputs' second moments.
            mean_square: of each input feature, shape ``(K,)``.
            scheme: what to store.
            scale_dtype: type in which the scales are stored.
        """
        step = max(1, ROW_BYTES // (4 * weight.shape[1]))
        parts = [
            self._round(weight[start : start + step], inputs, mean_square, scheme, scale_dtype)
            for start in range(0, len(weight), step)
        ]
        return _joined(parts)

    def _round(
        self, weight: Tensor, inputs: Elimination, mean_square: Tensor, scheme: Scheme, scale_dtype: torch.dtype
    ) -> Rounded:
        if self.name == "scale_estimation":
            importance = mean_square if bool((mean_square > 0).any()) else None
            first = round_weights(weight, scheme, "search", importance=importance, scale_dtype=scale_dtype)
        else:
            first = gptq(weight, inputs, scheme, scale_dtype=scale_dtype)
            if self.name == "gptq":
                return first
        return descend(weight, inputs.matrix, first, sweeps=self.sweeps, scale_dtype=scale_dtype)


def _joined(parts: list[Rounded]) -> Rounded:
    """Return the rows of ``parts`` as one matrix."""
    import torch

    if len(parts) == 1:
        return parts[0]

    def join(of: Callable[[Rounded], Tensor]) -> Tensor:
        return torch.cat([of(each) for each in parts])

    first = parts[0]
    zeros = None if first.zeros is None else torch.cat([each.zeros for each in parts if each.zeros is not None])
    return Rounded(
        first.scheme, first.in_features, join(lambda each: each.codes), join(lambda each: each.scales), zeros
    )
