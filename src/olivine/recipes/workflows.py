"""The workflow that each verb stands for, as plain values in the flat form of a file.

Nothing is run and no data is read; the plan does that with the workflow, as with any other.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from olivine.errors import ConfigError, OlivineError
from olivine.recipes.data import Files, data_config, metrics
from olivine.recipes.goals import set_goals
from olivine.recipes.table import FINETUNE, NAMES, Target, passes, target

METHODS = {"lora": "LoRA", "qlora": "QLoRA", "dora": "DoRA", "loftq": "LoftQ"}
SEARCHED = ("cpu", "cuda", "webgpu")
"""Targets that run int8 beside int4."""
OUTPUT = "models"
CACHE = ".olivine-cache"


def optimize(
    model: str,
    *,
    target: str = "cpu",
    precision: str | None = None,
    data: Files | None = None,
    text_template: str | None = None,
    text_cols: Sequence[str] | None = None,
    prompt_template: str | None = None,
    label_col: str | None = None,
    labels: Sequence[str] | None = None,
    max_rows: int | None = None,
    max_size: int | str | None = None,
    min_accuracy: float | None = None,
    max_accuracy_drop: float | None = None,
    measure: bool = True,
    output: str = OUTPUT,
    cache: str = CACHE,
) -> dict[str, Any]:
    """Make the smallest and fastest model for ``target``, and measure it beside the one that went in.

    Args:
        model: checkpoint folder, adapter folder, or hub id.
        target: what ``olivine targets`` lists: ``cpu``, ``cuda-24gb`` ... The plan says whether the model fits it.
        precision: of ModelBuilder; default: the smallest that is fast on the target.
        data: files to measure on; with a text template or columns: perplexity, with a label column: accuracy.
        text_template: text of a row over its columns; the last column is the answer.
        text_cols: columns of the text, instead.
        prompt_template: the prompt over the columns, instead.
        label_col: column with the right answer.
        labels: all labels; default: those in the data.
        max_rows: measure on the first rows only.
        max_size: goal: bytes on disk at most, also ``"2GB"``.
        min_accuracy: goal: accuracy at least.
        max_accuracy_drop: goal: accuracy at most so much below the input model's. With a goal and no precision, int4
            and int8 are tried, and the smallest that meets every goal is taken.
        measure: whether anything is measured (a target that is not on this machine cannot be).
        output: folder for the result.
        cache: the Store.

    Raises:
        ConfigError: there is no such target, or no passes for such a model.
        ModelError: there is no such model.
    """
    to = _target(target)
    format, given = model_given(model)
    workflow = _workflow(given, to, output, cache)
    if measure:
        _measure(workflow, data, text_template, text_cols, prompt_template, label_col, labels, max_rows, timing=True)
    chosen: str | list[str] = precision or _stored_precision(model, format) or to.small
    goals = set_goals(workflow, max_size, min_accuracy, max_accuracy_drop)
    if goals and precision is None and format != "hf-quantized" and target.lower().startswith(SEARCHED):
        chosen = [to.small, "int8"]
        workflow["engine"]["search_strategy"] = {"sampler": "sequential"}
    workflow["passes"] = _passes("optimize", format, model, {"ModelBuilder": {"precision": chosen}})
    return workflow


def convert(
    model: str,
    *,
    target: str = "cpu",
    precision: str | None = None,
    output: str = OUTPUT,
    cache: str = CACHE,
) -> dict[str, Any]:
    """Make an ONNX Runtime GenAI model that computes what the checkpoint computes; nothing is measured.

    Args:
        precision: of ModelBuilder; default: one that loses nothing worth naming, or the integers of a quantised
            checkpoint as they are. The other arguments are those of :func:`optimize`.

    Raises:
        ConfigError: as :func:`optimize`.
        ModelError: there is no such model.
    """
    to = _target(target)
    format, given = model_given(model)
    chosen = precision or _stored_precision(model, format) or to.full
    return _workflow(given, to, output, cache) | {
        "passes": _passes("convert", format, model, {"ModelBuilder": {"precision": chosen}})
    }


def quantize(
    model: str,
    *,
    bits: Literal[2, 4, 8] = 4,
    group_size: int = 32,
    symmetric: bool = True,
    method: str = "search",
    form: str = "olive",
    data: Files | None = None,
    text_template: str | None = None,
    text_cols: Sequence[str] | None = None,
    max_rows: int | None = None,
    output: str = OUTPUT,
    cache: str = CACHE,
) -> dict[str, Any]:
    """Make a quantised checkpoint that others load (vLLM, transformers, GPTQModel).

    Args:
        bits: width of a weight.
        group_size: weights that share a scale; -1 for a scale per output feature.
        symmetric: round around zero.
        method: how scales are found: ``search``, ``k_quant``, ``hqq``, ``rtn``, ``rtn_half``.
        form: ``olive``, ``gptq`` or ``compressed-tensors``.
        data: files to measure perplexity on, before and after. The other arguments are those of :func:`optimize`.

    Raises:
        ConfigError: there are no passes for such a model.
        ModelError: there is no such model.
    """
    format, given = model_given(model)
    workflow = _workflow(given, _target("cpu"), output, cache)
    if data is not None:
        _measure(workflow, data, text_template, text_cols, None, None, None, max_rows, timing=False)
    params = {"bits": bits, "group_size": group_size, "symmetric": symmetric, "method": method, "form": form}
    workflow["passes"] = _passes("quantize", format, model, {"Quantize": params})
    return workflow


def finetune(
    model: str,
    *,
    data: Files,
    method: Literal["lora", "qlora", "dora", "loftq"] = "lora",
    text_template: str | None = None,
    text_cols: Sequence[str] | None = None,
    prompt_template: str | None = None,
    completion_template: str | None = None,
    chat: bool = False,
    max_seq_len: int | None = None,
    rank: int = 16,
    alpha: float | None = None,
    target_modules: Sequence[str] | None = None,
    learning_rate: float | None = None,
    epochs: float | None = None,
    max_steps: int | None = None,
    seed: int | None = None,
    eval_data: Files | None = None,
    label_col: str | None = None,
    labels: Sequence[str] | None = None,
    max_rows: int | None = None,
    merge: bool = True,
    target: str | None = None,
    precision: str | None = None,
    output: str = OUTPUT,
    cache: str = CACHE,
) -> dict[str, Any]:
    """Fine-tune an adapter on ``data``, merge it, and build a model for ``target`` if one is named.

    Args:
        data: files to train on; all rows of them.
        method: ``lora``; ``qlora``: less memory; ``dora``: slower, often better; ``loftq``: for a quantised base.
        text_template: text of a row over its columns, ``"{question}\\n{answer}"``. Default: the column ``text``.
        text_cols: columns of the text, instead.
        prompt_template: with ``completion_template``: only completions are in the loss.
        chat: put the column ``messages`` into the model's chat template.
        max_seq_len: longest sequence in tokens; default: the configuration's, or less if the model has fewer positions.
        rank: of the adapter.
        alpha: scale of the adapter; default: the rank.
        target_modules: modules to adapt; default: every attention and MLP projection.
        learning_rate: default: the pass's.
        epochs: times through the data; default: the pass's.
        max_steps: optimiser steps, before ``epochs``.
        seed: of training.
        eval_data: files to measure on, of the same columns; they are never trained on.
        label_col: column of ``eval_data`` with the right answer, for accuracy.
        merge: merge the adapter into the checkpoint; without, the adapter is the result.
        target: build an ONNX Runtime GenAI model for it too. The other arguments are those of :func:`optimize`.

    Raises:
        ConfigError: the arguments contradict each other, or there are no passes for such a model.
        ModelError: there is no such model.
    """
    if method not in METHODS:
        raise ConfigError(f"there is no method {method!r}", remedy=f"choose among {', '.join(METHODS)}")
    if not merge and target is not None:
        raise ConfigError(
            "a model is built of a merged checkpoint", remedy="leave out the target, or let the adapter be merged"
        )
    if not merge and eval_data is not None:
        raise ConfigError("an adapter on its own cannot be measured", remedy="let it be merged, or leave eval data out")
    to = _target(target or "cpu")
    format, given = model_given(model)
    workflow = _workflow(given, to, output, cache)
    described: dict[str, Any] = {
        "text_template": text_template,
        "text_cols": text_cols,
        "prompt_template": prompt_template,
        "completion_template": completion_template,
        "chat": chat,
        "max_seq_len": max_seq_len if max_seq_len is not None else _short_context(model),
    }
    workflow["data_configs"] = [data_config("train", data, **described)]
    if eval_data is not None:
        workflow["data_configs"].append(data_config("eval", eval_data, **described))
        measured = metrics("eval", label_col=label_col, labels=labels, max_rows=max_rows, timing=target is not None)
        workflow["evaluators"] = {"measure": {"metrics": measured}}
        workflow["engine"]["evaluator"] = "measure"
    elif label_col is not None:
        raise ConfigError("accuracy needs data to measure on", remedy="give eval data, which is never trained on")
    training = {"learning_rate": learning_rate, "num_train_epochs": epochs, "max_steps": max_steps, "seed": seed}
    params: dict[str, Any] = {"r": rank, "alpha": alpha if alpha is not None else rank}
    if target_modules:
        params["target_modules"] = list(target_modules)
    params["train_data_config"] = "train"
    if chosen := {key: value for key, value in training.items() if value is not None}:
        params["training_args"] = chosen
    found = _passes("finetune", format, model, {FINETUNE: params}, METHODS[method])
    if not merge:
        del found["merge"]
    if target is not None:
        found["build"] = {"type": "ModelBuilder", "precision": precision or to.small}
    workflow["passes"] = found
    return workflow


def benchmark(
    model: str,
    *,
    target: str = "cpu",
    data: Files | None = None,
    text_template: str | None = None,
    text_cols: Sequence[str] | None = None,
    prompt_template: str | None = None,
    label_col: str | None = None,
    labels: Sequence[str] | None = None,
    max_rows: int | None = None,
    prompt_tokens: int | None = None,
    new_tokens: int | None = None,
    repeats: int | None = None,
    output: str = "benchmark",
    cache: str = CACHE,
) -> dict[str, Any]:
    """Measure one model as it is: speed, size, and with data accuracy and perplexity; with a report.

    Args:
        prompt_tokens: tokens of the prompt that speed is measured with.
        new_tokens: tokens that are generated.
        repeats: how often. The other arguments are those of :func:`optimize`.

    Raises:
        ConfigError: such a model cannot be measured.
        ModelError: there is no such model.
    """
    format, given = model_given(model)
    passes("benchmark", format, model)
    workflow = _workflow(given, _target(target), output, cache)
    _measure(workflow, data, text_template, text_cols, prompt_template, label_col, labels, max_rows, timing=True)
    lengths = {"prompt_tokens": prompt_tokens, "new_tokens": new_tokens, "repeats": repeats}
    for each in workflow["evaluators"]["measure"]["metrics"]:
        if each["type"] == "speed":
            each |= {key: value for key, value in lengths.items() if value is not None}
    return workflow


def _target(name: str) -> Target:
    return target(name)


def model_given(model: str) -> tuple[str, dict[str, Any]]:
    """Return the format of a model and the ``input_model`` that it means; a hub id that is not here is a checkpoint."""
    from olivine.models.checkpoint import detect_format
    from olivine.models.hub import locate

    folder = locate(model).path
    if folder is None:
        return "hf", {"model_path": model}
    format = str(detect_format(folder))
    if format == "peft":
        return format, {"model_path": _base_of(folder), "adapter_path": model}
    if format in ("genai", "onnx"):
        return format, {"type": "ONNXModel", "model_path": model}
    return format, {"model_path": model}


def _short_context(model: str) -> int | None:
    """Return the number of positions of a model that has fewer than a sequence has tokens by default."""
    from olivine.config.schema import DataConfig
    from olivine.models.checkpoint import read_checkpoint
    from olivine.models.hub import locate

    folder = locate(model).path
    if folder is None or not (folder / "config.json").is_file():
        return None
    positions = read_checkpoint(folder).config.get("max_position_embeddings")
    usual = DataConfig.model_fields["max_seq_len"].default
    return positions if isinstance(positions, int) and 0 < positions < usual else None


def _base_of(adapter: Path) -> str:
    """Return the checkpoint that an adapter belongs to."""
    try:
        found = json.loads((adapter / "adapter_config.json").read_text(encoding="utf-8"))["base_model_name_or_path"]
    except (OSError, ValueError, KeyError, TypeError):
        found = None
    if not isinstance(found, str) or not found:
        raise OlivineError(
            f"the adapter in {adapter} does not say which checkpoint it belongs to",
            remedy="write a configuration with input_model.model_path and adapter_path",
        )
    return found


def _stored_precision(model: str, format: str) -> str | None:
    """Return the precision that keeps a quantised checkpoint's integers as they are."""
    from olivine.models.checkpoint import read_checkpoint
    from olivine.models.hub import locate

    folder = locate(model).path if format == "hf-quantized" else None
    if folder is None:
        return None
    config = read_checkpoint(folder).config.get("quantization_config", {})
    return "int8" if config.get("bits") == 8 else "int4"


def _workflow(given: dict[str, Any], to: Target, output: str, cache: str) -> dict[str, Any]:
    system = {"type": "LocalSystem", "device": to.device, "execution_provider": to.execution_provider}
    if to.memory is not None:
        system["memory"] = to.memory
    return {
        "version": 1,
        "input_model": given,
        "systems": {to.name: system},
        "engine": {"target": to.name, "cache_dir": cache, "output_dir": output},
    }


def _passes(
    verb: str, format: str, model: str, params: dict[str, dict[str, Any]], method: str = ""
) -> dict[str, dict[str, Any]]:
    """Return the passes of the table with their parameters, by name."""
    found = {}
    for entry in passes(verb, format, model):
        kind = method if entry == FINETUNE else entry
        found[NAMES[kind]] = {"type": kind, **params.get(entry, {})}
    return found


def _measure(
    workflow: dict[str, Any],
    data: Files | None,
    text_template: str | None,
    text_cols: Sequence[str] | None,
    prompt_template: str | None,
    label_col: str | None,
    labels: Sequence[str] | None,
    max_rows: int | None,
    *,
    timing: bool,
) -> None:
    """Have the workflow measure the model that goes in and the one that comes out."""
    if data is None and (text_template or text_cols or prompt_template):
        raise ConfigError("a template without data", remedy="give the files that it is for")
    if data is not None:
        workflow["data_configs"] = [data_config("eval", data, text_template=text_template, text_cols=text_cols)]
    measured = metrics(
        "eval" if data is not None else None,
        label_col=label_col,
        labels=labels,
        prompt_template=prompt_template,
        readable=bool(text_template or text_cols) or label_col is None,
        max_rows=max_rows,
        timing=timing,
    )
    workflow["evaluators"] = {"measure": {"metrics": measured}}
    workflow["engine"]["evaluator"] = "measure"
