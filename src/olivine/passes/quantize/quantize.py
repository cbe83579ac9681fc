"""Quantize: round the weights of a checkpoint as they stream by, and store a checkpoint again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from pydantic import Field

from olivine.errors import ModelError, Problem
from olivine.models.checkpoint import TensorInfo, read_checkpoint
from olivine.passes.base import Format, Params, Pass, PassResult, PlanContext, Requirement, RunContext
from olivine.passes.quantize.choosing import Bits, GroupSize, Override, choose, not_decoder
from olivine.quant.scheme import Rounding, Scheme
from olivine.quant.stored.form import FormName
from olivine.quant.stored.forms import FORMS

SCRATCH = "quantized"
"""Where a run that was killed finds what it has written, below the checkpoint folder of its Step."""


class QuantizeParams(Params):
    """Parameters of :class:`Quantize`."""

    form: FormName = "olive"
    """How the result is stored. ``olive``: what onnxruntime-genai's model builder takes as it is, with bits of its own
    for each matrix. ``gptq``: what GPTQModel, vLLM and the builder read. ``compressed-tensors``: what transformers and
    vLLM read."""
    bits: Bits = 4
    """Width of a weight. 8: nearly lossless. 4: the usual one. 2: for overrides, of what the model can spare."""
    group_size: GroupSize = 32
    """Weights that share a scale; -1 for a scale per output feature. Smaller is more accurate and larger: at 32 a
    16-bit scale costs half a bit per weight, at 128 an eighth."""
    symmetric: bool = True
    """Round around zero; false stores a zero point per group, ``bits`` wide: more accurate and a little larger."""
    method: Rounding = "search"
    """How scales are found. ``search``: by least squares over many ranges. ``k_quant``: the same, large weights count
    more. ``hqq``: half-quadratic quantisation; slow. ``rtn``, ``rtn_half``: from the largest weight of the group."""
    lm_head_bits: Bits | None = None
    """Bits of the output layer; none leaves it as it is. Where the model ties it to the embedding, the result has a
    quantised output layer beside the embedding."""
    modules_to_exclude: list[str] = Field(default_factory=list)
    """Names of modules that stay as they are, with ``*`` and ``?``, e.g. ``*.down_proj``. Not in the form ``olive``,
    whose reader takes every matrix of a layer for a quantised one."""
    overrides: list[Override] = Field(default_factory=list)
    """Modules that are stored otherwise: ``{pattern: "*.down_proj", bits: 8}``, also ``group_size`` and ``symmetric``.
    Later ones count more."""


class Quantize(Pass[QuantizeParams]):
    """Round the matrices of a decoder to few bits, from their values alone, and store a Hugging Face checkpoint again.

    Weights are read, rounded and written in tiles, on all cores; the model is never in memory, in any form. A run that
    was killed goes on where it was. Embedding, norms and biases are copied as they are.

    Where the goal is an ONNX Runtime GenAI model and nothing between, ModelBuilder with precision int4 does the same in
    one go. This pass is for checkpoints that others load, and for bits that differ from matrix to matrix.

    Raises:
        ModelError: a weight is NaN or Inf (the tensor is named), or a file of the checkpoint is cut off.
    """

    type: ClassVar[str] = "Quantize"
    summary: ClassVar[str] = "checkpoint to quantised checkpoint (Olive, GPTQ or compressed-tensors form), streaming"
    reference_url: ClassVar[str] = "https://github.com/vllm-project/compressed-tensors"
    accepts: ClassVar[frozenset[Format]] = frozenset({Format.HF})
    produces: ClassVar[Format] = Format.HF_QUANTIZED
    params_type = QuantizeParams
    requires: ClassVar[tuple[Requirement, ...]] = (
        Requirement("numpy", "torch"),
        Requirement("numba", "cpu"),
        Requirement("torch", "torch"),
    )
    shaped_by: ClassVar[tuple[str, ...]] = ("numba", "torch")
    searchable: ClassVar[Mapping[str, tuple[Any, ...]]] = {
        "bits": (4, 8),
        "group_size": (32, 64, 128),
        "method": ("search", "k_quant", "hqq"),
        "symmetric": (True, False),
    }

    @classmethod
    def resolve(cls, params: QuantizeParams, context: PlanContext) -> tuple[QuantizeParams, list[str]]:
        """Say what the choices mean for those who read the result."""
        notes = []
        tied = context.model.config.get("tie_word_embeddings")
        if params.lm_head_bits is not None and tied:
            notes.append("lm_head_bits: the embedding keeps its weights, and the output layer gets its own beside them")
        asymmetric = not params.symmetric or any(each.symmetric is False for each in params.overrides)
        if params.form == "compressed-tensors" and asymmetric:
            notes.append(
                "symmetric: transformers loads zero points with compressed-tensors 0.15 to 0.17; with 0.18 to 0.20 it "
                "fails"
            )
        if params.form == "gptq" and params.modules_to_exclude:
            notes.append(
                "modules_to_exclude: Olivine's ModelBuilder reads the result; onnxruntime-genai's own model builder "
                "takes every matrix of a layer for a quantised one"
            )
        return params, notes

    @classmethod
    def check(cls, params: QuantizeParams, context: PlanContext) -> list[Problem]:
        """See :meth:`Pass.check`."""
        model = context.model
        if model.path is not None:
            tensors: Mapping[str, TensorInfo] = read_checkpoint(model.path).tensors
        else:  # still to be made, in floating point, as all that may enter is
            tensors = {f"{name}.weight": TensorInfo("F32", tuple(shape), "") for name, shape in model.modules.items()}
        if not tensors:
            return []
        problems = not_decoder(model.config, tensors)
        return problems or _choose(params, model.config, _matrices(tensors))[1]

    def run(self, params: QuantizeParams, context: RunContext) -> PassResult:
        """See :meth:`Pass.run`."""
        import os

        from olivine.quant.reading import TensorReader
        from olivine.quant.stored.filling import fill
        from olivine.quant.stored.writing import Done, QuantizedCheckpointWriter

        reader = TensorReader(context.inputs["model"])
        config, tensors = reader.checkpoint.config, reader.tensors
        problems = not_decoder(config, tensors)
        schemes: dict[str, Scheme] = {}
        if not problems:
            schemes, problems = _choose(params, config, _matrices(tensors))
        if problems:  # a model that did not exist when the plan was made
            raise ModelError(problems)
        writer = QuantizedCheckpointWriter(
            reader, context.output, params.form, schemes, work=context.checkpoint / SCRATCH
        )
        total, so_far = writer.total_bytes, 0

        def report(written: int, message: str, **values: float) -> None:
            nonlocal so_far
            so_far += written
            context.progress(so_far / 1e6, total / 1e6, unit="MB", message=message, **values)

        def rounded(done: Done) -> None:
            report(done.bytes, f"rounding {done.name}", error=done.error)

        modules = fill(writer, reader, params.method, threads=os.cpu_count() or 1, done=rounded)
        writer.copy_rest(lambda copied: report(copied, "copying what is not quantised"))
        writer.finish()
        in_modules = sum(done.bytes for done in modules)
        size = sum(file.stat().st_size for file in context.output.rglob("*") if file.is_file())
        weights = sum(writer.sources[name].rows * writer.sources[name].width for name in schemes)
        return PassResult(
            metrics={
                "size_bytes": float(size),
                "weight_error": sum(done.error * done.bytes for done in modules) / in_modules,
                "bits_per_weight": 8 * in_modules / weights,
            },
            attributes={
                "precision": f"int{params.bits}",
                "form": params.form,
                "bits": params.bits,
                "group_size": params.group_size,
                "symmetric": params.symmetric,
                "method": params.method,
                "overrides": _summary(schemes, Scheme(params.bits, params.group_size, params.symmetric)),
            },
        )


def _matrices(tensors: Mapping[str, TensorInfo]) -> dict[str, Sequence[int]]:
    """Return the shapes of the matrices by module name."""
    return {name.removesuffix(".weight"): info.shape for name, info in tensors.items() if len(info.shape) == 2}


def _choose(
    params: QuantizeParams, config: Mapping[str, Any], modules: Mapping[str, Sequence[int]]
) -> tuple[dict[str, Scheme], list[Problem]]:
    """See :func:`.choosing.choose`."""
    return choose(
        FORMS[params.form],
        Scheme(params.bits, params.group_size, params.symmetric),
        params.lm_head_bits,
        params.modules_to_exclude,
        params.overrides,
        config,
        modules,
    )


def _summary(schemes: Mapping[str, Scheme], base: Scheme) -> dict[str, Any]:
    """Return the modules that are stored otherwise than in ``base``."""
    return {
        name: {"bits": scheme.bits, "group_size": scheme.group_size, "symmetric": scheme.symmetric}
        for name, scheme in schemes.items()
        if scheme != base
    }
