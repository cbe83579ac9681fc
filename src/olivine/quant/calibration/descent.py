"""Making a rounded matrix better on its inputs: every code and every scale in turn, the others fixed.

With ``e = w - r`` a row's error and ``H`` the second moments of its inputs, the row costs ``e H e^T``. Where all but
one weight are fixed, the best value of that one is ``r_j + (e H)_j / H_jj``, and the nearest point of its grid is the
best code: coordinate descent, as in QuantEase (https://arxiv.org/abs/2309.01885) and CDQuant
(https://arxiv.org/abs/2406.17542). Where all codes and all but one scale are fixed, the best step of that scale is
``(e H)_g c_g^T / (c_g H_gg c_g^T)``, with ``c = q - z``. Neither makes the row worse, but for
the rounding of a scale to the type in which it is stored.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from olivine.quant.rounding import Rounded, as_stored

if TYPE_CHECKING:
    import torch
    from torch import Tensor

BLOCK = 128
"""Columns whose products with the whole error are kept up to date one by one."""


def descend(
    weight: Tensor,
    matrix: Tensor,
    rounded: Rounded,
    *,
    sweeps: int = 4,
    scales: bool = True,
    scale_dtype: torch.dtype | None = None,
) -> Rounded:
    """Return ``rounded`` with better codes and scales for ``weight``.

    Args:
        weight: float32, shape ``(N, K)``.
        matrix: ``H``, damped, shape ``(K, K)``.
        rounded: where to begin.
        sweeps: times that every weight has its turn.
        scales: whether scales are changed too.
        scale_dtype: type in which they are stored.
    """
    import torch

    scheme, width = rounded.scheme, rounded.in_features
    diagonal = matrix.diagonal().tolist()
    group = scheme.group(width)
    zeros = None if rounded.zeros is None else rounded.zeros.float()
    steps = rounded.codes[:, :width].float()  # c = q - z
    steps -= float(scheme.middle) if zeros is None else zeros.repeat_interleave(group, 1)[:, :width]
    found = rounded.scales.clone()
    error = weight - steps * found.repeat_interleave(group, 1)[:, :width]
    for _ in range(sweeps):
        changed = 0
        for place in range(found.shape[1]):
            first, last = place * group, min((place + 1) * group, width)
            low = -float(scheme.middle) if zeros is None else -zeros[:, place]
            high = low + scheme.highest
            for start in range(first, last, BLOCK):
                stop = min(start + BLOCK, last)
                slope = error @ matrix[:, start:stop]
                within = matrix[start:stop, start:stop]
                if scales and stop - start == last - first:  # the whole group is here
                    _step_scale(found, place, steps[:, start:stop], slope, within, error[:, start:stop], scale_dtype)
                scale = found[:, place]
                for column in range(start, stop):
                    current = steps[:, column]
                    wanted = current + slope[:, column - start] / (diagonal[column] * scale)
                    wanted = wanted.round_().clamp_(low, high)
                    move = (wanted - current) * scale
                    slope.addr_(move, within[column - start], alpha=-1)
                    error[:, column] -= move
                    changed += int((wanted != current).sum())
                    steps[:, column] = wanted
            if scales and last - first > BLOCK:
                slope = error @ matrix[:, first:last]
                within = matrix[first:last, first:last]
                _step_scale(found, place, steps[:, first:last], slope, within, error[:, first:last], scale_dtype)
        if changed < 1e-4 * weight.numel():
            break
    codes = rounded.codes.clone()
    steps += float(scheme.middle) if zeros is None else zeros.repeat_interleave(group, 1)[:, :width]
    codes[:, :width] = steps.to(torch.uint8)
    return Rounded(scheme, width, codes, found, rounded.zeros)


def _step_scale(
    scales: Tensor,
    place: int,
    steps: Tensor,
    slope: Tensor,
    within: Tensor,
    error: Tensor,
    scale_dtype: torch.dtype | None,
) -> None:
    """Move the scales of one group to their best values; keep ``slope`` and ``error`` in step."""
    import torch

    moved = steps @ within
    curve = (moved * steps).sum(1)
    step = torch.where(curve > 0, (slope * steps).sum(1) / curve, torch.zeros_like(curve))
    better = as_stored(scales[:, place] + step, scale_dtype or torch.float32)
    step = (better - scales[:, place]).unsqueeze(1)
    scales[:, place] = better
    error -= step * steps
    slope -= step * moved
