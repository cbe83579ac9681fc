"""How much memory and time training an adapter takes, from the shapes of the model and the length of a batch."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeVar

from olivine.config.schema import DataConfig
from olivine.passes.base import PlanContext
from olivine.passes.effort import Effort
from olivine.passes.estimate import LIBRARIES, TRAINER, Estimate, in_words
from olivine.passes.finetune.target_modules import matching, ranks_of

if TYPE_CHECKING:
    from olivine.passes.finetune.adapter_params import AdapterParams

STATE = 16
"""Bytes for each weight that is trained: itself, its gradient, and two moments of Adam, in float32."""
FOUR_BIT = 0.57
"""Bytes of a weight in NF4 with double quantisation, scales included."""
CUDA = 600 * 2**20
"""Bytes of GPU memory that the driver, and the libraries' kernels and workspaces, take."""
AT_ONCE = 5_000_000_000
"""Bytes of weights that are on a GPU in their own type while they are converted: a file of them, at most."""
LOSS = 32.0
"""Bytes that go through memory for each logit: a softmax, its gradient, and what it is computed from, in float32."""
EFFICIENCY = 0.7
"""Share of the rate of a large matrix product that training's products reach."""

ParamsT = TypeVar("ParamsT", bound="AdapterParams")


@dataclass(frozen=True)
class _Amounts:
    """What is trained on: tokens of a batch on the device, tokens and optimiser steps of the whole run."""

    length: int
    batch: int
    steps: float
    tokens: float


def estimate_training(
    params: AdapterParams, context: PlanContext, data: Mapping[str, DataConfig], *, four_bit: bool, own_base: bool
) -> Estimate:
    """Return what training takes.

    Activations that the backward pass needs are, per token and layer, about 16 vectors of the hidden size and 6 of the
    intermediate size, and those of one layer more for its gradients. With checkpointing it is one vector a layer, and
    three and a half layers' worth while one is computed again and differentiated.
    """
    found = _estimate(params, context, data, four_bit=four_bit, own_base=own_base)
    return replace(found, lighter=tuple(_lighter(params, context, data, four_bit=four_bit, own_base=own_base)))


def keep_within(
    params: ParamsT, context: PlanContext, data: Mapping[str, DataConfig], *, four_bit: bool, own_base: bool
) -> tuple[ParamsT, list[str]]:
    """Return the parameters with checkpointing, and then smaller batches, until training fits ``context.max_memory``.

    The effective batch stays what it is: what the device no longer takes at a time is accumulated. If not even that
    suffices, nothing is changed.
    """
    limit = context.max_memory
    if limit is None:
        return params, []

    def takes(candidate: ParamsT) -> int:
        return _estimate(candidate, context, data, four_bit=four_bit, own_base=own_base).needed

    if takes(params) <= limit:
        return params, []
    batch = int(params.training_args.get("per_device_train_batch_size", 1))
    widths = [each for each in range(batch, 0, -1) if batch % each == 0]
    for checkpointing in dict.fromkeys((is_checkpointing(params.training_args), True)):
        for width in widths:
            candidate = _with(params, checkpointing=checkpointing, batch=width)
            if takes(candidate) <= limit:
                return candidate, _told(params, candidate, limit)
    return params, []


def is_checkpointing(arguments: Mapping[str, Any]) -> bool:
    """Return whether activations are computed again rather than kept."""
    return bool(arguments.get("gradient_checkpointing") or arguments.get("activation_checkpointing"))


def _with(params: ParamsT, *, checkpointing: bool, batch: int) -> ParamsT:
    """Return the parameters with other batches on the device, the effective batch unchanged."""
    arguments = dict(params.training_args)
    before = int(arguments.get("per_device_train_batch_size", 1))
    if batch != before:
        arguments["per_device_train_batch_size"] = batch
        arguments["gradient_accumulation_steps"] = (
            int(arguments.get("gradient_accumulation_steps", 1)) * before // batch
        )
    if checkpointing and not is_checkpointing(arguments):
        arguments.pop("activation_checkpointing", None)
        arguments["gradient_checkpointing"] = True
    return params.model_copy(update={"training_args": dict(sorted(arguments.items()))})


def _told(before: AdapterParams, after: AdapterParams, limit: int) -> list[str]:
    notes = []
    budget = in_words(limit)
    if is_checkpointing(after.training_args) != is_checkpointing(before.training_args):
        notes.append(f"gradient_checkpointing: true, {budget}; about a quarter slower")
    old, new = (each.training_args.get("per_device_train_batch_size", 1) for each in (before, after))
    if old != new:
        steps = after.training_args["gradient_accumulation_steps"]
        notes.append(
            f"per_device_train_batch_size: {new} with gradient_accumulation_steps: {steps}, {budget}; the effective "
            "batch is the same"
        )
    return notes


def _lighter(
    params: AdapterParams, context: PlanContext, data: Mapping[str, DataConfig], *, four_bit: bool, own_base: bool
) -> list[tuple[str, Estimate]]:
    """Return what would take less, the gentlest first, and at the end all of it together."""
    arguments = params.training_args
    batch = int(arguments.get("per_device_train_batch_size", 1))
    accumulation = int(arguments.get("gradient_accumulation_steps", 1))
    found: list[tuple[str, Estimate]] = []

    def add(text: str, changed: AdapterParams, given: Mapping[str, DataConfig] = data, four: bool = four_bit) -> None:
        found.append((text, _estimate(changed, context, given, four_bit=four, own_base=own_base)))

    best, said = params, []
    if not is_checkpointing(arguments):
        best = _with(best, checkpointing=True, batch=batch)
        said.append("training_args.gradient_checkpointing: true")
        add(said[-1], best)
    if batch > 1:
        text = f"training_args.per_device_train_batch_size: 1 with gradient_accumulation_steps: {batch * accumulation}"
        add(text, _with(params, checkpointing=False, batch=1))
        best = _with(best, checkpointing=False, batch=1)
        said.append(text)
    if params.torch_dtype != "bfloat16" and context.has_bf16 and not four_bit:
        add("torch_dtype: bfloat16", params.model_copy(update={"torch_dtype": "bfloat16"}))
        best = best.model_copy(update={"torch_dtype": "bfloat16"})
        said.append("torch_dtype: bfloat16")
    length = _amounts(params, context, data).length
    shorter = {key: each.model_copy(update={"max_seq_len": length // 2}) for key, each in data.items()}
    if length >= 256 and data:
        text = f"data_configs.{next(iter(data.values())).name}.max_seq_len: {length // 2}" if data else ""
        add(text, params, shorter)
        said.append(text)
    if len(said) > 1:
        add(" with ".join(said), best, shorter if length >= 256 and data else data)
    if not four_bit and not own_base:
        add("type: QLoRA with " + " with ".join(said) if said else "type: QLoRA", best, shorter or data, four=True)
    return found


def _amounts(params: AdapterParams, context: PlanContext, data: Mapping[str, DataConfig]) -> _Amounts:
    """Return how long batches are and how many there will be, from what is known of the data."""
    arguments = params.training_args
    config = data.get("train_data_config")
    size = context.sizes.get("train_data_config")
    longest = max((each.max_seq_len for each in data.values()), default=1024)
    batch = int(arguments.get("per_device_train_batch_size", 1))
    accumulation = int(arguments.get("gradient_accumulation_steps", 1))
    length = mean = float(longest)
    sequences = 0.0
    if size is not None and config is not None and config.strategy.startswith("join"):
        length = min(longest, math.ceil(1.5 * size.tokens))  # tokens are guessed from characters
        mean = min(longest, size.tokens)
        sequences = max(1.0, size.tokens / longest)
    elif size is not None and config is not None:
        mean = float(longest) if config.pad_to_max_len else min(longest, size.tokens_per_row)
        sequences = float(size.rows)
    steps = float(arguments.get("max_steps") or 0)
    if steps <= 0:
        epochs = float(arguments.get("num_train_epochs") or 1)
        steps = epochs * max(1.0, sequences / (batch * accumulation))
    each_step = min(batch * accumulation, max(1.0, sequences)) if sequences else batch * accumulation
    return _Amounts(max(1, int(length)), batch, steps, steps * each_step * mean)


def _estimate(
    params: AdapterParams, context: PlanContext, data: Mapping[str, DataConfig], *, four_bit: bool, own_base: bool
) -> Estimate:
    model, config = context.model, context.model.config
    width = 2 if params.torch_dtype == "bfloat16" else 4
    base = _base_bytes(context, width, four_bit=four_bit)
    trained = sum(rank * sum(model.modules[name]) for name, rank in ranks_of(params, model.modules).items())
    saved = sum(math.prod(model.modules[name]) for name in matching(params.modules_to_save or [], model.modules))
    hidden = int(config.get("hidden_size") or 0)
    intermediate = int(config.get("intermediate_size") or 4 * hidden)
    layers = int(config.get("num_hidden_layers") or 1)
    checkpointing = is_checkpointing(params.training_args)
    amounts = _amounts(params, context, data)
    tokens = amounts.length * amounts.batch
    layer = tokens * (16 * hidden + 6 * intermediate) * width
    activations = tokens * hidden * layers * width + layer * 7 // 2 if checkpointing else layer * (layers + 1)
    converted = four_bit or width * model.parameters != model.weights
    mapped = model.weights if converted else 0  # all files stay mapped until everything has been converted
    # What is trained in full is there beside the base's own: itself, its gradient and two moments.
    training = base + trained * STATE + saved * 4 * width + activations
    output = trained * 4 + saved * width + (model.weights if own_base else 0)
    effort = _effort(params, context, amounts, trained, width, checkpointing=checkpointing, layers=layers)
    if own_base:
        effort += Effort(written=model.weights, read=model.weights, products=40.0 * model.parameters * params.r)
    if context.host.device == "gpu":
        vram = {"loading": CUDA + base + (min(model.weights, AT_ONCE) if converted else 0), "training": CUDA + training}
        phases, mapped = {"loading": LIBRARIES + model.weights}, model.weights
    else:
        vram = {}
        phases = {"loading": LIBRARIES + base + mapped, "training": LIBRARIES + training}
    temporary = trained * 12 + saved * 3 * width
    return Estimate(phases, output, temporary, vram, effort, mapped={"loading": mapped} if mapped else {})


def _base_bytes(context: PlanContext, width: int, *, four_bit: bool) -> int:
    """Return the bytes of the frozen base: in 4 bits only the matrices of its layers are, the rest is in float32."""
    parameters = context.model.parameters
    if not four_bit:
        return parameters * width
    rounded = sum(rows * columns for name, (rows, columns) in context.model.modules.items() if ".layers." in name)
    return int(rounded * FOUR_BIT + (parameters - rounded) * 4)


def _effort(
    params: AdapterParams,
    context: PlanContext,
    amounts: _Amounts,
    trained: int,
    width: int,
    *,
    checkpointing: bool,
    layers: int,
) -> Effort:
    """Return the work: a forward pass and the gradients of what goes through the frozen weights, and attention's."""
    model, config = context.model, context.model.config
    hidden = int(config.get("hidden_size") or 0)
    intermediate = int(config.get("intermediate_size") or 4 * hidden)
    tables = [rows * columns for name, (rows, columns) in model.modules.items() if "embed" in name or "wte" in name]
    head = any(name.endswith("lm_head") for name in model.modules)
    multiplied = model.parameters - (sum(tables) if head else 0)
    passes = 3 if checkpointing else 2
    frozen = 2.0 * passes * multiplied
    attention = 2.0 * (passes + 1) * layers * amounts.length * hidden
    own = 8.0 * trained
    work = amounts.tokens * (frozen + attention + own) / EFFICIENCY
    moved = amounts.tokens * layers * (16 * hidden + 6 * intermediate) * width * (passes + 1)
    moved += LOSS * amounts.tokens * int(config.get("vocab_size") or 0)
    updates = amounts.steps * trained * STATE * 4
    effort = TRAINER + Effort(
        moved=moved + updates + 2 * model.weights, read=model.weights, steps=amounts.steps * layers * 2e4
    )
    half = width == 2
    return effort + Effort(
        products=0.0 if half else work, half_products=work if half else 0.0, on_gpu=context.host.device == "gpu"
    )
