"""LoRA: low-rank adaptation."""

from __future__ import annotations

from typing import ClassVar

from olivine.passes.finetune.adapter_params import AdapterParams
from olivine.passes.finetune.adapter_pass import AdapterPass


class LoRA(AdapterPass[AdapterParams]):
    """Train two small matrices beside each chosen weight while the weight itself stays frozen.

    The adapter has ``r * (inputs + outputs)`` weights for each module, well under a hundredth of the model, and merges
    into the base without any cost at inference. The base is held in ``torch_dtype``: 4 bytes a weight in float32, 2 in
    bfloat16. When that does not fit into a GPU, use QLoRA.

    A run that is killed goes on from its last checkpoint and ends with the same weights.
    """

    type: ClassVar[str] = "LoRA"
    summary: ClassVar[str] = "Fine-tune a low-rank adapter on your data"
    reference_url: ClassVar[str] = "https://arxiv.org/abs/2106.09685"
    params_type = AdapterParams
