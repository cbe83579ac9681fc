"""What measuring a model takes, from what its metrics have it compute."""

from __future__ import annotations

from collections.abc import Sequence

from olivine.evaluate.base import Workload
from olivine.passes.base import Accelerator, Format, ModelFacts
from olivine.passes.effort import Effort
from olivine.passes.estimate import MIB, STARTING, TRANSFORMERS, Estimate
from olivine.planning.fit import cache_shape, whole

CHECKPOINT_LIBRARIES = 420 * MIB
"""Resident bytes of a worker that has imported torch and transformers."""
RUNTIME_LIBRARIES = 150 * MIB
"""The same of ONNX Runtime GenAI."""
WITHOUT_MODEL = 90 * MIB
"""The same where no model is loaded."""
CHUNK = 256
"""Tokens whose logits are there at once; see :mod:`olivine.models.text`."""
PREFILL, PREFILL_QUANTISED = 0.7, 0.5
"""Share of the rate of a large matrix product that reading a prompt reaches, in floats and with quantised weights."""
READ = 0.6
"""Bytes that would be copied in the time in which one byte of weights is read for a token."""
LOOKED_AT = 6.0
"""Bytes that go through memory for each byte of logits that are looked at."""


def estimate_evaluation(
    facts: ModelFacts, work: Sequence[Workload | None], target: Accelerator, *, has_bf16: bool
) -> Estimate | None:
    """Return what measuring a model takes, ``None`` if its size is not known.

    Args:
        facts: the model.
        work: what each metric has it compute; ``None`` for one of which that is not known: then so is the time.
        target: where it is measured.
        has_bf16: whether that multiplies bfloat16 in hardware.
    """
    if not facts.weights or not work:
        return None
    known = [each for each in work if each is not None]
    if len(known) == len(work) and not any(each.loads for each in known):
        return Estimate({"measuring": WITHOUT_MODEL}, effort=Effort(steps=2e7))
    longest = max((each.longest for each in known), default=1024.0)
    scored = any(each.scored for each in known) or len(known) < len(work)
    shape = cache_shape(facts.config)
    vocabulary, hidden = whole(facts.config, "vocab_size"), whole(facts.config, "hidden_size")
    is_graph = facts.format in (Format.GENAI, Format.ONNX)
    on_gpu = target.device == "gpu"
    width = 4 if is_graph and not on_gpu else 2 if on_gpu or (has_bf16 and _is_half(facts)) else 4
    cache = int(2 * shape[0] * shape[1] * shape[2] * width * longest) if shape else 0
    rows = min(longest, CHUNK) if scored or is_graph else 1
    # The logits as they come, in float32, and what is computed of them.
    logits = int(rows * vocabulary * (4 * 3 if scored else 4))
    activations = int(min(longest, CHUNK) * 12 * hidden * width)
    mapped: dict[str, int] = {}
    if is_graph:
        held = facts.weights
        load = {"loading": RUNTIME_LIBRARIES + LOADED * held // 100}
        measuring = RUNTIME_LIBRARIES + LOADED * held // 100 + cache + logits + activations
    else:
        held = facts.parameters * width
        # All files stay mapped until everything has been converted, and their pages count.
        converted = facts.weights if held != facts.weights else 0
        load, mapped = {"loading": CHECKPOINT_LIBRARIES + held + converted}, {"loading": converted}
        measuring = CHECKPOINT_LIBRARIES + held + cache + logits + activations
    effort = _effort(facts, known, held, width, on_gpu=on_gpu) if len(known) == len(work) else Effort()
    if on_gpu:
        vram = {"measuring": 600 * MIB + held + cache + logits + activations}
        libraries = RUNTIME_LIBRARIES if is_graph else CHECKPOINT_LIBRARIES
        phases = {"loading": 2 * libraries + facts.weights}
        return Estimate(phases, vram=vram, effort=effort, mapped={"loading": facts.weights})
    return Estimate({**load, "measuring": measuring}, effort=effort, mapped=mapped)


LOADED = 132
"""Per cent of the weights of a graph that are resident: some of its file, and the order that the kernels want."""


def _effort(facts: ModelFacts, work: Sequence[Workload], held: int, width: int, *, on_gpu: bool) -> Effort:
    """Return the work: prompts at the rate of products, single tokens at that of memory."""
    parameters = facts.parameters or facts.weights * 2
    tokens = sum(each.read for each in work)
    passes = sum(each.passes for each in work)
    is_graph = facts.format in (Format.GENAI, Format.ONNX)
    products = 2.0 * parameters * (tokens + passes) / (PREFILL_QUANTISED if is_graph else PREFILL)
    scored = sum(each.read for each in work if each.scored) * 4 * whole(facts.config, "vocab_size")
    layers = whole(facts.config, "num_hidden_layers") or 1
    half = width == 2
    return (STARTING if is_graph else TRANSFORMERS) + Effort(
        products=0.0 if half else products,
        half_products=products if half else 0.0,
        moved=held * (2.0 + READ * passes) + LOOKED_AT * scored,
        read=float(facts.weights),
        steps=passes * layers * 500.0,
        on_gpu=on_gpu,
    )


def _is_half(facts: ModelFacts) -> bool:
    stored = str(facts.config.get("dtype") or facts.config.get("torch_dtype") or "").removeprefix("torch.")
    return stored == "bfloat16"
