"""What calibration knows of the inputs of a matrix: second moments, in float32."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from torch import Tensor


class Moments:
    """Second moments of the inputs of one linear module, and what they lack of the original model's.

    Where earlier layers are quantised already, the module gets inputs ``x`` instead of the original ``o``. What its
    weight should be then is no longer ``w``, but what makes ``x`` come nearest to ``w o``: see :meth:`corrected`.

    Args:
        width: ``K``, input features.
        device: where they accumulate.
    """

    def __init__(self, width: int, device: torch.device | str = "cpu") -> None:
        import torch

        self._sum = torch.zeros(width, width, device=device)
        self._missing: Tensor | None = None
        self.count = 0

    def add(self, inputs: Tensor, original: Tensor | None = None) -> None:
        """Take in ``inputs`` of shape ``(tokens, K)``, and the ``original`` model's for the same tokens."""
        import torch

        values = inputs.float()
        self._sum.addmm_(values.T, values)
        self.count += len(values)
        if original is not None:
            if self._missing is None:
                self._missing = torch.zeros_like(self._sum)
            self._missing.addmm_((original.float() - values).T, values)

    @property
    def hessian(self) -> Tensor:
        """The mean of ``x^T x``, shape ``(K, K)``: half the second derivative of a row's squared output error."""
        return self._sum / max(self.count, 1)

    @property
    def mean_square(self) -> Tensor:
        """The mean of ``x**2``, shape ``(K,)``."""
        return self._sum.diagonal() / max(self.count, 1)

    def corrected(self, weight: Tensor, share: float = 1.0, damping: float = 0.01) -> Tensor:
        """Return the weight whose outputs for ``inputs`` are nearest to those of ``weight`` for ``original``.

        By least squares it is ``w + w E[(o - x)^T x] E[x^T x]^-1``: the asymmetric calibration of GPTAQ
        (https://arxiv.org/abs/2504.02692), solved before rounding instead of during it.

        Args:
            weight: shape ``(N, K)``.
            share: how much of the way to go, 0 to 1. A few thousand tokens do not tell signal from chance.
            damping: added to the diagonal, as a share of its mean.
        """
        import torch

        if self._missing is None or not share:
            return weight
        factor = damped_factor(self.hessian, damping)[0]
        wanted = weight @ (self._missing / max(self.count, 1))
        return weight + share * torch.cholesky_solve(wanted.T, factor).T


def damped(hessian: Tensor, damping: float) -> Tensor:
    """Return ``hessian`` with ``damping`` times the mean of its diagonal added to it."""
    found = hessian.clone()
    mean = float(found.diagonal().mean())
    found.diagonal().add_(damping * mean if mean > 0 else 1.0)
    return found


def damped_factor(hessian: Tensor, damping: float) -> tuple[Tensor, Tensor]:
    """Return the lower Cholesky factor of the damped matrix, and that matrix; damped more if it has none."""
    import torch

    while True:
        matrix = damped(hessian, damping)
        factor, failed = torch.linalg.cholesky_ex(matrix)
        if not int(failed):
            return factor, matrix
        damping *= 10
