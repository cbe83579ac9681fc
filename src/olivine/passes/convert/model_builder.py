"""ModelBuilder: from a checkpoint to an ONNX Runtime GenAI folder, through the library's own model builder."""

from __future__ import annotations

import difflib
import importlib.util
import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field

from olivine.config.schema import DataConfig
from olivine.errors import Location, ModelError, Problem
from olivine.models.checkpoint import Checkpoint, read_checkpoint
from olivine.models.decoder import misfits, why_not_plain
from olivine.models.genai import PROVIDERS, can_run
from olivine.passes.base import Accelerator, Format, Pass, PassResult, PlanContext, Requirement, RunContext
from olivine.passes.budget import BudgetParams, check_budget
from olivine.passes.convert.builder_facts import SEEN_WITH, builder_facts, builder_options
from olivine.passes.convert.mixed_facts import check_mixed, mixed_bits, scale_bytes, widths
from olivine.passes.convert.trying import try_result
from olivine.passes.effort import Effort
from olivine.passes.estimate import (
    BUILDER,
    BUILDING,
    GRAPH,
    STARTING,
    TILE,
    Estimate,
    estimate_rounding,
    threads_within,
)
from olivine.quant.scheme import Rounding, Scheme

Precision = Literal["fp32", "fp16", "bf16", "int8", "int4", "auto"]
Algorithm = Literal[
    "search", "search_last", "search_mixed", "hqq", "default", "rtn", "rtn_last", "k_quant", "k_quant_last",
    "k_quant_mixed", "k_quant_linear",
]  # fmt: skip

QUANTISED = frozenset({"int4", "int8", "auto"})
"""Precisions with integer weights."""

STREAMED = frozenset({None, "search", "search_last", "search_mixed", "hqq"})
"""Algorithms of :mod:`olivine.quant`, which round weights as they stream by; the others are the builder's own, and it
loads the whole checkpoint for them."""

HARMLESS_OPTIONS = frozenset({"shared_embeddings", "filename", "prune_lm_head"})
"""Extra options that a streamed build can pass on: they shape the graph and not the weights."""

MIXED = frozenset({"rtn_last", "k_quant_last", "k_quant_mixed", "k_quant_linear"})
"""Algorithms that keep some layers in 8 bits."""

VALID: dict[str, tuple[str, ...]] = {
    "cpu": ("fp32", "int8", "int4"),
    "cuda": ("fp32", "fp16", "bf16", "int8", "int4"),
    "dml": ("fp16", "int4"),
    "webgpu": ("fp32", "fp16", "int8", "int4"),
    "NvTensorRtRtx": ("fp16", "bf16", "int4"),
}
"""Precisions that make sense per execution provider: those the builder's own command line lists, and those for which
it has fused attention. It does not refuse the others; it builds a model that is slow or does not load."""

ONLY_CUDA_INT4 = frozenset({"PhiMoEForCausalLM"})
"""Architectures for which the builder silently takes cuda and int4, whatever was asked for."""

OPTION_OF_PARAMETER: dict[str, str] = {
    "int4_block_size": "block_size",
    "int4_accuracy_level": "accuracy_level",
    "int4_is_symmetric": "is_symmetric",
    "int4_op_types_to_quantize": "op_types_to_quantize",
    "int4_nodes_to_exclude": "nodes_to_exclude",
    "int4_algo_config": "algo_config",
    "metadata_only": "config_only",
    "exclude_embeds": "exclude_embeds",
    "exclude_lm_head": "exclude_lm_head",
    "include_hidden_states": "include_hidden_states",
    "enable_cuda_graph": "enable_cuda_graph",
    "use_qdq": "use_qdq",
    "use_8bits_moe": "moe_quant_type",
    "use_webgpu_fp32": "use_webgpu_fp32",
    "use_cuda_bf16": "use_cuda_bf16",
}
"""What the builder calls each parameter. Since 0.16 it reads no option that begins with ``int4_``, and says nothing."""

RESERVED = {
    "hf_remote": "allow the model's own code with --trust-remote-code",
    "hf_token": "the model is on this machine when it is built: no token is needed",
    "adapter_path": "put MergeAdapterWeights before this pass",
    "config_only": "use metadata_only",
}
"""Extra options that would undercut a decision made elsewhere."""

SEARCH_KEYS = frozenset(
    (
        "batch_size", "blank_penalty", "chunk_size", "diversity_penalty", "do_sample", "early_stopping",
        "length_penalty", "max_length", "min_length", "no_repeat_ngram_size", "num_beams", "num_return_sequences",
        "past_present_share_buffer", "random_seed", "repetition_penalty", "temperature", "top_k", "top_p",
    )
)  # fmt: skip
"""Keys of ``search`` that ONNX Runtime GenAI reads; it does not load a model with any other."""

QUANTISABLE = ("MatMul", "Gather")
"""Types of nodes that the builder can quantise."""

_SEPARATOR = {"op_types_to_quantize": "/", "nodes_to_exclude": ","}


class ModelBuilderParams(BudgetParams):
    """Parameters of :class:`ModelBuilder`. Those that begin with ``int4_`` apply to ``int8`` too."""

    precision: Precision
    """Format of the weights. ``int4``: smallest and fastest on a CPU. ``int8``: twice that, nearly lossless. ``fp16``,
    ``bf16``: GPUs. ``fp32``: the reference. ``auto``: bits, group size and zero points are chosen for each matrix, so
    that the model is as close to the float one as the budget allows (``max_size``, ``average_bits`` or
    ``max_divergence``)."""
    metadata_only: bool = False
    """Write ``genai_config.json`` and the tokenizer only, for an ONNX model that you have already."""
    search: dict[str, Any] = Field(default_factory=dict)
    """Put into ``search`` of ``genai_config.json``, e.g. ``{max_length: 512, do_sample: false}``."""
    int4_block_size: Literal[16, 32, 64, 128, 256] | None = None
    """Weights that share a scale. Smaller is more accurate and larger on disk. The builder's default is 32."""
    int4_accuracy_level: Literal[1, 2, 3, 4] | None = None
    """Number format of the activations in the product: 1 fp32, 2 fp16, 3 bf16, 4 int8. Default: 4 on the CPU (fastest),
    else what the kernel prefers."""
    int4_is_symmetric: bool | None = None
    """Quantise around zero (the builder's default), or with a zero point per block: a little larger, more accurate."""
    int4_op_types_to_quantize: list[str] | None = None
    """Kinds of nodes: ``MatMul``, ``Gather``. ``Gather`` adds the embedding table, which is much of a small model; with
    precision ``int4`` and ``int4_algo_config: default`` only. Default: ``[MatMul]``, and both if the model ties
    embedding and output layer."""
    int4_nodes_to_exclude: list[str] | None = None
    """Names of nodes to leave as they are, e.g. ``/lm_head/MatMul``. While weights stream, patterns too, and names of
    modules: ``*/o_proj/MatMul``, ``model.layers.0.mlp.*``."""
    int4_algo_config: Algorithm | None = None
    """How weights are rounded. ``search``: scales by least squares over many ranges, while the checkpoint streams by
    and is never in memory as a whole; this is what happens if nothing is given, for a plain decoder. ``hqq``: the same
    way, by half-quadratic quantisation; slow. The others are the builder's own, and load the whole checkpoint.
    ``default``, ``rtn``: to the nearest. ``k_quant``: by least squares, slowly. ``*_last``: the output layer in 8 bits.
    ``k_quant_mixed``: that, and the most sensitive layers in 8 bits. ``k_quant_linear``: the linear-attention layers of
    hybrid models in 8 bits."""
    embedding_bits: Literal[4, 8] | None = None
    """Bits of the embedding table. Default: those of the output layer if the model ties the two; else 8 on a CPU, which
    loses next to nothing and takes up to a third of the size away; else it stays as it is. With ``search`` and ``hqq``
    only."""
    lm_head_bits: Literal[4, 8] | None = None
    """Bits of the output layer. Default: those of ``precision``. With 8 a model in ``int4`` comes much closer to what
    it was, for some percent of its size and speed. With ``search`` and ``hqq`` only."""
    exclude_embeds: bool = False
    """Leave out the embedding; the model takes ``inputs_embeds``."""
    exclude_lm_head: bool = False
    """Leave out the output layer; the model gives ``hidden_states``."""
    include_hidden_states: bool = False
    """Give ``hidden_states`` beside ``logits``."""
    enable_cuda_graph: bool | None = None
    """Capture the decoding step as a CUDA graph: faster for small models if every node runs on the GPU."""
    use_qdq: bool = False
    """Write quantised weights as DequantizeLinear and MatMul, not as MatMulNBits. int4 only."""
    use_8bits_moe: bool = False
    """Quantise a mixture of experts to 8 bits, not 4."""
    use_webgpu_fp32: bool = False
    """On WebGPU, take and give float32: for GPUs without float16."""
    use_cuda_bf16: bool = False
    """With int4 on CUDA, compute in bfloat16, not float16: for models that overflow float16 (Gemma)."""
    extra_options: dict[str, Any] = Field(default_factory=dict)
    """Any other option of the installed builder, by the name its ``--help`` gives."""


class ModelBuilder(Pass[ModelBuilderParams]):
    """Build an ONNX Runtime GenAI model from a checkpoint: graph, quantised weights, generation config, tokenizer.

    The folder that comes out is what an app loads. Before it counts as made it is loaded and one token is generated,
    where this machine has the target's execution provider; elsewhere a note says that it was not tried.

    With ``int4`` and ``int8`` the weights of a plain decoder (Llama, Phi-3, Qwen, Mistral, Gemma ...) are rounded as
    they stream from the checkpoint's files into the result, so that the model may be larger than memory; a run that was
    killed goes on where it was. Otherwise the builder loads the whole checkpoint: count on about two and a half times
    its size in 16-bit form, and more for ``fp32``.

    Raises:
        StepError: the builder refused or failed, or its result does not load or gives no numbers.
    """

    type: ClassVar[str] = "ModelBuilder"
    summary: ClassVar[str] = (
        "checkpoint to ONNX Runtime GenAI, quantised or not, with onnxruntime-genai's model builder"
    )
    reference_url: ClassVar[str] = "https://onnxruntime.ai/docs/genai/howto/build-model.html"
    accepts: ClassVar[frozenset[Format]] = frozenset({Format.HF, Format.HF_QUANTIZED})
    produces: ClassVar[Format] = Format.GENAI
    params_type = ModelBuilderParams
    requires: ClassVar[tuple[Requirement, ...]] = (
        Requirement("onnxruntime-genai|onnxruntime-genai-cuda|onnxruntime-genai-directml", "cpu", SEEN_WITH),
        Requirement("onnxruntime|onnxruntime-gpu|onnxruntime-directml", "cpu"),
        Requirement("onnx", "cpu"),
        Requirement("onnx-ir", "cpu"),
        Requirement("numba", "cpu"),
        Requirement("torch", "torch"),
        Requirement("transformers", "torch", ">=5,<6"),
    )
    shaped_by: ClassVar[tuple[str, ...]] = (
        "onnxruntime-genai|onnxruntime-genai-cuda|onnxruntime-genai-directml",
        "onnxruntime|onnxruntime-gpu|onnxruntime-directml",
        "onnx-ir",
        "numba",
        "transformers",
        "torch",
    )
    made_for_target: ClassVar[bool] = True
    version: ClassVar[int] = 2  # 2: int4 and int8 are rounded by search, streamed

    @classmethod
    def resolve(cls, params: ModelBuilderParams, context: PlanContext) -> tuple[ModelBuilderParams, list[str]]:
        """Say which of the given parameters have no effect; the builder does not."""
        provider = PROVIDERS.get(context.target.execution_provider)
        given = params.model_fields_set
        notes = []
        if params.precision not in QUANTISED:
            idle = sorted(name for name in given if name.startswith("int4_") and getattr(params, name) is not None)
            if idle:
                notes.append(f"{', '.join(idle)}: no effect with precision {params.precision}")
        for name, works in (
            ("enable_cuda_graph", provider in ("cuda", "NvTensorRtRtx")),
            ("use_webgpu_fp32", provider == "webgpu"),
            ("use_cuda_bf16", provider in ("cuda", "NvTensorRtRtx") and params.precision == "int4"),
        ):
            if getattr(params, name) and not works:
                notes.append(
                    f"{name}: no effect with precision {params.precision} on {context.target.execution_provider}"
                )
        algorithm = params.int4_algo_config or "default"
        if params.precision == "int4" and params.use_qdq and algorithm in ("rtn", "k_quant"):
            notes.append(f"use_qdq: no effect with int4_algo_config {algorithm}, which is written as MatMulNBits")
        strange = [each for each in params.int4_op_types_to_quantize or () if each not in QUANTISABLE]
        if strange and len(strange) < len(params.int4_op_types_to_quantize or ()):
            left = [each for each in params.int4_op_types_to_quantize or () if each in QUANTISABLE]
            params = params.model_copy(update={"int4_op_types_to_quantize": left})
            notes.append(f"int4_op_types_to_quantize: the model that is built has no {', '.join(strange)}")
        gather = "Gather" in (params.int4_op_types_to_quantize or ()) and not _tied(context.model.config)
        if gather and (params.precision == "int8" or (params.precision == "int4" and algorithm != "default")):
            how = f"{params.precision} and int4_algo_config {algorithm}"
            notes.append(f"int4_op_types_to_quantize: the embedding is not quantised with {how}")
        if params.precision in ("int4", "int8") and not params.metadata_only and context.model.path is not None:
            reason = _why_not_streamed(params, context.target, read_checkpoint(context.model.path))
            if reason:
                notes.append(f"the whole checkpoint is loaded into memory: {reason}")
        return params, notes

    @classmethod
    def check(cls, params: ModelBuilderParams, context: PlanContext) -> list[Problem]:
        """See :meth:`Pass.check`."""
        return [
            *_check_target(params, context.target),
            *_check_model(params, context.model.config, context.target),
            *_check_qdq(params, context),
            *_check_op_types(params),
            *_check_options(params),
            *check_budget(params, "precision", params.precision),
            *_check_streaming(params, context),
            *check_mixed(params, context.model, PROVIDERS.get(context.target.execution_provider, "")),
            *_check_shapes(params, context),
        ]

    @classmethod
    def estimate(cls, params: ModelBuilderParams, context: PlanContext, data: Mapping[str, DataConfig]) -> Estimate:
        """See :meth:`Pass.estimate`."""
        model = context.model
        if params.precision in QUANTISED and _asked_for_all(params, context.target) is None:
            bits = 8 if params.precision == "int8" else 4  # with auto, about so many
            tied = _tied(model.config)
            head = params.lm_head_bits or bits
            on_cpu = PROVIDERS.get(context.target.execution_provider) == "cpu"
            table = params.embedding_bits or (head if tied else 8 if on_cpu else None)
            scale = scale_bytes(PROVIDERS.get(context.target.execution_provider, ""))
            group = params.int4_block_size or 32
            found = estimate_rounding(context, bits, group, head, table, scale=scale, trial=True)
            return replace(found, from_shapes=params.precision != "auto")
        width = {"fp32": 4.0, "fp16": 2.0, "bf16": 2.0, "int8": 1.125}.get(params.precision, 0.625)
        # What is looked up stays in floats unless it is asked for.
        floats = scale_bytes(PROVIDERS.get(context.target.execution_provider, ""))
        tables = sum(r * c for name, (r, c) in model.modules.items() if "embed" in name or name.endswith("wte"))
        looked_up = tables * floats if params.precision in QUANTISED else tables * width
        output = int((model.parameters - tables) * width + looked_up) + GRAPH
        # The builder loads the checkpoint, then holds it again as the tensors of the graph.
        held = int(model.parameters * (2.5 * 2 if params.precision != "fp32" else 3 * 4))
        effort = STARTING + BUILDING + Effort(moved=60.0 * model.parameters, read=model.weights, written=2.0 * output)
        found = Estimate({"building": BUILDER + held}, output, effort=effort)
        if params.precision not in QUANTISED or params.int4_algo_config in STREAMED:
            return found
        streamed = cls.estimate(params.model_copy(update={"int4_algo_config": "search"}), context, data)
        return replace(found, lighter=(("int4_algo_config: search", streamed),))

    def run(self, params: ModelBuilderParams, context: RunContext) -> PassResult:
        """See :meth:`Pass.run`."""
        provider = PROVIDERS[context.target.execution_provider]
        checkpoint = read_checkpoint(context.inputs["model"])
        metrics: dict[str, float] = {}
        attributes: dict[str, Any] = {"precision": params.precision}
        trial = context.output
        reason = _why_not_streamed(params, context.target, checkpoint)
        if reason and params.precision == "auto":  # a model that did not exist when the plan was made
            raise ModelError(f"precision auto is for checkpoints that can be streamed: {reason}")
        if reason:
            _build(params, context, provider)
        else:
            metrics, attributes, trial = _build_streamed(params, context, provider, checkpoint)
        _merge_search(context.output / "genai_config.json", params.search)
        _keep_chat_template(context.inputs["model"], context.output)
        _forget_loading(context.output / "tokenizer_config.json")
        tried = _try(params, context, trial)
        shutil.rmtree(context.checkpoint / "skeleton", ignore_errors=True)
        size = sum(file.stat().st_size for file in context.output.rglob("*") if file.is_file())
        return PassResult(
            metrics={"size_bytes": float(size), **metrics},
            attributes={**attributes, "execution_provider": provider, "tried": tried},
        )


def _check_target(params: ModelBuilderParams, target: Accelerator) -> list[Problem]:
    """Return what is wrong with the target's execution provider, or with the precision on it."""
    provider = PROVIDERS.get(target.execution_provider)
    facts = builder_facts()
    known = facts.execution_providers if facts is not None else tuple(VALID)
    if provider is None or provider not in known:
        names = sorted({name for name, short in PROVIDERS.items() if short in known})
        # All end alike, so only what stands before that tells which one was meant.
        by_folded = {name.lower().removesuffix("executionprovider"): name for name in names}
        given = target.execution_provider.lower().removesuffix("executionprovider")
        near = [by_folded[each] for each in difflib.get_close_matches(given, by_folded, n=1, cutoff=0.6)]
        return [
            Problem(
                f"the model builder cannot build for {target.execution_provider or 'a target without a provider'}",
                why=f"it knows {', '.join(names)}" + (f"; the nearest is {near[0]}" if near else ""),
                remedy="choose a target with one of these, or leave this pass out",
            )
        ]
    valid = VALID.get(provider, ())
    if params.precision not in valid and params.precision != "auto":
        return [
            Problem(
                f"precision {params.precision} is not for {target.execution_provider}",
                Location(path="precision"),
                "the builder would make a model that does not load there, or is many times slower than need be",
                f"choose {' or '.join(valid)}, or another target",
            )
        ]
    return _check_widths(params, target.execution_provider, widths(provider))


def _check_widths(params: ModelBuilderParams, provider: str, there: tuple[int, ...]) -> list[Problem]:
    """Return which parameters ask for weights that are so wide that the target has no kernel for them."""
    asked = {"lm_head_bits": params.lm_head_bits, "embedding_bits": params.embedding_bits}
    if params.int4_algo_config in MIXED | {"search_last", "search_mixed"}:
        asked["int4_algo_config"] = 8
    return [
        Problem(
            f"{name} {getattr(params, name)} asks for weights of {bits} bits, for which {provider} has no kernel",
            Location(path=name),
            f"it has some for {' and '.join(map(str, there))} bits",
            "leave it out, or choose another target",
        )
        for name, bits in asked.items()
        if bits is not None and bits not in there
    ]


def _check_qdq(params: ModelBuilderParams, context: PlanContext) -> list[Problem]:
    """Return what the builder cannot write with DequantizeLinear and MatMul, which TensorRT RTX always gets."""
    forced = PROVIDERS.get(context.target.execution_provider) == "NvTensorRtRtx"
    if not (params.use_qdq or params.extra_options.get("use_qdq") or forced):
        return []
    algorithm = params.int4_algo_config or "default"
    gather = "Gather" in (params.int4_op_types_to_quantize or ())
    shares = _tied(context.model.config) and params.extra_options.get("shared_embeddings", True) is not False
    whose = f"with {context.target.execution_provider}" if forced else "with use_qdq"
    if params.precision == "int8" and not forced:
        return [
            Problem(
                "use_qdq does not go with precision int8",
                Location(path="use_qdq"),
                "the builder writes 8-bit weights as MatMulNBits only",
                "leave use_qdq out, or choose int4",
            )
        ]
    if params.precision == "int4" and algorithm in MIXED:
        return [
            Problem(
                f"int4_algo_config {algorithm} does not go {whose}",
                Location(path="int4_algo_config"),
                "it keeps some layers in 8 bits, which the builder writes as MatMulNBits only",
                f"choose {algorithm.rsplit('_', 1)[0]}, or leave use_qdq out",
            )
        ]
    if params.precision == "int4" and algorithm == "default" and (gather or shares):
        return [
            Problem(
                f"the embedding cannot be quantised {whose} and int4_algo_config default",
                Location(path="int4_op_types_to_quantize" if gather else "use_qdq"),
                "the builder quantises it in the QOperator format only"
                + ("" if gather else ", and does so because the model ties embedding and output layer"),
                "leave Gather out" if gather else "set extra_options: {shared_embeddings: false}, or choose rtn",
            )
        ]
    return []


def _check_op_types(params: ModelBuilderParams) -> list[Problem]:
    """Return what is wrong if nothing that is named can be quantised."""
    given = params.int4_op_types_to_quantize
    if given is None or any(each in QUANTISABLE for each in given) or params.precision not in QUANTISED:
        return []
    return [
        Problem(
            f"nothing is quantised with int4_op_types_to_quantize {', '.join(given) or 'empty'}",
            Location(path="int4_op_types_to_quantize"),
            f"a built model has {' and '.join(QUANTISABLE)} that can be",
            "name one of them, or choose a precision that does not quantise",
        )
    ]


def _tied(config: Mapping[str, Any]) -> bool:
    """Return whether the checkpoint uses one matrix for the embedding and the output layer."""
    return bool(config.get("tie_word_embeddings", False))


def _check_model(params: ModelBuilderParams, config: Mapping[str, Any], target: Accelerator) -> list[Problem]:
    """Return what keeps the installed builder from building this model."""
    names = config.get("architectures")
    if not config or params.metadata_only:
        return []  # not on this machine yet; and for the metadata alone any architecture will do
    if not (isinstance(names, list) and names):
        return [
            Problem(
                "the model's config.json names no architecture",
                why="the model builder goes by its first entry in architectures",
                remedy='add it, e.g. "architectures": ["Phi3ForCausalLM"]',
            )
        ]
    architecture = str(names[0])
    facts = builder_facts()
    problems = []
    if facts is not None and architecture not in facts.architectures:
        problems.append(
            Problem(
                f"the installed model builder does not know {architecture}",
                why=f"it knows {', '.join(facts.architectures)}",
                remedy="choose such a model, or a newer onnxruntime-genai",
            )
        )
    if architecture in ONLY_CUDA_INT4 and (
        PROVIDERS.get(target.execution_provider) != "cuda" or params.precision != "int4"
    ):
        problems.append(
            Problem(
                f"{architecture} can be built with precision int4 for CUDAExecutionProvider only",
                Location(path="precision"),
                "the builder would do so in silence whatever is asked for",
                "set precision: int4, and a target with CUDAExecutionProvider",
            )
        )
    return problems


def _check_options(params: ModelBuilderParams) -> list[Problem]:
    """Return what is wrong with the parameters among themselves, and with names that the builder would ignore."""
    problems = []
    if params.exclude_lm_head and params.include_hidden_states:
        problems.append(
            Problem(
                "exclude_lm_head and include_hidden_states contradict each other",
                Location(path="include_hidden_states"),
                "without the output layer the hidden states are the output already",
                "leave include_hidden_states out",
            )
        )
    for name in params.int4_nodes_to_exclude or ():
        if "," in name:
            problems.append(
                Problem(
                    f"{name!r} is not the name of one node",
                    Location(path="int4_nodes_to_exclude"),
                    remedy="give a list with one name per entry",
                )
            )
    known = builder_options() if params.extra_options else frozenset()
    taken = {OPTION_OF_PARAMETER[name]: name for name in _given_options(params)}
    for key in params.extra_options:
        where = Location(path=f"extra_options.{key}")
        plain = key.removeprefix("int4_")
        if key in RESERVED:
            problems.append(Problem(f"{key} cannot be an extra option here", where, remedy=RESERVED[key]))
        elif key in taken:
            problems.append(
                Problem(f"{key} is given twice: here and as {taken[key]}", where, remedy="leave one of them out")
            )
        elif known and key not in known:
            near = [plain] if plain in known else difflib.get_close_matches(key, sorted(known), n=1)
            problems.append(
                Problem(
                    f"{key} is no option of the installed model builder"
                    + (f"; the nearest is {near[0]}" if near else ""),
                    where,
                    "the builder would ignore it in silence",
                    "python -m onnxruntime_genai.models.builder --help lists them",
                )
            )
    for key in params.search:
        if key not in SEARCH_KEYS:
            near = difflib.get_close_matches(key, sorted(SEARCH_KEYS), n=1)
            problems.append(
                Problem(
                    f"{key} is no search option of ONNX Runtime GenAI"
                    + (f"; the nearest is {near[0]}" if near else ""),
                    Location(path=f"search.{key}"),
                    "a model with it does not load",
                    f"it knows {', '.join(sorted(SEARCH_KEYS))}",
                )
            )
    return problems


def _given_options(params: ModelBuilderParams) -> dict[str, Any]:
    """Return the parameters that say something to the builder, by their own names."""
    return {name: value for name in OPTION_OF_PARAMETER if (value := getattr(params, name)) not in (None, False)} | (
        {"int4_is_symmetric": False} if params.int4_is_symmetric is False else {}
    )


def builder_arguments(params: ModelBuilderParams, *, trust_remote_code: bool = False) -> list[str]:
    """Return the builder's ``KEY=VALUE`` extra options for ``params``."""
    options: dict[str, Any] = {"hf_token": False, "hf_remote": trust_remote_code}
    for name, value in _given_options(params).items():
        options[OPTION_OF_PARAMETER[name]] = "int8" if name == "use_8bits_moe" else value
    options |= params.extra_options
    return [f"{key}={_as_text(key, value)}" for key, value in options.items()]


def _as_text(key: str, value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list | tuple):
        return _SEPARATOR.get(key, ",").join(str(each) for each in value)
    return json.dumps(value) if isinstance(value, dict) else str(value)


def _asked_for_all(params: ModelBuilderParams, target: Accelerator) -> str | None:
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
                ("int4_nodes_to_exclude", bool(params.int4_nodes_to_exclude) and not _multiplies_floats(target)),
                ("int4_op_types_to_quantize", "MatMul" not in (params.int4_op_types_to_quantize or ["MatMul"])),
                (target.execution_provider, PROVIDERS.get(target.execution_provider) == "NvTensorRtRtx"),
                *((f"extra_options.{key}", key not in HARMLESS_OPTIONS) for key in params.extra_options),
            )
            if given
        ),
        None,
    )


def _why_not_streamed(params: ModelBuilderParams, target: Accelerator, checkpoint: Checkpoint) -> str | None:
    """Return what keeps the weights from being rounded as they stream by, or ``None``."""
    asked = _asked_for_all(params, target)
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


def _multiplies_floats(target: Accelerator) -> bool:
    """Return whether the target has a kernel for weights that are left as they are, in the checkpoint's order."""
    return PROVIDERS.get(target.execution_provider) in ("cpu", "cuda")


def _check_streaming(params: ModelBuilderParams, context: PlanContext) -> list[Problem]:
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
    reason = _why_not_streamed(params, context.target, read_checkpoint(context.model.path))
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


def _check_shapes(params: ModelBuilderParams, context: PlanContext) -> list[Problem]:
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


def _build_streamed(
    params: ModelBuilderParams, context: RunContext, provider: str, checkpoint: Checkpoint
) -> tuple[dict[str, float], dict[str, Any], Path]:
    """Build the graph of the checkpoint's skeleton and stream the weights into it.

    Returns:
        Metrics; attributes; the folder of the model that is to be tried.
    """
    from olivine.passes.convert.attaching import Choice
    from olivine.passes.convert.building import APART, build_all
    from olivine.passes.convert.mixed_build import MixedBuild
    from olivine.passes.convert.streamed_build import build_streamed
    from olivine.quant.reading import TensorReader
    from olivine.quant.stored.reading import QuantizedCheckpointReader

    reader = TensorReader(checkpoint)
    quantised = QuantizedCheckpointReader(reader) if checkpoint.format is Format.HF_QUANTIZED else None
    stored = quantised.schemes if quantised else {}
    shared = params.extra_options.get("shared_embeddings", True) is not False
    tied = _tied(checkpoint.config) and shared
    is_auto = params.precision == "auto"
    bits = 8 if params.precision == "int8" else 4
    group = params.int4_block_size or 32
    symmetric = params.int4_is_symmetric is not False
    method: Rounding = "hqq" if params.int4_algo_config == "hqq" else "search"
    more_bits = mixed_bits(params.int4_algo_config, int(checkpoint.config.get("num_hidden_layers") or 0))
    head_bits = params.lm_head_bits or more_bits.get("/lm_head", bits)
    gather = "Gather" in (params.int4_op_types_to_quantize or ())
    embedding_bits = params.embedding_bits or (
        head_bits
        if tied
        else bits
        if gather
        else 8
        if provider == "cpu"
        else None  # elsewhere no kernel was seen to run
    )

    exclude = params.int4_nodes_to_exclude or ()
    unmatched = set(exclude)

    def choose(name: str, width: int, sources: tuple[str, ...]) -> Choice:
        modules = [each.removesuffix(".weight") for each in sources]
        table = name == "/model/embed_tokens"
        names = [f"{name}/{'Gather' if table else 'MatMul'}", *modules]
        excluding = {pattern for pattern in exclude if any(fnmatchcase(each, pattern) for each in names)}
        unmatched.difference_update(excluding)
        if excluding:
            return Choice(None)
        held = {stored.get(each) for each in modules}
        if held != {None}:
            return Choice(_only(held, name), None)
        if stored and not table and name != "/lm_head" and _multiplies_floats(context.target):
            return Choice(None)  # it was left as it is on purpose
        if name != "/model/embed_tokens":
            own_bits = head_bits if name == "/lm_head" else more_bits.get(name, bits)
            return Choice(Scheme(own_bits, group, symmetric), method)
        if embedding_bits is None or width % group:
            return Choice(None)
        return Choice(Scheme(embedding_bits, group, symmetric), method)

    graph = params.model_copy(
        update={
            "precision": "int4",
            "int4_algo_config": None,
            "max_size": None,
            "average_bits": None,
            "max_divergence": None,
            "int4_block_size": None,
            "int4_is_symmetric": None,
            "int4_op_types_to_quantize": None,
            "int4_nodes_to_exclude": None,
            "extra_options": params.extra_options | {"shared_embeddings": False},
        }
    )

    arguments = builder_arguments(graph, trust_remote_code=context.trust_remote_code)

    apart = sum(tensor.bytes for tensor in checkpoint.tensors.values()) >= APART

    def build(source: Path, folders: Mapping[Path, int | None]) -> None:
        builds = {
            folder: [*arguments, *([] if layers is None else [f"num_hidden_layers={layers}"])]
            for folder, layers in folders.items()
        }
        build_all(source, builds, graph.precision, provider, context.checkpoint / "builder", apart=apart)

    mixed = MixedBuild(params, context, reader, method, tied=tied, provider=provider) if is_auto else None
    choosing = mixed.choosing if mixed is not None else lambda _: choose
    threads = threads_within(context.max_memory, BUILDER, TILE, os.cpu_count() or 1)
    built = build_streamed(reader, context, build, choosing, tied=tied, quantised=quantised, threads=threads)
    for pattern in sorted(unmatched):
        context.note(f"int4_nodes_to_exclude: the model has no {pattern}")
    metrics = {} if quantised else {"weight_error": built.error}
    attributes: dict[str, Any] = {"precision": params.precision}
    if mixed is not None:
        metrics |= mixed.metrics()
        attributes = mixed.attributes()
    return metrics, attributes, built.trial or context.output


def _only(held: set[Scheme | None], name: str) -> Scheme:
    """Return the one scheme in which all rows of a node are held."""
    (first, *others) = held
    if first is None or others:
        raise ModelError(
            f"{name} joins weights that the checkpoint holds in different ways",
            why="the runtime multiplies with query, key and value at once, so their bits and groups must be the same",
            remedy="quantise these modules alike",
        )
    return first


def _build(params: ModelBuilderParams, context: RunContext, provider: str) -> None:
    """Have the builder build the whole checkpoint."""
    from olivine.passes.convert.building import build, layers_reported

    context.progress(0, None, message="loading the model builder")
    with layers_reported(context):
        build(
            context.inputs["model"],
            context.output,
            params.precision,
            provider,
            builder_arguments(params, trust_remote_code=context.trust_remote_code),
            context.checkpoint / "builder",
        )


def _merge_search(file: Path, search: Mapping[str, Any]) -> None:
    """Put ``search`` over the search options in ``genai_config.json``."""
    if search:
        config = json.loads(file.read_text(encoding="utf-8"))
        config["search"] |= search
        file.write_text(json.dumps(config, indent=4) + "\n", encoding="utf-8")


def _keep_chat_template(source: Path, output: Path) -> None:
    """Copy a chat template that the builder did not save, so that the model can still be talked with."""
    template = source / "chat_template.jinja"
    if template.is_file() and not (output / template.name).exists():
        shutil.copyfile(template, output / template.name)


def _forget_loading(file: Path) -> None:
    """Drop what transformers notes of how the tokenizer was loaded: the model would differ with the hub on or off."""
    if not file.is_file():
        return
    config = json.loads(file.read_text(encoding="utf-8"))
    kept = {key: value for key, value in config.items() if key not in ("is_local", "local_files_only")}
    if kept != config:
        file.write_text(json.dumps(kept, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _try(params: ModelBuilderParams, context: RunContext, folder: Path) -> bool:
    """Load the model in ``folder`` and generate one token, and return whether that was possible here.

    Raises:
        StepError: it does not load, or its logits are not numbers.
    """
    provider = context.target.execution_provider
    left_out = [name for name in ("exclude_embeds", "exclude_lm_head", "metadata_only") if getattr(params, name)]
    if left_out:
        context.note(f"the result was not tried: with {' and '.join(left_out)} it is no model to generate with")
        return False
    if not can_run(provider):
        context.note(f"the result was not tried: {provider} is not on this machine")
        return False
    try_result(context, params.precision, folder)
    return True
