"""What a plan can say of builds that give matrices bits of their own, from shapes alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from olivine.errors import Location, Problem
from olivine.models.checkpoint import TOKENIZER_FILES, read_checkpoint
from olivine.models.decoder import why_not_plain
from olivine.passes.base import Format, ModelFacts
from olivine.quant.scheme import Scheme
from olivine.quant.sensitivity.groups import FusedGroup, fused_groups, options_of

if TYPE_CHECKING:
    from olivine.passes.convert.builder_params import ModelBuilderParams

CHOSEN = ("int4_block_size", "int4_is_symmetric", "int4_op_types_to_quantize", "int4_nodes_to_exclude")
"""Parameters that say for all matrices what ``auto`` chooses for each."""


WIDTHS: Mapping[str, tuple[int, ...]] = {"cpu": (2, 4, 8), "cuda": (4, 8), "webgpu": (4, 8), "dml": (4,)}
"""Bits of a weight for which each execution provider has a kernel (``MatMulNBits``); 4 for those that are not here."""


def widths(provider: str) -> tuple[int, ...]:
    """Return the bits of a weight for which ``provider`` has a kernel."""
    return WIDTHS.get(provider, (4,))


def mixed_bits(algorithm: str | None, layers: int) -> dict[str, int]:
    """Return the nodes that have 8 bits with ``search_last`` and ``search_mixed``.

    The rule of the builder's ``k_quant_mixed``, which has it from llama.cpp: the output layer, and in the first and the
    last eighth of the layers and every third between them, the value projection (with what it is fused with) and the
    down projection.
    """
    found = {"/lm_head": 8} if algorithm in ("search_last", "search_mixed") else {}
    if algorithm == "search_mixed":
        for layer in range(layers):
            if layer < layers / 8 or layer >= 7 * layers / 8 or (layer - round(layers / 8)) % 3 == 2:
                for part in ("attn/qkv_proj", "attn/v_proj", "mlp/down_proj"):
                    found[f"/model/layers.{layer}/{part}"] = 8
    return found


def scale_bytes(provider: str) -> int:
    """Return the bytes of a scale, and of a weight that is not quantised, in a model for ``provider``."""
    return 4 if provider == "cpu" else 2


def allowed_options(params: ModelBuilderParams, group: FusedGroup, provider: str) -> Sequence[Scheme | None]:
    """Return what may be chosen for a group."""
    pinned = {"head": params.lm_head_bits, "tied": params.lm_head_bits, "embedding": params.embedding_bits}
    bits = pinned.get(group.role)
    return options_of(
        group,
        float_embedding=bits is None,
        quantised_embedding=provider == "cpu",  # elsewhere no kernel was seen to run
        bits=widths(provider) if bits is None else (bits,),
    )


def check_mixed(params: ModelBuilderParams, model: ModelFacts, provider: str) -> list[Problem]:
    """Return what is wrong with precision ``auto`` for this model."""
    if params.precision != "auto":
        return []
    problems = [
        Problem(
            f"{name} and precision: auto contradict each other",
            Location(path=name),
            "auto chooses it for each matrix",
            f"leave {name} out, or choose int4 or int8",
        )
        for name in CHOSEN
        if getattr(params, name) is not None
    ]
    if params.int4_algo_config not in (None, "search", "hqq"):
        problems.append(
            Problem(
                f"int4_algo_config {params.int4_algo_config} and precision: auto contradict each other",
                Location(path="int4_algo_config"),
                "auto chooses which matrices have more bits",
                "choose search or hqq, or leave it out",
            )
        )
    if params.extra_options.get("shared_embeddings", True) is False:
        problems.append(
            Problem(
                "shared_embeddings: false and precision: auto contradict each other",
                Location(path="extra_options.shared_embeddings"),
                "what the checkpoint ties stays tied, and is chosen for once",
                "leave it out",
            )
        )
    if model.format is Format.HF_QUANTIZED:
        problems.append(
            Problem(
                "the checkpoint is quantised already, and precision: auto would choose its bits",
                Location(path="precision"),
                "rounding it again would add the errors up",
                "choose int4, which keeps the bits that it has, or give the checkpoint that it was made from",
            )
        )
    if problems or (params.max_size is None and params.average_bits is None):
        return problems
    if model.path is None or model.format is not Format.HF:
        return problems
    checkpoint = read_checkpoint(model.path)
    if why_not_plain(checkpoint.config, checkpoint.tensors):
        return problems
    return [*problems, *_impossible(params, checkpoint.config, checkpoint.modules, _beside(model), provider)]


def _impossible(
    params: ModelBuilderParams,
    config: Mapping[str, Any],
    modules: Mapping[str, Sequence[int]],
    beside: int,
    provider: str,
) -> list[Problem]:
    """Return a problem if no choice fits the budget."""
    groups = fused_groups(config, modules)
    least = sum(
        min(group.stored_bytes(each, scale_bytes(provider)) for each in allowed_options(params, group, provider))
        for group in groups
    )
    bits = 8 * least / sum(group.weights for group in groups)
    if params.average_bits is not None and params.average_bits < bits:
        return [
            Problem(
                f"average_bits {params.average_bits:g} cannot be had: {bits:.3f} is the least for this model",
                Location(path="average_bits"),
                "scales and zero points count, and some matrices cannot go below 4 bits",
                f"give at least {bits + 0.0005:.3f}",
            )
        ]
    if params.max_size is not None and params.max_size < least + beside:
        return [
            Problem(
                f"max_size {params.max_size / 1e6:,.2f} MB cannot be had: the smallest possible is "
                f"{(least + beside) / 1e6:,.2f} MB",
                Location(path="max_size"),
                f"the matrices in their fewest bits take {least / 1e6:,.2f} MB; norms, tokenizer and the like "
                f"{beside / 1e6:,.2f} MB",
                "give more, or start from a smaller model",
            )
        ]
    return []


def _beside(model: ModelFacts) -> int:
    """Return the bytes of what ships beside the matrices, a little too few: the graph itself is not counted."""
    assert model.path is not None
    checkpoint = read_checkpoint(model.path)
    vectors = sum(tensor.elements for tensor in checkpoint.tensors.values() if len(tensor.shape) == 1)
    papers = sum(file.stat().st_size for file in checkpoint.files if file.name in TOKENIZER_FILES)
    return 2 * vectors + papers
