"""What metrics read from a data config: prompts with their right answers, and plain texts."""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from olivine.config.schema import DataConfig
from olivine.errors import DataError, Location

if TYPE_CHECKING:
    from olivine.data.formats import Row
    from olivine.data.templates import Template


def prompt_template(config: DataConfig, template: str | None, label_col: str) -> Template:
    """Return the template of the prompt.

    Args:
        template: as the user gave it; ``None`` takes what the data config's text has before its completion.

    Raises:
        DataError: there is none, or it holds the answer.
        ConfigError: it cannot be read.
    """
    from olivine.data.templates import parse_template
    from olivine.models.prompting import prompt_of

    found = parse_template(template) if template is not None else prompt_of(config)
    if found is None:
        raise DataError(
            f"the prompt is not known: {config.name} has no prompt part",
            where=Location(path="prompt_template"),
            remedy=r'set prompt_template, e.g. "### Text: {phrase}\n### The tone is:\n"',
        )
    if label_col in found.columns:
        raise DataError(
            f"the prompt holds the answer: {label_col} is in prompt_template and is label_col",
            where=Location(path="prompt_template"),
            remedy="end the template where the answer begins",
        )
    return found


def read_cases(
    config: DataConfig, template: str | None, label_col: str, max_rows: int | None = None
) -> list[tuple[str, str]]:
    """Return (prompt, right answer) for every row.

    Args:
        template: see :func:`prompt_template`.

    Raises:
        DataError: there are no rows; a column is missing, null or no text; or there is no prompt.
        ConfigError: the template cannot be read.
    """
    prompt = prompt_template(config, template, label_col)
    rows = _rows(config, max_rows, (*prompt.columns, label_col))
    return [(prompt.fill(row.values), str(row.values[label_col])) for row in rows]


def read_texts(config: DataConfig, model: Path, max_rows: int | None = None) -> list[str]:
    """Return the text of every row, rendered as for training.

    Args:
        model: folder of the model, for its chat template if the config asks for one.

    Raises:
        DataError: there are no rows, or a row cannot be rendered.
        ConfigError: the config is contradictory.
    """
    from olivine.data.templates import render

    tokenizer = None
    if config.chat_template:
        from olivine.models.tokenizer import load_tokenizer

        tokenizer = load_tokenizer(model)
    return [render(config, row, tokenizer).text for row in _rows(config, max_rows, None)]


def _rows(config: DataConfig, max_rows: int | None, columns: tuple[str, ...] | None) -> list[Row]:
    """Return the rows of ``config``, at most ``max_rows``.

    Args:
        columns: columns that have to hold text; ``None``: those that the config makes its text from.
    """
    from olivine.data.rows import iter_rows, read_rows

    if max_rows is None:
        return read_rows(config, columns=columns).rows
    return list(islice(iter_rows(config, columns=columns), max_rows))
