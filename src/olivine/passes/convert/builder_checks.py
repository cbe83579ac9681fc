"""What is wrong with a build before anything is built: target, model, and parameters among themselves."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any

from olivine.errors import Location, Problem
from olivine.models.decoder import is_tied
from olivine.models.genai import PROVIDERS
from olivine.passes.base import Accelerator, PlanContext
from olivine.passes.convert.builder_arguments import OPTION_OF_PARAMETER, RESERVED, given_options
from olivine.passes.convert.builder_facts import builder_facts, builder_options
from olivine.passes.convert.builder_params import MIXED, QUANTISED, ModelBuilderParams
from olivine.passes.convert.mixed_facts import widths
from olivine.store.disk import bad_name

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


def check_build(params: ModelBuilderParams, context: PlanContext) -> list[Problem]:
    """Return what keeps the installed builder from building this model, so, for this target."""
    return [
        *_check_target(params, context.target),
        *_check_model(params, context.model.config, context.target),
        *_check_qdq(params, context),
        *_check_op_types(params),
        *_check_options(params),
        *_check_file_name(params.extra_options.get("filename")),
    ]


def _check_file_name(name: object) -> list[Problem]:
    """Refuse a graph that would be written elsewhere than into the result, or over another file of it."""
    if name is None or (isinstance(name, str) and name.endswith(".onnx") and "/" not in name and not bad_name(name)):
        return []
    return [
        Problem(
            f"the graph cannot be called {name!r}",
            Location(path="extra_options.filename"),
            remedy="give a plain name that ends in .onnx, such as model.onnx",
        )
    ]


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
    shares = is_tied(context.model.config) and params.extra_options.get("shared_embeddings", True) is not False
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
    taken = {OPTION_OF_PARAMETER[name]: name for name in given_options(params)}
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
