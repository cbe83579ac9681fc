"""Exact match: the share of free answers that are the right one, word for word."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any, ClassVar

from pydantic import Field

from olivine.config.schema import DataConfig
from olivine.errors import Problem
from olivine.evaluate.answers import AnsweringParams, answers, encoded, problems_in
from olivine.evaluate.base import Metric, MetricContext, Workload
from olivine.evaluate.formats import REQUIRES, SHAPED_BY, TEXT_FORMATS
from olivine.evaluate.opened import opened
from olivine.evaluate.texts import read_cases
from olivine.passes.base import Format, Requirement
from olivine.passes.estimate import DataSize


class ExactMatchParams(AnsweringParams):
    """Parameters of :class:`ExactMatch`."""

    answer_col: str
    """Column with the right answer."""
    max_new_tokens: int = Field(default=32, ge=1)
    """Most tokens of an answer."""
    stop: str | None = "\n"
    """The answer ends here; null: at the end of text only."""
    ignore_case: bool = False
    """Whether ``Paris`` is ``paris``."""


class ExactMatch(Metric[ExactMatchParams]):
    """The share of rows whose greedy answer, without white space around it, is the right answer.

    Beside ``exact_match``: ``word_f1``, the mean over rows of the harmonic mean of precision and recall of the answer's
    words (Rajpurkar et al., 2016, without the removal of articles and punctuation); ``count``.
    """

    type: ClassVar[str] = "exact_match"
    summary: ClassVar[str] = "share of free answers that are right word for word, and F1 of their words"
    measures: ClassVar[frozenset[Format]] = TEXT_FORMATS
    params_type = ExactMatchParams
    units = {"exact_match": "", "word_f1": "", "count": ""}  # noqa: RUF012 (declared ClassVar by Metric)
    higher_is_better = {"exact_match": True, "word_f1": True, "count": True}  # noqa: RUF012
    requires: ClassVar[dict[Format, tuple[Requirement, ...]]] = REQUIRES
    shaped_by: ClassVar[tuple[str, ...]] = SHAPED_BY

    @classmethod
    def check(cls, params: ExactMatchParams, data: Mapping[str, DataConfig]) -> list[Problem]:
        """See :meth:`Metric.check`: the template, the columns, nulls among the rows."""
        return problems_in(params, data["data_config"], params.answer_col)

    @classmethod
    def workload(cls, params: ExactMatchParams, sizes: Mapping[str, DataSize]) -> Workload | None:
        """See :meth:`Metric.workload`."""
        size = sizes.get("data_config")
        if size is None:
            return None
        rows = min(size.rows, params.max_rows or size.rows)
        longest = params.batch_size * (size.tokens_per_row + params.max_new_tokens)
        return Workload(rows * size.tokens_per_row, rows * params.max_new_tokens / 2, longest)

    @classmethod
    def noise(cls, value: str, values: Mapping[str, Any]) -> float:
        """One standard error of a share."""
        return share_noise(values[value], values["count"]) if value in ("exact_match", "word_f1") else 0.0

    def measure(self, params: ExactMatchParams, context: MetricContext) -> dict[str, Any]:
        """See :meth:`Metric.measure`."""
        cases = read_cases(context.data["data_config"], params.prompt_template, params.answer_col, params.max_rows)
        model = opened(context).model
        prompts = [encoded(model, prompt, params) for prompt, _ in cases]
        right, f1 = 0, 0.0
        for done, (row, answer) in enumerate(answers(model, prompts, params.max_new_tokens, params.batch_size), 1):
            # A newline that the answer begins with belongs to the prompt's end, not to its own.
            said = answer.lstrip().partition(params.stop)[0] if params.stop else answer
            given, truth = _normal(said, params), _normal(cases[row][1], params)
            right += given == truth
            f1 += word_f1(given, truth)
            context.progress(done, len(cases), unit="rows", message="exact match")
        return {"exact_match": right / len(cases), "word_f1": f1 / len(cases), "count": len(cases)}


def _normal(text: str, params: ExactMatchParams) -> str:
    text = text.strip()
    return text.casefold() if params.ignore_case else text


def word_f1(given: str, truth: str) -> float:
    """Return the harmonic mean of precision and recall of the words of ``given``; two empty texts are equal: 1."""
    said, wanted = given.split(), truth.split()
    if not said or not wanted:
        return float(said == wanted)
    shared = sum((Counter(said) & Counter(wanted)).values())
    return 2 * shared / (len(said) + len(wanted))


def share_noise(share: float, count: int) -> float:
    """Return the standard error of a share among ``count`` rows."""
    return float((share * (1 - share) / count) ** 0.5) if count else 0.0
