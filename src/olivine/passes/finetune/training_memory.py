"""How much memory training an adapter takes, from the shapes of the model and the length of a batch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from olivine.config.schema import DataConfig
from olivine.passes.base import PlanContext
from olivine.passes.estimate import LIBRARIES, Estimate

if TYPE_CHECKING:
    from olivine.passes.finetune.adapter_params import AdapterParams

STATE = 16
"""Bytes for each weight that is trained: itself, its gradient, and two moments of Adam, in float32."""
FOUR_BIT = 0.57
"""Bytes of a weight in NF4 with double quantisation, scales included."""
LARGEST_SHARD = 5_000_000_000
"""Bytes of a weight file that stay resident while it is read; checkpoints are cut into files no larger than this."""


def estimate_training(
    params: AdapterParams, context: PlanContext, data: Mapping[str, DataConfig], *, four_bit: bool, own_base: bool
) -> Estimate:
    """Return what training takes.

    Activations that the backward pass needs are, per token and layer, about 16 vectors of the hidden size and 6 of the
    intermediate size, and those of one layer more for its gradients. With checkpointing it is one vector a layer, and
    three and a half layers' worth while one is computed again and differentiated.
    """
    model, config = context.model, context.model.config
    width = 2 if params.torch_dtype == "bfloat16" else 4
    base = int(model.parameters * (FOUR_BIT if four_bit else width))
    names = params.target_modules if isinstance(params.target_modules, list) else None
    chosen = [
        shape
        for name, shape in model.modules.items()
        if (name.rsplit(".", 1)[-1] in names if names is not None else ".layers." in name)
    ]
    trained = params.r * sum(sum(shape) for shape in chosen)
    hidden = int(config.get("hidden_size") or 0)
    intermediate = int(config.get("intermediate_size") or 4 * hidden)
    layers = int(config.get("num_hidden_layers") or 1)
    arguments = params.training_args
    checkpointing = bool(arguments.get("gradient_checkpointing") or arguments.get("activation_checkpointing"))
    length = max((each.max_seq_len for each in data.values()), default=1024)
    tokens = length * int(arguments.get("per_device_train_batch_size", 8))
    layer = tokens * (16 * hidden + 6 * intermediate) * width
    activations = tokens * hidden * layers * width + layer * 7 // 2 if checkpointing else layer * (layers + 1)
    loading = base + (min(model.weights, LARGEST_SHARD) if width * model.parameters != model.weights else 0)
    training = base + trained * STATE + activations
    output = trained * 4 + (model.weights if own_base else 0)
    remedy = " or ".join(
        text
        for text, helps in (
            ("training_args: {gradient_checkpointing: true}", not checkpointing),
            (f"a max_seq_len below {length}", True),
            ("a smaller per_device_train_batch_size with more gradient_accumulation_steps", tokens > length),
            ("torch_dtype: bfloat16", width == 4 and context.has_bf16),
        )
        if helps
    )
    steps = int(arguments.get("max_steps") or 0)
    work = float(steps or 1) * tokens * model.parameters
    if context.host.device == "gpu":
        held = LIBRARIES + min(model.weights, LARGEST_SHARD)
        return Estimate({"loading": held}, output, trained * 12, max(loading, training), work, remedy)
    phases = {"loading": LIBRARIES + loading, "training": LIBRARIES + training}
    return Estimate(phases, output, trained * 12, 0, work, remedy)
