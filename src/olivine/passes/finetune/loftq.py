"""LoftQ: an adapter that starts from what 4-bit quantisation loses."""

from __future__ import annotations

import math
from typing import Any, ClassVar

from pydantic import Field

from olivine.models.checkpoint import Checkpoint, read_checkpoint
from olivine.passes.base import RunContext
from olivine.passes.finetune.adapter_params import AdapterParams
from olivine.passes.finetune.adapter_pass import BITSANDBYTES, FINETUNE, AdapterPass
from olivine.passes.finetune.checkpoint_rewriting import rewrite
from olivine.passes.finetune.target_modules import ranks_of

EXACT_UP_TO = 1024
"""Smaller side of a weight up to which its singular values are computed in full; beyond, the leading ones only."""


class LoftQParams(AdapterParams):
    """LoRA's parameters, and how often quantising and fitting alternate."""

    loftq_iter: int = Field(default=1, ge=1)
    """Rounds of quantising what the adapter leaves and fitting the adapter to what the quantisation leaves."""


class LoftQ(AdapterPass[LoftQParams]):
    """LoRA on a base rounded to 4 bits (NF4), with an adapter that starts as the best fit to the rounding error.

    For models that will ship in 4 bits: the adapter learns around the rounding from the first step. The artifact
    carries the rounded base in ``base/``, in the number format of the original, so that merging is exact and training
    needs no 4-bit kernels. It takes the memory and the time of LoRA.
    """

    type: ClassVar[str] = "LoftQ"
    summary: ClassVar[str] = "Fine-tune an adapter that makes up for 4-bit rounding from the start"
    reference_url: ClassVar[str] = "https://arxiv.org/abs/2310.08659"
    params_type = LoftQParams
    requires = (*FINETUNE, BITSANDBYTES)
    shaped_by = (*AdapterPass.shaped_by, "bitsandbytes")
    own_base = True

    def prepare_base(self, params: LoftQParams, context: RunContext, base: Checkpoint) -> Checkpoint:
        """Write the rounded base to ``output/base`` and remember the factors that fit what it lost."""
        self._factors: dict[str, tuple[Any, Any]] = {}
        ranks = ranks_of(params, base.modules)

        def change(name: str, tensor: Any) -> Any:
            module = name.removesuffix(".weight")
            if module not in ranks:
                return tensor
            rank = ranks[module]
            rounded, a, b = fit(tensor, rank, params.loftq_iter)
            self._factors[module] = a, b
            return rounded

        (context.output / "base").mkdir()
        rewrite(base, context.output / "base", change, context.progress, message="rounding the base")
        return read_checkpoint(context.output / "base")

    def wrap(self, params: LoftQParams, context: RunContext, model: Any, base: Checkpoint) -> Any:
        """Put the adapter around the base, starting from the factors."""
        import torch

        wrapped = super().wrap(params, context, model, base)
        with torch.no_grad():
            for name, module in wrapped.get_base_model().named_modules():
                if name in self._factors and hasattr(module, "lora_A"):
                    a, b = self._factors[name]
                    if module.fan_in_fan_out:
                        a, b = b.T, a.T
                    module.lora_A["default"].weight.copy_(a)
                    # The layer multiplies by its scaling, which the fit knows nothing of.
                    module.lora_B["default"].weight.copy_(b / module.scaling["default"])
        return wrapped


def fit(weight: Any, rank: int, rounds: int) -> tuple[Any, Any, Any]:
    """Return a 4-bit rounding of ``weight`` and factors with ``rounded + b @ a`` near it (algorithm 1 of the paper).

    Args:
        weight: shape (outputs, inputs).
        rank: of the factors.
        rounds: alternations.

    Returns:
        The rounded weight in the weight's dtype, ``a`` (rank, inputs) and ``b`` (outputs, rank) in float32.
    """
    import torch

    original = weight.float()
    a = torch.zeros(rank, original.shape[1])
    b = torch.zeros(original.shape[0], rank)
    rounded = original
    for _ in range(rounds):
        # What is stored is what counts: the fit is to the rounded weight as the file will hold it.
        rounded = round_to_nf4(original - b @ a).to(weight.dtype).float()
        left, values, right = _leading(original - rounded, rank)
        root = values.sqrt()
        b[:, : len(root)], a[: len(root)] = left * root, root.unsqueeze(1) * right
    return rounded.to(weight.dtype), a, b


def round_to_nf4(weight: Any) -> Any:
    """Return ``weight`` rounded to NF4 in blocks of 64, in float32 (Dettmers et al., https://arxiv.org/abs/2305.14314)."""
    from bitsandbytes.functional import dequantize_4bit, quantize_4bit

    packed, state = quantize_4bit(weight.contiguous(), blocksize=64, quant_type="nf4")
    return dequantize_4bit(packed, state).reshape(weight.shape).float()


def _leading(matrix: Any, rank: int) -> tuple[Any, Any, Any]:
    """Return the leading ``rank`` singular triples."""
    import torch

    rank = min(rank, *matrix.shape)
    if min(matrix.shape) <= EXACT_UP_TO:
        left, values, right = torch.linalg.svd(matrix, full_matrices=False)
        return left[:, :rank], values[:rank], right[:rank]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        over = min(rank + max(8, math.ceil(rank / 4)), *matrix.shape)
        left, values, right = torch.svd_lowrank(matrix, q=over, niter=4)
    return left[:, :rank], values[:rank], right.T[:rank]
