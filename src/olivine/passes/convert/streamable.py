"""Whether a checkpoint's weights can be rounded as they stream by, and what asks for the one or the other."""

from __future__ import annotations

import importlib.util

from olivine.errors import Location, Problem
from olivine.models.checkpoint import Checkpoint, read_checkpoint
from olivine.models.decoder import misfits, why_not_plain
from olivine.models.genai import PROVIDERS
from olivine.passes.base import Accelerator, Format, PlanContext
from olivine.passes.convert.builder_params import QUANTISED, STREAMED, ModelBuilderParams

HARMLESS_OPTIONS = frozenset({"shared_embeddings", "filename", "prune_lm_head"})
"""Extra options that a streamed build can pass on: they shape the graph and not the weights."""


def asked_for_all(params: ModelBuilderParams, target: Accelerator) -> str | None:
    """Return the parameter that only the builder itself can serve, with the whole checkpoint in memory, if any."""
    return next(
        (
            name
            for name, given in (
                (f"precision {params.precision}", params.precision not in QUANTISED),
                ("metadata_only", params.metadata_only),
                (f"int4_algo_config {params.int4_algo_config}", params.int4_algo_config not in STREAMED),
                ("use_qdq", params.use_qdq),
                ("use_cuda_bf16", params.use_cuda_bf16),
                ("int4_nodes_to_exclude", bool(params.int4_nodes_to_exclude) and not multiplies_floats(target)),
                ("int4_op_types_to_quantize", "MatMul" not in (params.int4_op_types_to_quantize or ["MatMul"])),
                (target.execution_provider, PROVIDERS.get(target.execution_provider) == "NvTensorRtRtx"),
                *((f"extra_options.{key}", key not in HARMLESS_OPTIONS) for key in params.extra_options),
            )
            if given
        ),
        None,
    )


def why_not_streamed(params: ModelBuilderParams, target: Accelerator, checkpoint: Checkpoint) -> str | None:
    """Return what keeps the weights from being rounded as they stream by, or ``None``."""
    asked = asked_for_all(params, target)
    if asked:
        return f"{asked} is the builder's own way"
    if checkpoint.format is Format.HF_QUANTIZED:
        if importlib.util.find_spec("numpy") is None:
            return None  # the plan says that packages are missing
        from olivine.quant.reading import TensorReader
        from olivine.quant.stored.forms import FORMS
        from olivine.quant.stored.reading import QuantizedCheckpointReader

        how = checkpoint.config["quantization_config"].get("quant_method")
        if how not in FORMS:
            return f"it is quantised by {how}, which only the builder reads"
        return why_not_plain(checkpoint.config, QuantizedCheckpointReader(TensorReader(checkpoint)).logical_tensors)
    return why_not_plain(checkpoint.config, checkpoint.tensors)


def multiplies_floats(target: Accelerator) -> bool:
    """Return whether the target has a kernel for weights that are left as they are, in the checkpoint's order."""
    return PROVIDERS.get(target.execution_provider) in ("cpu", "cuda")


def check_streaming(params: ModelBuilderParams, context: PlanContext) -> list[Problem]:
    """Return which parameters ask for what only a streamed build does, where there can be none."""
    given = [
        name
        for name, is_given in (
            ("precision", params.precision == "auto"),
            ("int4_algo_config", params.int4_algo_config in STREAMED - {None}),
            ("embedding_bits", params.embedding_bits is not None),
            ("lm_head_bits", params.lm_head_bits is not None),
        )
        if is_given
    ]
    if not given or context.model.path is None:
        return []
    reason = why_not_streamed(params, context.target, read_checkpoint(context.model.path))
    if reason is None:
        return []
    return [
        Problem(
            f"{name} {getattr(params, name)} does not go together with the rest",
            Location(path=name),
            f"weights can be rounded in Olivine's own way only while they stream, and here they cannot: {reason}",
            f"leave {name} out, or what is in the way",
        )
        for name in given
    ]


def check_shapes(params: ModelBuilderParams, context: PlanContext) -> list[Problem]:
    """Return where the weights do not fit ``config.json``: the builder would find out late, or not at all."""
    if params.metadata_only or context.model.path is None or context.model.format is not Format.HF:
        return []
    checkpoint = read_checkpoint(context.model.path)
    if why_not_plain(checkpoint.config, checkpoint.tensors):
        return []
    wrong = misfits(checkpoint.config, checkpoint.tensors)
    if not wrong:
        return []
    more = f"; and {len(wrong) - 1} more" if len(wrong) > 1 else ""
    return [
        Problem(
            f"the weights do not fit config.json: {wrong[0]}{more}",
            Location(str(checkpoint.path / "config.json")),
            "they are from different models, or config.json was changed",
            "download the model again, or give it the config.json that it was trained with",
        )
    ]
