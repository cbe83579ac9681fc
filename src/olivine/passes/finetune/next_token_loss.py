"""Cross-entropy of the next token without ever holding all logits.

Plain training computes logits for every position, also those that the loss leaves out, and keeps three copies of
``tokens x vocabulary``. Here the output head runs over chunks of those positions that count, and each chunk's gradient
is taken at once (the scheme of Hsu et al., "Liger Kernel", https://arxiv.org/abs/2410.10989, section 3.2).
"""

from __future__ import annotations

from typing import Any

IGNORED = -100
"""Label of a token that is not in the loss."""

CHUNK_TOKENS = 1024
"""Positions whose logits are held at once: fewer would read the output head too often, more would leave the cache."""


def chunked_cross_entropy(hidden: Any, weight: Any, bias: Any, targets: Any, divisor: Any) -> Any:
    """Return ``sum(cross entropy) / divisor`` of ``targets``, differentiable in ``hidden``.

    Args:
        hidden: last hidden states, shape (tokens, width), any float dtype.
        weight: the output head, shape (vocabulary, width). It gets no gradient: it must be frozen.
        bias: shape (vocabulary,) or ``None``.
        targets: token ids, shape (tokens,).
        divisor: what the sum is divided by: the number of tokens in the loss of the whole accumulated batch.
    """
    return _function().apply(hidden, weight, bias, targets, divisor)


_cached: Any = None


def _function() -> Any:
    """Define the autograd function on first use: torch is not imported with this module."""
    global _cached
    if _cached is not None:
        return _cached
    import torch

    class ChunkedCrossEntropy(torch.autograd.Function):  # type: ignore[misc]
        @staticmethod
        def forward(ctx: Any, hidden: Any, weight: Any, bias: Any, targets: Any, divisor: Any) -> Any:
            gradient = torch.empty_like(hidden) if hidden.requires_grad else None
            total = torch.zeros((), dtype=torch.float32, device=hidden.device)
            for start in range(0, hidden.shape[0], CHUNK_TOKENS):
                part = slice(start, start + CHUNK_TOKENS)
                logits = torch.nn.functional.linear(hidden[part], weight, bias).float()
                chosen = targets[part].unsqueeze(1)
                highest = logits.amax(1, keepdim=True)
                logits.sub_(highest)
                picked = logits.gather(1, chosen)
                logits.exp_()
                sums = logits.sum(1, keepdim=True)
                total += (sums.log() - picked).sum()
                if gradient is not None:
                    logits.div_(sums)
                    logits.scatter_add_(1, chosen, torch.full_like(picked, -1.0))
                    torch.mm(logits.to(weight.dtype), weight, out=gradient[part])
            ctx.gradient, ctx.divisor = gradient, divisor
            return total / divisor

        @staticmethod
        def backward(ctx: Any, upstream: Any) -> Any:
            gradient, ctx.gradient = ctx.gradient, None
            scale = (upstream / ctx.divisor).to(gradient.dtype)
            return gradient.mul_(scale), None, None, None, None

    _cached = ChunkedCrossEntropy
    return _cached
