"""ModelBuilder: from a checkpoint to an ONNX Runtime GenAI folder, through the library's own model builder."""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from olivine.config.schema import DataConfig
from olivine.errors import ModelError, Problem
from olivine.hardware.machine import this_machine
from olivine.models.checkpoint import Checkpoint, read_checkpoint
from olivine.models.decoder import is_tied
from olivine.models.genai import PROVIDERS, can_run
from olivine.passes.base import Format, Pass, PassResult, PlanContext, Requirement, RunContext
from olivine.passes.budget import check_budget
from olivine.passes.convert.builder_arguments import builder_arguments
from olivine.passes.convert.builder_checks import QUANTISABLE, VALID, check_build
from olivine.passes.convert.builder_facts import SEEN_WITH
from olivine.passes.convert.builder_params import QUANTISED, STREAMED, ModelBuilderParams
from olivine.passes.convert.mixed_facts import check_mixed, scale_bytes
from olivine.passes.convert.streamable import asked_for_all, check_shapes, check_streaming, why_not_streamed
from olivine.passes.convert.trying import try_result
from olivine.passes.effort import Effort
from olivine.passes.estimate import (
    BUILDER,
    BUILDING,
    GRAPH,
    TILE,
    TRANSFORMERS,
    Estimate,
    estimate_rounding,
    threads_within,
    told_of_threads,
)

if TYPE_CHECKING:
    from olivine.passes.convert.building import BuilderProcess
    from olivine.quant.streaming import Matrix


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
    version: ClassVar[int] = 3  # 2: int4 and int8 are rounded by search, streamed; 3: their places in the file

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
        gather = "Gather" in (params.int4_op_types_to_quantize or ()) and not is_tied(context.model.config)
        if gather and (params.precision == "int8" or (params.precision == "int4" and algorithm != "default")):
            how = f"{params.precision} and int4_algo_config {algorithm}"
            notes.append(f"int4_op_types_to_quantize: the embedding is not quantised with {how}")
        if params.precision in ("int4", "int8") and not params.metadata_only and context.model.path is not None:
            reason = why_not_streamed(params, context.target, read_checkpoint(context.model.path))
            if reason:
                notes.append(f"the whole checkpoint is loaded into memory: {reason}")
        return params, notes

    @classmethod
    def check(cls, params: ModelBuilderParams, context: PlanContext) -> list[Problem]:
        """See :meth:`Pass.check`."""
        return [
            *check_build(params, context),
            *check_budget(params, "precision", params.precision),
            *check_streaming(params, context),
            *check_mixed(params, context.model, PROVIDERS.get(context.target.execution_provider, "")),
            *check_shapes(params, context),
        ]

    @classmethod
    def estimate(cls, params: ModelBuilderParams, context: PlanContext, data: Mapping[str, DataConfig]) -> Estimate:
        """See :meth:`Pass.estimate`."""
        model = context.model
        if params.precision in QUANTISED and asked_for_all(params, context.target) is None:
            bits = 8 if params.precision == "int8" else 4  # with auto, about so many
            tied = is_tied(model.config)
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
        # One thread does most of it: it goes over each weight again and again.
        work = Effort(moved=350.0 * model.parameters, read=model.weights, written=2.0 * output)
        effort = TRANSFORMERS + BUILDING + work
        phases, mapped = {"building": BUILDER + held + model.weights}, {"building": model.weights}
        found = Estimate(phases, output, effort=effort, mapped=mapped)
        if params.precision in QUANTISED and params.int4_algo_config in STREAMED:
            return found
        instead = [{"int4_algo_config": "search"}]
        if params.precision not in QUANTISED:
            valid = VALID.get(PROVIDERS.get(context.target.execution_provider, ""), ())
            instead = [{"precision": each} for each in ("int8", "int4") if each in valid]
        lighter = []
        for change in instead:
            streamed = params.model_copy(update=change)
            if asked_for_all(streamed, context.target) is None:
                text = ", ".join(f"{key}: {value}" for key, value in change.items())
                lighter.append((text, cls.estimate(streamed, context, data)))
        return replace(found, lighter=tuple(lighter))

    @classmethod
    def within(
        cls, params: ModelBuilderParams, context: PlanContext, data: Mapping[str, DataConfig]
    ) -> tuple[ModelBuilderParams, list[str]]:
        """See :meth:`Pass.within`: fewer threads round, where weights stream by."""
        streams = params.precision in QUANTISED and asked_for_all(params, context.target) is None
        return params, told_of_threads(context, BUILDER, TILE) if streams else []

    def run(self, params: ModelBuilderParams, context: RunContext) -> PassResult:
        """See :meth:`Pass.run`."""
        provider = PROVIDERS[context.target.execution_provider]
        checkpoint = read_checkpoint(context.inputs["model"])
        metrics: dict[str, float] = {}
        attributes: dict[str, Any] = {"precision": params.precision}
        trial = context.output
        reason = why_not_streamed(params, context.target, checkpoint)
        if reason and params.precision == "auto":  # a model that did not exist when the plan was made
            raise ModelError(f"precision auto is for checkpoints that can be streamed: {reason}")
        if reason:
            _build(params, context, provider)
        else:
            from olivine.passes.convert.building import APART, BuilderProcess

            large = sum(tensor.bytes for tensor in checkpoint.tensors.values()) >= APART
            with BuilderProcess() if large else contextlib.nullcontext() as process:
                metrics, attributes, trial = _build_streamed(params, context, provider, checkpoint, process)
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


def _build_streamed(
    params: ModelBuilderParams,
    context: RunContext,
    provider: str,
    checkpoint: Checkpoint,
    process: BuilderProcess | None,
) -> tuple[dict[str, float], dict[str, Any], Path]:
    """Build the graph of the checkpoint's skeleton, in ``process`` if there is one, and stream the weights into it.

    Returns:
        Metrics; attributes; the folder of the model that is to be tried.
    """
    from olivine.passes.convert import building
    from olivine.passes.convert.foreseeing import foresee
    from olivine.passes.convert.mixed_build import MixedBuild
    from olivine.passes.convert.streamed_build import build_streamed
    from olivine.passes.convert.uniform_build import UniformBuild, graph_params
    from olivine.quant.reading import TensorReader
    from olivine.quant.stored.reading import QuantizedCheckpointReader

    reader = TensorReader(checkpoint)
    quantised = QuantizedCheckpointReader(reader) if checkpoint.format is Format.HF_QUANTIZED else None
    tied = is_tied(checkpoint.config) and params.extra_options.get("shared_embeddings", True) is not False
    choice: MixedBuild | UniformBuild
    if params.precision == "auto":
        choice = MixedBuild(params, context, reader, tied=tied, provider=provider)
    else:
        choice = UniformBuild(params, context, checkpoint, quantised, tied=tied, provider=provider)
    graph = graph_params(params)
    arguments = builder_arguments(graph, trust_remote_code=context.trust_remote_code)

    def build(source: Path, folders: Mapping[Path, int | None]) -> None:
        builds = {
            folder: [*arguments, *([] if layers is None else [f"num_hidden_layers={layers}"])]
            for folder, layers in folders.items()
        }
        scratch = context.checkpoint / "builder"
        if process is not None:
            process.build(source, builds, graph.precision, provider, scratch)
            return
        for folder, given in builds.items():
            building.build(source, folder, graph.precision, provider, given, scratch)

    threads = threads_within(context.max_memory, BUILDER, TILE, this_machine().cores)
    foreseen: tuple[Matrix, ...] = ()
    if isinstance(choice, UniformBuild) and quantised is None:  # what it says does not depend on the graph
        scales: Literal["float32", "float16"] = "float32" if scale_bytes(provider) == 4 else "float16"
        foreseen = foresee(reader.tensors, checkpoint.config, choice.choose, scales)
    built = build_streamed(
        reader,
        context,
        build,
        choice.choosing,
        tied=tied,
        quantised=quantised,
        threads=threads,
        foreseen=foreseen,
        beside=process is not None and context.max_memory is None,
    )
    for pattern in sorted(choice.unmatched):
        context.note(f"int4_nodes_to_exclude: the model has no {pattern}")
    metrics = {} if quantised else {"weight_error": built.error}
    return metrics | choice.metrics(), choice.attributes(), built.trial or context.output


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
        context.note(f"the result was not tried: the machine that made it has no {provider}")
        return False
    try_result(context, params.precision, folder)
    return True
