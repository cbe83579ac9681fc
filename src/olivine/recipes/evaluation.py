"""The workflow that ``olivine evaluate`` stands for, for each model: no passes, and the metrics for which enough was
said."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from typing import Any

from olivine.errors import ConfigError
from olivine.recipes.data import Files, data_config
from olivine.recipes.workflows import CACHE, model_given

METRICS = ("accuracy", "exact_match", "perplexity", "divergence", "speed", "latency", "throughput", "size")
LABELLED = ("accuracy", "exact_match")
READ = ("perplexity", "divergence")


def evaluate(
    model: str,
    *,
    metrics: Sequence[str] | None = None,
    data: Files | None = None,
    text_template: str | None = None,
    text_cols: Sequence[str] | None = None,
    prompt_template: str | None = None,
    label_col: str | None = None,
    labels: Sequence[str] | None = None,
    chat: bool = False,
    max_rows: int | None = None,
    max_new_tokens: int | None = None,
    max_seq_len: int | None = None,
    reference: str | None = None,
    prompt_tokens: int | None = None,
    new_tokens: int | None = None,
    repeats: int | None = None,
    execution_provider: str = "CPUExecutionProvider",
    output: str = "evaluation",
    cache: str = CACHE,
) -> dict[str, Any]:
    """Measure one model as it is.

    Args:
        model: checkpoint folder, quantised checkpoint, GenAI folder, ONNX folder or hub id.
        metrics: their names; default: all for which enough was said.
        data: files to measure on.
        text_template: text of a row, for perplexity and divergence.
        text_cols: columns of the text, instead.
        prompt_template: the prompt over the columns, for accuracy and exact match; default: the text template up to
            its last column.
        label_col: column with the right answer.
        labels: all labels; default: those in the data.
        chat: put the prompt into the model's chat template.
        max_rows: measure on the first rows only.
        max_new_tokens: longest answer.
        max_seq_len: window of perplexity and divergence, in tokens.
        reference: the model before it was quantised, for divergence.
        prompt_tokens: tokens of the prompt that speed is measured with.
        new_tokens: tokens that are generated.
        repeats: how often times are measured.
        execution_provider: where it runs, ONNX Runtime's name.
        output: folder for the result.
        cache: the Store.

    Raises:
        ConfigError: an unknown metric, or one for which too little was said.
        ModelError: there is no such model.
    """
    format, given = model_given(model)
    can_label = bool(data and label_col and (prompt_template or text_template))
    can_read = bool(data and (text_template or text_cols))
    if metrics is None:
        if (prompt_template or label_col) and not can_label:
            raise ConfigError(
                "accuracy needs data, a prompt template and a label column (--data, --prompt-template, --label-col)",
                remedy="give all three, or choose other metrics",
            )
        chosen = {
            "accuracy": can_label,
            "perplexity": can_read,
            "divergence": can_read and reference is not None,
            "speed": True,
            "size": True,
        }
        names = ["latency", "size"] if format == "onnx" else [name for name in METRICS if chosen.get(name)]
    else:
        names = list(dict.fromkeys(metrics))
        _check(names, can_label=can_label, has_data=bool(data), has_reference=reference is not None)
    rows = {"max_rows": max_rows}
    answering = {"prompt_template": prompt_template, "max_new_tokens": max_new_tokens, "chat_template": chat or None}
    params: dict[str, dict[str, Any]] = {
        "accuracy": {"label_col": label_col, "labels": list(labels) if labels else None, **answering, **rows},
        "exact_match": {"answer_col": label_col, **answering, **rows},
        "perplexity": {"max_seq_len": max_seq_len, **rows},
        "divergence": {"reference": reference, "max_seq_len": max_seq_len, **rows},
        "speed": {"prompt_tokens": prompt_tokens, "new_tokens": new_tokens, "repeats": repeats},
        "latency": {"repeats": repeats},
        "throughput": {"repeats": repeats},
        "size": {},
    }
    measured = []
    for name in names:
        metric: dict[str, Any] = {"type": name}
        if name in (*LABELLED, *READ):
            metric["data_config"] = "eval"
        measured.append(metric | {key: value for key, value in params[name].items() if value is not None})
    workflow: dict[str, Any] = {
        "version": 1,
        "input_model": given,
        "systems": {"target": {"type": "LocalSystem", "execution_provider": execution_provider}},
        "evaluators": {"measure": {"metrics": measured}},
        "engine": {"target": "target", "evaluator": "measure", "cache_dir": cache, "output_dir": output},
    }
    if any("data_config" in each for each in measured):
        assert data is not None
        workflow["data_configs"] = [data_config("eval", data, text_template=text_template, text_cols=text_cols)]
    return workflow


def _check(names: Sequence[str], *, can_label: bool, has_data: bool, has_reference: bool) -> None:
    """Say for which metric too little was said."""
    if not names:
        raise ConfigError("no metric is named", remedy=f"choose among {', '.join(METRICS)}")
    for name in names:
        if name not in METRICS:
            near = difflib.get_close_matches(name, METRICS, n=1)
            raise ConfigError(
                f"there is no metric {name!r}" + (f"; the nearest is {near[0]}" if near else ""),
                remedy=f"choose among {', '.join(METRICS)}",
            )
        if name in LABELLED and not can_label:
            raise ConfigError(
                f"{name} needs data, a prompt template and a label column (--data, --prompt-template, --label-col)",
                remedy="give all three",
            )
        if name in READ and not has_data:
            raise ConfigError(
                f"{name} needs data (--data)", remedy="give a file of texts, and a text template or text columns"
            )
        if name == "divergence" and not has_reference:
            raise ConfigError(
                "divergence needs a reference (--reference)", remedy="give the checkpoint before it was quantised"
            )
