"""Data and metrics of a workflow that no configuration describes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from olivine.errors import ConfigError

Files = str | Sequence[str]


def data_config(
    name: str,
    files: Files,
    *,
    text_template: str | None = None,
    text_cols: Sequence[str] | None = None,
    prompt_template: str | None = None,
    completion_template: str | None = None,
    chat: bool = False,
    max_seq_len: int | None = None,
) -> dict[str, Any]:
    """Return a data config over ``files``, with what was said and nothing else.

    Raises:
        ConfigError: the parts contradict each other.
    """
    if (prompt_template is None) != (completion_template is None):
        raise ConfigError(
            "a prompt template and a completion template go together", remedy="give both, or one text template"
        )
    ways = [bool(text_template), bool(text_cols), bool(prompt_template), chat]
    if sum(ways) > 1:
        raise ConfigError(
            "the text of a row was described in two ways",
            remedy="choose one: text template, text columns, prompt and completion templates, or chat",
        )
    listed = [files] if isinstance(files, str) else list(files)
    found: dict[str, Any] = {"name": name, "data_files": listed[0] if len(listed) == 1 else listed}
    if text_template:
        found["text_template"] = text_template
    if text_cols:
        found["text_cols"] = list(text_cols)
    if prompt_template and completion_template:
        found |= {
            "dataset_type": "pair",
            "prompt_template": prompt_template,
            "completion_template": completion_template,
        }
    if chat:
        found["chat_template"] = True
    if max_seq_len is not None:
        found["max_seq_len"] = max_seq_len
    return found


def metrics(
    data: str | None,
    *,
    label_col: str | None = None,
    labels: Sequence[str] | None = None,
    prompt_template: str | None = None,
    chat: bool = False,
    readable: bool = True,
    max_rows: int | None = None,
    timing: bool = True,
) -> list[dict[str, Any]]:
    """Return the metrics for which enough was said: accuracy with a label column, perplexity with texts, speed, size.

    Args:
        data: name of the data config to measure on, if there is one.
        label_col: column with the right answer.
        prompt_template: the prompt, if the data config's text does not say where the answer begins.
        chat: whether prompts go into the chat template.
        readable: whether the data config says what the text of a row is.
        timing: whether speed is measured.

    Raises:
        ConfigError: labels without data.
    """
    if data is None and (label_col is not None or labels):
        raise ConfigError("accuracy needs data to measure on", remedy="give the file that has the label column")
    rows = {"max_rows": max_rows} if max_rows is not None else {}
    found: list[dict[str, Any]] = []
    if label_col is not None:
        accuracy: dict[str, Any] = {"type": "accuracy", "data_config": data, "label_col": label_col}
        if labels:
            accuracy["labels"] = list(labels)
        if prompt_template:
            accuracy["prompt_template"] = prompt_template
        if chat:
            accuracy["chat_template"] = True
        found.append(accuracy | rows)
    if data is not None and readable:
        found.append({"type": "perplexity", "data_config": data} | rows)
    if timing:
        found.append({"type": "speed"})
    return [*found, {"type": "size"}]
