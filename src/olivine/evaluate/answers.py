"""What metrics of answers share: prompts over the rows of a data config, and what the model says to them, greedily."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from pydantic import Field

from olivine.config.schema import DataConfig
from olivine.errors import OlivineError, Problem
from olivine.evaluate.texts import prompt_template
from olivine.passes.base import Params

if TYPE_CHECKING:
    from olivine.models.text import TextModel


class AnsweringParams(Params):
    """Parameters of metrics that compare the model's answers with right ones."""

    data_config: str
    """Rows with the columns of the prompt and the right answer."""
    prompt_template: str | None = None
    """``str.format`` template over the columns, exactly as in training up to where the answer begins: ``"### Text:
    {phrase}\\n### The tone is:\\n"``. Default: what the data config's text has before its completion."""
    chat_template: bool = False
    """Put the prompt into the model's chat template, as the user's turn."""
    add_special_tokens: bool = True
    """Begin the prompt with BOS if the tokenizer has one, as training does. Not with a chat template, which has it."""
    max_rows: int | None = Field(default=None, ge=1)
    """Measure on the first rows only."""
    batch_size: int = Field(default=16, ge=1)
    """Prompts of equal length that are answered together. Padding is never used, so batches do not change answers."""


def problems_in(params: AnsweringParams, config: DataConfig, answer_col: str) -> list[Problem]:
    """Return what is wrong with the template, the columns, and the rows.

    Args:
        answer_col: column with the right answer.
    """
    from olivine.data.rows import find_problems

    try:
        template = prompt_template(config, params.prompt_template, answer_col)
        return find_problems(config, columns=(*template.columns, answer_col))
    except OlivineError as error:
        return list(error.problems)


def encoded(model: TextModel, prompt: str, params: AnsweringParams) -> list[int]:
    """Return the tokens of a prompt."""
    if params.chat_template:
        return model.encode_chat([{"role": "user", "content": prompt}])
    return model.encode_prompt(prompt, add_special_tokens=params.add_special_tokens)


def answers(
    model: TextModel, prompts: Sequence[Sequence[int]], max_new_tokens: int, batch_size: int
) -> Iterator[tuple[int, str]]:
    """Yield each prompt's row and the answer to it. Prompts of equal length go together: padding is never used, so
    batches do not change answers."""
    by_length: dict[int, list[int]] = defaultdict(list)
    for row, prompt in enumerate(prompts):
        by_length[len(prompt)].append(row)
    for _, rows in sorted(by_length.items()):
        for start in range(0, len(rows), batch_size):
            batch = rows[start : start + batch_size]
            found = model.generate_batch([prompts[row] for row in batch], max_new_tokens)
            for row, ids in zip(batch, found, strict=True):
                yield row, model.decode(ids)
