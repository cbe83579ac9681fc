"""QLoRA: an adapter on a 4-bit base."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from olivine.models.checkpoint import Checkpoint
from olivine.passes.base import PlanContext, RunContext
from olivine.passes.finetune.adapter_params import AdapterParams
from olivine.passes.finetune.adapter_pass import BITSANDBYTES, FINETUNE, SLOW_BF16, AdapterPass, load_model


class QLoRAParams(AdapterParams):
    """LoRA's parameters, and how the base is held in 4 bits."""

    double_quant: bool = False
    """Quantise the scales too: 0.4 bits a weight less, slightly slower."""
    quant_type: Literal["nf4", "fp4"] = "nf4"
    """``nf4`` suits normally distributed weights, which nearly all are."""
    compute_dtype: Literal["auto", "float32", "bfloat16", "float16"] | None = None
    """Number format of the products; default: ``torch_dtype``."""
    save_quant_config: bool = True
    """Note in the artifact's attributes how the base was quantised while training."""


class QLoRA(AdapterPass[QLoRAParams]):
    """LoRA while the frozen base is held in 4 bits: a quarter of the memory, and slower steps.

    Takes what a GPU too small for LoRA has. Where memory is no problem LoRA is faster and slightly better. On a CPU it
    works where bitsandbytes does. Put MergeAdapterWeights behind it: the adapter is merged into the 16-bit base, never
    into 4-bit weights, so that the result is quantised once.
    """

    type: ClassVar[str] = "QLoRA"
    summary: ClassVar[str] = "Fine-tune an adapter on a base held in 4 bits"
    reference_url: ClassVar[str] = "https://arxiv.org/abs/2305.14314"
    params_type = QLoRAParams
    requires = (*FINETUNE, BITSANDBYTES)
    shaped_by = (*AdapterPass.shaped_by, "bitsandbytes")
    default_optimiser_on_gpu = "paged_adamw_32bit"
    four_bit = True

    @classmethod
    def resolve(cls, params: QLoRAParams, context: PlanContext) -> tuple[QLoRAParams, list[str]]:
        """See the base class."""
        found, notes = super().resolve(params, context)
        compute = found.compute_dtype
        if compute is None or compute == "auto":
            compute = found.torch_dtype if found.torch_dtype != "auto" else "float32"
        elif compute == "bfloat16" and not context.has_bf16 and SLOW_BF16 not in notes:
            notes.append(SLOW_BF16.replace("bfloat16 as asked", "compute_dtype bfloat16 as asked"))
        return found.model_copy(update={"compute_dtype": compute}), notes

    def load_base(self, params: QLoRAParams, context: RunContext, base: Checkpoint) -> Any:
        """Load the base and quantise it on the way."""
        import torch
        from peft import prepare_model_for_kbit_training
        from transformers import BitsAndBytesConfig

        quantisation = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type=params.quant_type,
            bnb_4bit_use_double_quant=params.double_quant,
            bnb_4bit_compute_dtype=getattr(torch, str(params.compute_dtype)),
        )
        model = load_model(base.path, params, context, quantization_config=quantisation)
        # Freezes everything and puts the norms into float32; checkpointing is left to the training arguments.
        return prepare_model_for_kbit_training(model, use_gradient_checkpointing=False)

    def run(self, params: QLoRAParams, context: RunContext) -> Any:
        """See the base class."""
        from dataclasses import replace

        result = super().run(params, context)
        if not params.save_quant_config:
            return result
        quantised = {"bits": 4, "type": params.quant_type, "double_quant": params.double_quant}
        return replace(result, attributes={**result.attributes, "base_in_training": quantised})
