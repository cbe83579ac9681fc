"""Rounding a matrix to few bits from its values alone, in torch, float32, on whatever device the matrix is.

All searches rest on one fact. For fixed integers ``c = q - z`` the scale that minimises ``sum(i * (w - s * c)**2)`` is
``s = sum(i*w*c) / sum(i*c*c)``, and the error that is left is ``sum(i*w*w) - sum(i*w*c)**2 / sum(i*c*c)``. So a
candidate needs no second pass to be scored, and brings its own best scale.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from olivine.quant.scheme import Rounding, Scheme

if TYPE_CHECKING:
    import torch
    from torch import Tensor

FACTORS = (0.7, 0.78, 0.86, 0.93, 1.0, -0.76, -0.85, -0.93, -1.02, -1.12)
"""Parts of the full range that a symmetric search tries: clipping the few largest weights may serve the many. A
negative one turns the range round, so that the other end gets the extra point. Ten come within 0.5 % of the error that
a hundred leave, at groups of 32 to 128."""

LONG_FACTORS = tuple(step / 25 * sign for step in range(9, 29) for sign in (1, -1))
"""For groups longer than :data:`LONG`: the longer the group, the further out its largest weight, and the more it pays
to clip; and there are fewer scales to find."""

LONG = 256

RANGES = (0.8, 0.87, 0.93, 1.0, 1.04)
"""Parts of the full range that an asymmetric search tries, each with the zero point rounded down and up."""

LONG_RANGES = tuple(step / 25 for step in range(9, 28))

HQQ_ITERATIONS = 20
HQQ_NORM = 0.7
HQQ_BETA = 10.0
HQQ_GROWTH = 1.01
"""As the paper's reference has them: https://mobiusml.github.io/hqq_blog/ (half-quadratic quantisation)."""


@dataclass(frozen=True)
class Rounded:
    """A matrix in few bits.

    Attributes:
        scheme: what it is stored as.
        in_features: ``K``, columns of the matrix.
        codes: ``q``, uint8, shape ``(N, groups * group)``; beyond ``K`` they are the zero point.
        scales: float32, shape ``(N, groups)``, already rounded to the type in which they are stored.
        zeros: ``z``, uint8, shape ``(N, groups)``; ``None`` if the scheme is symmetric.
    """

    scheme: Scheme
    in_features: int
    codes: Tensor
    scales: Tensor
    zeros: Tensor | None

    def dequantise(self) -> Tensor:
        """Return what the runtime computes with: float32, shape ``(N, K)``."""
        rows, groups = self.scales.shape
        codes = self.codes.view(rows, groups, -1).float()
        zeros = self.scheme.middle if self.zeros is None else self.zeros.float().unsqueeze(-1)
        return ((codes - zeros) * self.scales.unsqueeze(-1)).view(rows, -1)[:, : self.in_features]


def round_weights(
    weight: Tensor,
    scheme: Scheme,
    method: Rounding = "search",
    *,
    importance: Tensor | None = None,
    scale_dtype: torch.dtype | None = None,
) -> Rounded:
    """Round ``weight`` to ``scheme``.

    Args:
        weight: float32, shape ``(N, K)``, finite.
        scheme: what to store.
        method: how scales (and zero points) are chosen.

            - ``rtn``: from the range. Symmetric: the largest weight falls on ``-2**(bits-1)``, whatever its sign
              ("max/8"). Asymmetric: least and greatest weight on the ends.
            - ``rtn_half``: symmetric range of ``2**(bits-1) - 0.5`` steps either side ("max/7.5"); else as ``rtn``.
            - ``search``: least squares over :data:`FACTORS` (:data:`RANGES`) of the range.
            - ``k_quant``: the same, each weight counted by its magnitude, after llama.cpp's k-quants.
            - ``hqq``: half-quadratic quantisation: outliers count little. Symmetric schemes move the scale, others the
              zero point.
        importance: how much the error of each input feature counts, shape ``(K,)``, not negative: the mean square of
            its activation, for one. With ``search`` and ``k_quant`` only.
        scale_dtype: type in which the scales will be stored; codes are chosen for scales as stored. Default: float32.

    Returns:
        A :class:`Rounded` on the device of ``weight``.
    """
    import torch

    if method not in ("rtn", "rtn_half", "search", "k_quant", "hqq"):
        raise ValueError(f"there is no rounding {method}")
    rows, width = weight.shape
    grouped = _grouped(weight, scheme)
    groups, group = grouped.shape[1:]
    # One column per group: sums over the first axis run eight groups at a time, and nothing is gathered.
    columns = grouped.reshape(-1, group).T.contiguous()
    counted = None
    if method in ("search", "k_quant"):
        counted = _importance(columns, scheme, method, importance, rows, width)
    zeros: Tensor | None = None
    if scheme.symmetric:
        scales = _symmetric(columns, scheme, method, counted)
    else:
        scales, zeros = _asymmetric(columns, scheme, method, counted)
        zeros = zeros.view(rows, groups).to(torch.uint8)
    scales = as_stored(scales.view(rows, groups), scale_dtype or torch.float32)
    return Rounded(scheme, width, codes_for(grouped, scales, zeros, scheme).view(rows, -1), scales, zeros)


def as_stored(scales: Tensor, dtype: torch.dtype) -> Tensor:
    """Return ``scales`` in float32 with the precision and range of ``dtype``; none is zero.

    A scale of zero would make the kernels divide by it; a group of zeros is stored exactly with any other.
    """
    import torch

    limits = torch.finfo(dtype)
    clamped = scales.clamp(-limits.max, limits.max)
    small = clamped.abs() < limits.tiny
    return torch.where(small, torch.full_like(clamped, limits.tiny), clamped).to(dtype).float()


def codes_for(grouped: Tensor, scales: Tensor, zeros: Tensor | None, scheme: Scheme) -> Tensor:
    """Return the nearest ``q``, uint8, for ``grouped`` of shape ``(N, groups, group)``."""
    import torch

    zero = float(scheme.middle) if zeros is None else zeros.float().unsqueeze(-1)
    codes = grouped * scales.reciprocal().unsqueeze(-1)
    return codes.round_().add_(zero).clamp_(0, scheme.highest).to(torch.uint8)


def _grouped(weight: Tensor, scheme: Scheme) -> Tensor:
    """Return ``weight`` as ``(N, groups, group)``, padded with zeros."""
    import torch

    rows, width = weight.shape
    group, groups = scheme.group(width), scheme.groups(width)
    missing = groups * group - width
    padded = torch.nn.functional.pad(weight, (0, missing)) if missing else weight
    return padded.reshape(rows, groups, group)


def _importance(
    columns: Tensor, scheme: Scheme, method: Rounding, importance: Tensor | None, rows: int, width: int
) -> Tensor | None:
    """Return what each error counts, shape as ``columns``; ``None`` if all count the same."""
    found = None
    if importance is not None:
        per_feature = _grouped(importance.float().view(1, width), scheme)[0].T
        found = per_feature.repeat(1, rows)
    if method == "k_quant":
        by_size = columns.abs() + columns.square().mean(0).sqrt()
        found = by_size if found is None else by_size * found
    return found


def _symmetric(columns: Tensor, scheme: Scheme, method: Rounding, counted: Tensor | None) -> Tensor:
    """Return one scale per column; it may be negative."""
    import torch

    low, high = columns.amin(0), columns.amax(0)
    half = scheme.middle
    widest = torch.maximum(-low, high)
    if method == "rtn_half":
        return widest / (half - 0.5)
    if method == "hqq":
        return _hqq_scale(columns, widest / (half - 0.5), half)
    extreme = torch.where(-low > high, low, high) / -half
    if method == "rtn":
        return extreme
    factors = LONG_FACTORS if len(columns) > LONG else FACTORS
    search = _Search(columns, counted)
    for factor in factors:
        search.offer(extreme * factor, -half, half - 1)
    search.offer(search.scale, -half, half - 1)  # the integers of the best scale, and their best scale again
    return search.scale


def _asymmetric(columns: Tensor, scheme: Scheme, method: Rounding, counted: Tensor | None) -> tuple[Tensor, Tensor]:
    """Return one scale and one zero point per column. Zero is always a point of the grid."""
    top = scheme.highest
    low, high = columns.amin(0).clamp_max_(0), columns.amax(0).clamp_min_(0)
    full = (high - low) / top
    exact = -low * _inverse(full)
    zeros = exact.round().clamp_(0, top)
    if method in ("rtn", "rtn_half"):
        return full, zeros
    if method == "hqq":
        return full, _hqq_zero(columns, full, zeros, top)
    search = _Search(columns, counted)
    best_zero = zeros
    for factor in LONG_RANGES if len(columns) > LONG else RANGES:
        for zero in (exact.floor().clamp_(0, top), exact.ceil().clamp_(0, top)):
            better = search.offer(full * factor, -zero, top - zero)
            best_zero = best_zero.where(~better, zero)
    search.offer(search.scale, -best_zero, top - best_zero)
    return search.scale, best_zero


class _Search:
    """The best scale of each column among those offered, and those they lead to.

    Attributes:
        scale: shape ``(columns,)``.
    """

    def __init__(self, columns: Tensor, counted: Tensor | None) -> None:
        import torch

        self._columns = columns
        self._counted = counted
        self._weighted = columns if counted is None else columns * counted
        self._codes = torch.empty_like(columns)
        self._work = torch.empty_like(columns)
        self._score = torch.full_like(columns[0], -1.0)
        self.scale = torch.zeros_like(columns[0])

    def offer(self, start: Tensor, lowest: Tensor | int, highest: Tensor | int) -> Tensor:
        """Round with ``start`` to ``lowest ... highest``; where the scale that suits those integers is best, keep it.

        Returns:
            Where it is better than all before; bool, shape ``(columns,)``.
        """
        import torch

        codes, work = self._codes, self._work
        torch.mul(self._columns, _inverse(start), out=codes)
        codes.round_()
        if isinstance(lowest, int):
            codes.clamp_(lowest, highest)
        else:
            torch.maximum(codes, lowest, out=codes)
            torch.minimum(codes, torch.as_tensor(highest), out=codes)
        product = torch.mul(self._weighted, codes, out=work).sum(0)
        torch.mul(codes, codes, out=work)
        square = (work if self._counted is None else work.mul_(self._counted)).sum(0)
        inverse = _inverse(square)
        score = product.square() * inverse
        better = score > self._score
        self._score = torch.where(better, score, self._score)
        self.scale = torch.where(better, product * inverse, self.scale)
        return better


def _inverse(scale: Tensor) -> Tensor:
    """Return ``1 / scale``, and 0 where it is 0: such a group holds zeros only."""
    return scale.reciprocal().masked_fill_(scale == 0, 0.0)


def _shrink(error: Tensor, beta: float) -> Tensor:
    """Return the minimiser of ``|e|**p + beta/2 * (e - error)**2``, the generalised soft threshold of HQQ."""
    magnitude = error.abs()
    less = magnitude - magnitude.clamp_min(1e-8).pow(HQQ_NORM - 1) / beta
    return error.sign() * less.clamp_min_(0)


def _hqq_zero(columns: Tensor, scale: Tensor, zero: Tensor, top: int) -> Tensor:
    """Return integer zero points for a fixed ``scale``, each kept only where it lowers the norm."""
    import torch

    inverse = _inverse(scale)
    beta = HQQ_BETA
    best, best_error = zero, torch.full_like(zero, torch.inf)
    current = zero
    for _ in range(HQQ_ITERATIONS):
        whole = current.round().clamp_(0, top)
        error = columns - ((columns * inverse + whole).round_().clamp_(0, top) - whole) * scale
        norm = error.abs().pow_(HQQ_NORM).mean(0)
        better = norm < best_error
        best_error, best = torch.where(better, norm, best_error), torch.where(better, whole, best)
        codes = (columns * inverse + current).round_().clamp_(0, top)
        outliers = _shrink(columns - (codes - current) * scale, beta)
        current = (codes - (columns - outliers) * inverse).mean(0)
        beta *= HQQ_GROWTH
    return best


def _hqq_scale(columns: Tensor, scale: Tensor, half: int) -> Tensor:
    """Return scales by the same splitting with the zero point fixed: least squares on what is left of the weights."""
    import torch

    beta = HQQ_BETA
    best, best_error, current = scale, torch.full_like(scale, torch.inf), scale
    for _ in range(HQQ_ITERATIONS):
        codes = (columns * _inverse(current)).round_().clamp_(-half, half - 1)
        error = columns - codes * current
        norm = error.abs().pow_(HQQ_NORM).mean(0)
        better = norm < best_error
        best_error, best = torch.where(better, norm, best_error), torch.where(better, current, best)
        rest = columns - _shrink(error, beta)
        square = codes.square().sum(0)
        current = torch.where(square > 0, (rest * codes).sum(0) * _inverse(square), current)
        beta *= HQQ_GROWTH
    return best
