"""The arithmetic of an adapter: what it adds to which tensor of its base.

Follows peft's definition of LoRA, rsLoRA and DoRA layers (peft 0.21, ``tuners/lora/layer.py``), in float32.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from olivine.errors import Location, ModelError

PREFIX = "base_model.model."
_FACTORS = {
    "lora_A.weight": "a",
    "lora_B.weight": "b",
    "lora_embedding_A": "a",
    "lora_embedding_B": "b",
    "lora_magnitude_vector": "magnitude",
    "lora_magnitude_vector.weight": "magnitude",
}
_PLAIN_ONLY = (
    "alora_invocation_tokens",
    "arrow_config",
    "kasa_config",
    "layer_replication",
    "lora_bias",
    "megatron_config",
    "monteclora_config",
    "target_parameters",
    "trainable_token_indices",
    "use_bdlora",
    "use_qalora",
    "velora_config",
)
"""Options of peft that change how an adapter acts; with any of them peft itself does the merge."""


@dataclass
class ModuleUpdate:
    """What the adapter does to one weight.

    Attributes:
        a: shape (rank, inputs).
        b: shape (outputs, rank).
        scaling: factor of ``b @ a``.
        magnitude: DoRA's length of each row, shape (outputs,); ``None`` for LoRA.
        embedding: whether ``b @ a`` is the transpose of the weight, as for an embedding's look-up table.
    """

    a: Any = None
    b: Any = None
    scaling: float = 1.0
    magnitude: Any = None
    embedding: bool = False


@dataclass
class AdapterWeights:
    """An adapter, read.

    Attributes:
        updates: by the name of the weight in the base (``model.layers.0.mlp.down_proj.weight``).
        replaced: tensors that take the place of the base's, by name (``modules_to_save``, biases).
    """

    updates: dict[str, ModuleUpdate] = field(default_factory=dict)
    replaced: dict[str, Any] = field(default_factory=dict)


def read_weights(config: Mapping[str, Any], tensors: Mapping[str, Any]) -> AdapterWeights | None:
    """Return what the adapter does, or ``None`` if it is of a kind that only peft knows how to merge.

    Args:
        config: ``adapter_config.json``.
        tensors: the adapter's tensors by name.

    Raises:
        ModelError: half of a pair of factors is missing.
    """
    if config.get("peft_type") != "LORA" or any(config.get(key) for key in _PLAIN_ONLY):
        return None
    if config.get("fan_in_fan_out") and config.get("use_dora"):
        return None
    found = AdapterWeights()
    for key, tensor in tensors.items():
        if not key.startswith(PREFIX):
            return None
        name = key.removeprefix(PREFIX)
        factor = next((each for each in _FACTORS if name.endswith(f".{each}")), None)
        if factor is None:
            if ".lora_" in name:
                return None
            found.replaced[name.replace(".base_layer.", ".").replace(".modules_to_save.default.", ".")] = tensor
            continue
        module = name.removesuffix(f".{factor}")
        update = found.updates.setdefault(f"{module}.weight", ModuleUpdate(scaling=_scaling(config, module)))
        setattr(update, _FACTORS[factor], tensor.float())
        update.embedding |= factor.startswith("lora_embedding")
    for name, update in found.updates.items():
        if update.a is None or update.b is None:
            raise ModelError(f"the adapter has only one of the two factors for {name}", remedy="copy it again, whole")
        if update.embedding and update.magnitude is not None:
            return None
    return found


def ranks_in(shapes: Mapping[str, Sequence[int]]) -> dict[str, int] | None:
    """Return the rank of the update of each module that an adapter changes; ``None`` if only peft can tell.

    Args:
        shapes: of the adapter's tensors, by name.
    """
    found: dict[str, int] = {}
    for key, shape in shapes.items():
        name = key.removeprefix(PREFIX)
        factor = next((each for each in _FACTORS if name.endswith(f".{each}")), None)
        if factor is None and ".lora_" in name:
            return None
        if factor is not None and _FACTORS[factor] == "a":
            found[name.removesuffix(f".{factor}")] = shape[0]
    return found


def _scaling(config: Mapping[str, Any], module: str) -> float:
    rank = by_pattern(config.get("rank_pattern") or {}, module, config["r"])
    alpha = by_pattern(config.get("alpha_pattern") or {}, module, config["lora_alpha"])
    return float(alpha / math.sqrt(rank) if config.get("use_rslora") else alpha / rank)


def by_pattern(patterns: Mapping[str, float], module: str, otherwise: float) -> float:
    """Return the value of the first pattern that matches the end of the module's name, as peft looks it up."""
    for pattern, value in patterns.items():
        if re.match(rf"(.*\.)?({pattern})$", module):
            return value
    return otherwise


def merged(name: str, weight: Any, update: ModuleUpdate, *, fan_in_fan_out: bool) -> Any:
    """Return the weight with the adapter in it, in the weight's dtype.

    Args:
        name: of the weight, for the error.
        weight: shape (outputs, inputs); (inputs, outputs) with ``fan_in_fan_out``.
        update: what to add.
        fan_in_fan_out: whether the layer stores its weight transposed (GPT-2's ``Conv1D``).

    Raises:
        ModelError: the shapes do not fit.
    """
    delta_shape = (update.b.shape[0], update.a.shape[1])
    if update.embedding or fan_in_fan_out:
        delta_shape = delta_shape[::-1]
    if tuple(weight.shape) != delta_shape or update.b.shape[1] != update.a.shape[0]:
        raise ModelError(
            f"the adapter's update of {name} has shape {delta_shape}, and the base's weight {tuple(weight.shape)}",
            where=Location(path=name),
            why="the adapter was trained on another base",
            remedy="give the base that the adapter was trained on",
        )
    # In place, in float32: of a large weight every copy counts.
    full = (update.b @ update.a).mul_(update.scaling)
    if update.embedding or fan_in_fan_out:
        full = full.T
    full.add_(weight)
    if update.magnitude is not None:
        # DoRA, equation 5: the row's direction after the update, at the trained length.
        full *= (update.magnitude.float().flatten() / full.norm(dim=1)).unsqueeze(1)
    return full.to(weight.dtype)
