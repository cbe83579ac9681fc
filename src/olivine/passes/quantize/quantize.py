"""Quantize: round the weights of a checkpoint as they stream by, and store a checkpoint again."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal, cast, get_args

from pydantic import Field

from olivine.config.schema import DataConfig
from olivine.errors import ModelError, Problem
from olivine.models.checkpoint import TensorInfo, read_checkpoint
from olivine.passes.base import Format, Pass, PassResult, PlanContext, Requirement, RunContext
from olivine.passes.budget import BudgetParams
from olivine.passes.estimate import Estimate, estimate_rounding, threads_within, told_of_threads
from olivine.passes.quantize.automatic import FormOptions, check_automatic, files_beside, mix
from olivine.passes.quantize.choosing import Bits, GroupSize, Override, choose, not_decoder
from olivine.passes.quantize.quantize_estimate import FILLING, STREAMING, calibration, with_calibration
from olivine.quant.scheme import Calibrated, Rounding, Scheme
from olivine.quant.stored.form import FormName
from olivine.quant.stored.forms import FORMS

if TYPE_CHECKING:
    from olivine.quant.reading import TensorReader
    from olivine.quant.stored.writing import Done, QuantizedCheckpointWriter

SCRATCH = "quantized"
"""Where a run that was killed finds what it has written, below the checkpoint folder of its Step."""

CALIBRATION = "calibration"
"""Where it finds the hidden states of its calibration set."""

CALIBRATED: tuple[str, ...] = get_args(Calibrated)
"""Methods that need a calibration set."""


class QuantizeParams(BudgetParams):
    """Parameters of :class:`Quantize`."""

    form: FormName = "olive"
    """How the result is stored. ``olive``: what onnxruntime-genai's model builder takes as it is, with bits of its own
    for each matrix. ``gptq``: what GPTQModel, vLLM and the builder read. ``compressed-tensors``: what transformers and
    vLLM read."""
    bits: Bits | Literal["auto"] = 4
    """Width of a weight. 8: nearly lossless. 4: the usual one. 2: for overrides, of what the model can spare.
    ``auto``: bits, group size and zero points are chosen for each matrix, so that the model is as close to the float
    one as the budget allows (``max_size``, ``average_bits`` or ``max_divergence``)."""
    group_size: GroupSize = 32
    """Weights that share a scale; -1 for a scale per output feature. Smaller is more accurate and larger: at 32 a
    16-bit scale costs half a bit per weight, at 128 an eighth."""
    symmetric: bool = True
    """Round around zero; false stores a zero point per group, ``bits`` wide: more accurate and a little larger."""
    method: Rounding | Calibrated = "search"
    """How weights are rounded. From their values alone: ``search``: scales by least squares over many ranges.
    ``k_quant``: the same, large weights count more. ``hqq``: half-quadratic quantisation; slow. ``rtn``, ``rtn_half``:
    scales from the largest weight of the group. By what they do to a calibration set, layer by layer, in minutes to
    hours: ``calibrated``: GPTQ, then codes and scales improved in turn; the most accurate. ``gptq``: GPTQ alone.
    ``scale_estimation``: the best of ``search`` for the inputs, then improved in turn."""
    calibration_data_config: str | None = None
    """Name of the data config whose rows calibrate; what the model will be used for is best. None: a text that Olivine
    brings, some 3,000 tokens in prose, code and tables. Rows are joined, whatever its strategy says."""
    samples: int = Field(default=128, ge=1)
    """Sequences of the calibration set, at most. More take more time; 128 is usual."""
    sequence_length: int = Field(default=512, ge=2)
    """Tokens of each."""
    scaling: Literal["none", "awq"] = "none"
    """With a calibrated method. ``awq``: input features with large values are made smaller before rounding, and their
    weights larger, where that loses less; the norm before, or the matrix before, makes up for it exactly. Chosen for
    each input among 11 strengths, each rounded on trial, so it takes several times as long."""
    act_order: bool = True
    """GPTQ rounds the input features with the largest values first. Groups keep their places, so every form can hold
    the result, and it runs as fast."""
    damping: float = Field(default=0.01, gt=0)
    """Added to the diagonal of the inputs' second moments, as a share of its mean: more trusts the calibration set
    less."""
    sweeps: int = Field(default=4, ge=1)
    """With ``calibrated`` and ``scale_estimation``: how often codes and scales have their turn."""
    correction: float = Field(default=0.5, ge=0, le=1)
    """With ``calibrated``: how much of what earlier layers lost each matrix makes up for. More than 0 runs every layer
    a second time, with the original weights. All of it fits the calibration set better, and other text worse."""
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
    """Round the matrices of a decoder to few bits, and store a Hugging Face checkpoint again.

    From their values alone: weights are read, rounded and written in tiles, on all cores; the model is never in memory,
    in any form. With a calibration set: one decoder layer at a time is in memory, in float32, and the set's hidden
    states are there or in a file. A run that was killed goes on where it was, a calibrated one at its layer. Embedding,
    norms and biases are copied as they are; with ``scaling``, norms and biases are divided by the scales.

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
        notes += _without_effect(params)
        if params.method in CALIBRATED:
            if params.calibration_data_config is None:
                notes.append(
                    "calibration_data_config: a short text that Olivine brings calibrates; data like those that the "
                    "model will see are better"
                )
            limit = model_positions(context.model.config)
            if limit is not None and params.sequence_length > limit:
                notes.append(f"sequence_length: {limit}, which is all that the model has positions for")
                params = params.model_copy(update={"sequence_length": limit})
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
        problems = problems or _choose(params, model.config, _matrices(tensors))[1]
        if not problems:
            options = FormOptions(FORMS[params.form], model.config, tensors, params.lm_head_bits)
            files = files_beside(read_checkpoint(model.path)) if model.path is not None else 0
            given = [
                name
                for name in ("group_size", "symmetric", "overrides", "modules_to_exclude")
                if getattr(params, name) != QuantizeParams.model_fields[name].get_default(call_default_factory=True)
            ]
            problems = check_automatic(params, params.bits, given, options, files)
        return problems + _calibration_problems(params, context)

    @classmethod
    def estimate(cls, params: QuantizeParams, context: PlanContext, data: Mapping[str, DataConfig]) -> Estimate:
        """See :meth:`Pass.estimate`: tiles are in memory, and the largest matrix that is copied as it is."""
        found = estimate_rounding(
            context,
            _base(params).bits,
            params.group_size,
            params.lm_head_bits,
            None,
            fixed=STREAMING,
            tile=FILLING,
        )
        if params.bits == "auto" or params.overrides:
            found = replace(found, from_shapes=False)
        return with_calibration(found, params, context) if params.method in CALIBRATED else found

    @classmethod
    def within(
        cls, params: QuantizeParams, context: PlanContext, data: Mapping[str, DataConfig]
    ) -> tuple[QuantizeParams, list[str]]:
        """See :meth:`Pass.within`: fewer threads round."""
        return params, [] if params.method in CALIBRATED else told_of_threads(context, STREAMING, FILLING)

    def run(self, params: QuantizeParams, context: RunContext) -> PassResult:
        """See :meth:`Pass.run`."""
        from olivine.hardware.machine import this_machine
        from olivine.quant.reading import TensorReader
        from olivine.quant.stored.filling import fill
        from olivine.quant.stored.writing import QuantizedCheckpointWriter

        reader = TensorReader(context.inputs["model"])
        config, tensors = reader.checkpoint.config, reader.tensors
        problems = not_decoder(config, tensors)
        schemes: dict[str, Scheme] = {}
        if not problems:
            schemes, problems = _choose(params, config, _matrices(tensors))
        if problems:  # a model that did not exist when the plan was made
            raise ModelError(problems)
        mixture = None
        if params.bits == "auto":
            options = FormOptions(FORMS[params.form], config, tensors, params.lm_head_bits)
            rounding = "search" if params.method in CALIBRATED else cast(Rounding, params.method)
            mixture = mix(params, context, reader, rounding, options)
            schemes = options.schemes(mixture)
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

        if params.method in CALIBRATED:
            modules = _calibrate(params, context, writer, reader, rounded)
        else:
            method = cast(Rounding, params.method)
            threads = threads_within(context.max_memory, STREAMING, FILLING, this_machine().cores)
            modules = fill(writer, reader, method, threads=threads, done=rounded)
        writer.copy_rest(lambda copied: report(copied, "copying what is not quantised"))
        writer.finish()
        in_modules = sum(done.bytes for done in modules)
        size = sum(file.stat().st_size for file in context.output.rglob("*") if file.is_file())
        weights = sum(writer.sources[name].rows * writer.sources[name].width for name in schemes)
        base = _base(params)
        bits = mixture.commonest if mixture is not None else base.bits
        return PassResult(
            metrics={
                "size_bytes": float(size),
                "weight_error": sum(done.error * done.bytes for done in modules) / in_modules,
                "bits_per_weight": 8 * in_modules / weights,
            },
            attributes={
                "precision": f"int{bits}",
                "form": params.form,
                "method": params.method,
                **({"scaling": params.scaling} if params.method in CALIBRATED and params.scaling != "none" else {}),
                **(
                    mixture.attributes()
                    if mixture is not None
                    else {
                        "bits": base.bits,
                        "group_size": base.group_size,
                        "symmetric": base.symmetric,
                        "overrides": _summary(schemes, base),
                    }
                ),
            },
        )


def _calibrate(
    params: QuantizeParams,
    context: RunContext,
    writer: QuantizedCheckpointWriter,
    reader: TensorReader,
    done: Callable[[Done], None],
) -> list[Done]:
    """Round everything by what it does to the calibration set."""
    from olivine.models.tokenizer import load_tokenizer
    from olivine.passes.quantize.calibration_set import sequences
    from olivine.quant.calibration.calibrating import calibrate, discard
    from olivine.quant.calibration.methods import Method
    from olivine.quant.calibration.walking import LayerWalker

    context.progress(0, None, message="reading calibration data")
    found, notes = sequences(
        context.data.get("calibration_data_config"),
        load_tokenizer(context.inputs["model"]),
        params.samples,
        params.sequence_length,
        limit=model_positions(reader.checkpoint.config),
    )
    for note in notes:
        context.note(note)
    walker = LayerWalker(
        reader,
        device="cuda" if context.host.device == "gpu" else "cpu",
        trust_remote_code=context.trust_remote_code,
    )
    correction = params.correction if params.method == "calibrated" else 0.0
    method = Method(cast(Calibrated, params.method), params.damping, params.act_order, params.sweeps, correction)
    work = context.checkpoint / CALIBRATION
    needs = calibration(params, reader.checkpoint.config, reader.checkpoint.modules)
    modules = calibrate(
        writer,
        walker,
        found,
        method,
        work=work,
        scaling=params.scaling == "awq",
        budget=needs.states_within(context.max_memory),
        done=done,
        note=context.note,
    )
    discard(work)
    return modules


def model_positions(config: Mapping[str, Any]) -> int | None:
    """Return how many positions ``config.json`` says the model has."""
    limit = config.get("max_position_embeddings")
    return limit if isinstance(limit, int) else None


def _calibration_problems(params: QuantizeParams, context: PlanContext) -> list[Problem]:
    """Return what is known to be wrong with the calibration set."""
    from olivine.passes.quantize.calibration_set import too_short

    config = context.data.get("calibration_data_config")
    return too_short(config, params.sequence_length) if config is not None and params.method in CALIBRATED else []


def _without_effect(params: QuantizeParams) -> list[str]:
    """Return one note for each parameter that was set and that the method does not have."""
    names = set()
    if params.method not in CALIBRATED:
        names = {
            "calibration_data_config", "samples", "sequence_length", "scaling", "act_order", "damping", "sweeps",
            "correction",
        }  # fmt: skip
    elif params.method == "gptq":
        names = {"sweeps", "correction"}
    elif params.method == "scale_estimation":
        names = {"act_order", "correction"}
    if params.bits == "auto":
        names -= {"calibration_data_config"}
    given = [
        name
        for name, field in QuantizeParams.model_fields.items()
        if name in names and getattr(params, name) != field.default
    ]
    return [f"{name}: the method {params.method} has no use for it" for name in given]


def _matrices(tensors: Mapping[str, TensorInfo]) -> dict[str, Sequence[int]]:
    """Return the shapes of the matrices by module name."""
    return {name.removesuffix(".weight"): info.shape for name, info in tensors.items() if len(info.shape) == 2}


def _choose(
    params: QuantizeParams, config: Mapping[str, Any], modules: Mapping[str, Sequence[int]]
) -> tuple[dict[str, Scheme], list[Problem]]:
    """See :func:`.choosing.choose`."""
    return choose(
        FORMS[params.form],
        _base(params),
        params.lm_head_bits,
        params.modules_to_exclude,
        params.overrides,
        config,
        modules,
    )


def _base(params: QuantizeParams) -> Scheme:
    """Return the scheme of what nothing else is said of; with ``bits: auto``, one that stands for the choice."""
    return Scheme(4 if params.bits == "auto" else params.bits, params.group_size, params.symmetric)


def _summary(schemes: Mapping[str, Scheme], base: Scheme) -> dict[str, Any]:
    """Return the modules that are stored otherwise than in ``base``."""
    return {
        name: {"bits": scheme.bits, "group_size": scheme.group_size, "symmetric": scheme.symmetric}
        for name, scheme in schemes.items()
        if scheme != base
    }
