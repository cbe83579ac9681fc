"""Whether a model fits the machine that it ships to: its weights, and the keys and values of a conversation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from olivine.config.sizes import gigabytes
from olivine.errors import Location, Problem
from olivine.hardware.targets import Target
from olivine.passes.base import Format, ModelFacts

USUAL_CONTEXT = 4096
"""Tokens that have to fit if nobody says how many, and the model has positions for so many."""
RESERVED = 512 * 2**20
"""Bytes of a target's memory that its system, or a GPU's driver, keeps for itself."""
RUNTIME = 120 * 2**20
"""Bytes of the runtime without a model."""
PROMPT = 1024
"""Tokens of a prompt whose logits are there at once."""


@dataclass(frozen=True)
class Fit:
    """What the final model takes where it runs, beside what is there.

    Attributes:
        target: the machine.
        weights: bytes of the weights.
        cache: bytes of the keys and values of ``context`` tokens.
        working: bytes of the runtime, of activations and of logits.
        context: tokens of prompt and answer together.
        per_token: bytes of the keys and values of one token.
    """

    target: Target
    weights: int
    cache: int
    working: int
    context: int
    per_token: int

    @property
    def total(self) -> int:
        """Bytes in all."""
        return self.weights + self.cache + self.working

    @property
    def usable(self) -> int | None:
        """Bytes that the target has for a model; ``None`` if nobody has said."""
        return None if self.target.memory is None else max(0, self.target.memory - RESERVED)

    @property
    def fits(self) -> bool | None:
        """Whether it fits; ``None`` if that cannot be told."""
        return None if self.usable is None else self.total <= self.usable

    @property
    def most_tokens(self) -> int:
        """Tokens that fit beside the weights, in hundreds."""
        left = (self.usable or 0) - self.weights - self.working
        return max(0, left // self.per_token // 100 * 100) if self.per_token else 0

    def sentence(self) -> str:
        """Return it in words."""
        takes = (
            f"the model takes about {gigabytes(self.total)} there: weights {gigabytes(self.weights)}, keys and values "
            f"of {self.context} tokens {gigabytes(self.cache)}, the rest {gigabytes(self.working)}"
        )
        if self.target.memory is None:
            return f"{takes}; how much memory it has is not known"
        return f"{takes}; it has {gigabytes(self.target.memory)}, {gigabytes(RESERVED)} of them for its system"

    def as_json(self) -> dict[str, Any]:
        """Return it for machines."""
        return {
            "name": self.target.name,
            "device": self.target.accelerator.device,
            "execution_provider": self.target.accelerator.execution_provider,
            "memory_bytes": self.target.memory,
            "is_here": self.target.is_here,
            "needs_bytes": self.total,
            "weights_bytes": self.weights,
            "cache_bytes": self.cache,
            "working_bytes": self.working,
            "context_length": self.context,
            "fits": self.fits,
        }


def fit_of(facts: ModelFacts, target: Target, *, full_precision: bool = False) -> Fit | None:
    """Return what the final model takes on its target, ``None`` if its size is not known.

    Args:
        facts: the final model.
        target: where it runs.
        full_precision: whether it computes in float32 (an ONNX model for CPUs always does).
    """
    shape = cache_shape(facts.config)
    if not facts.weights or facts.format is Format.PEFT:
        return None
    width = 4 if full_precision or target.accelerator.device == "cpu" else 2
    weights = facts.weights
    if facts.format is Format.HF and facts.parameters:  # loaded in the number format that the processor multiplies
        weights = max(weights, facts.parameters * width) if target.accelerator.device == "cpu" else weights
    per_token = 0
    limit = whole(facts.config, "max_position_embeddings") or USUAL_CONTEXT
    if shape is not None:
        layers, heads, size = shape
        per_token = 2 * layers * heads * size * width
    context = target.context_length or min(limit, USUAL_CONTEXT)
    vocabulary, hidden = whole(facts.config, "vocab_size"), whole(facts.config, "hidden_size")
    working = RUNTIME + min(context, PROMPT) * (4 * vocabulary + 8 * hidden * width)
    return Fit(target, weights, context * per_token, working, context, per_token)


def misfit(fit: Fit, where: Location, alternatives: str) -> Problem | None:
    """Return the problem if the model does not fit.

    Args:
        where: the target's place in the configuration.
        alternatives: what would make the model smaller.
    """
    if fit.fits is not False:
        return None
    assert fit.target.memory is not None
    remedies = [alternatives] if alternatives else []
    if fit.most_tokens >= 256:
        remedies.append(f"set the target's context_length: {fit.most_tokens}, which fits")
    remedies.append("choose a target with more memory")
    return Problem(
        f"the model will not fit {fit.target.name}: it takes about {gigabytes(fit.total)} there, and "
        f"{gigabytes(fit.target.memory)} is what there is",
        where,
        f"weights {gigabytes(fit.weights)}, keys and values of {fit.context} tokens {gigabytes(fit.cache)}, "
        f"activations and the runtime {gigabytes(fit.working)}; {gigabytes(RESERVED)} are its system's",
        f"{', or '.join(remedies)}; --force goes on all the same",
    )


def cache_shape(config: Mapping[str, Any]) -> tuple[int, int, int] | None:
    """Return layers, heads that have keys, and the size of a head, as the configuration of either format has them."""
    decoder = config.get("model", {}).get("decoder") if isinstance(config.get("model"), dict) else None
    if isinstance(decoder, dict):
        found = tuple(decoder.get(key) for key in ("num_hidden_layers", "num_key_value_heads", "head_size"))
    else:
        heads = whole(config, "num_attention_heads") or whole(config, "n_head")
        hidden = whole(config, "hidden_size") or whole(config, "n_embd")
        size = whole(config, "head_dim") or (hidden // heads if heads else 0)
        layers = whole(config, "num_hidden_layers") or whole(config, "n_layer")
        found = (layers, whole(config, "num_key_value_heads") or heads, size)
    layers, heads, size = (each if isinstance(each, int) else 0 for each in found)
    return (layers, heads, size) if layers and heads and size else None


def whole(config: Mapping[str, Any], key: str) -> int:
    """Return a whole number of ``config.json``, of its text part if it has several; 0 if it has none."""
    inner = config.get("text_config")
    for each in (config, inner if isinstance(inner, Mapping) else {}):
        value = each.get(key)
        if isinstance(value, int) and not isinstance(value, bool) and value > 0:
            return value
    decoder = config.get("model")
    if isinstance(decoder, Mapping) and key in ("vocab_size", "max_position_embeddings", "hidden_size"):
        alias = {"max_position_embeddings": "context_length"}.get(key, key)
        value = decoder.get(alias, (decoder.get("decoder") or {}).get(alias))
        return value if isinstance(value, int) else 0
    return 0
