"""Accuracy by generated label: the model answers a prompt, and the label that its answer begins with is what counts."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from olivine.config.schema import DataConfig
from olivine.errors import DataError, Location, Problem
from olivine.evaluate.answers import AnsweringParams, encoded, problems_in
from olivine.evaluate.answers import answers as answers_to
from olivine.evaluate.base import Metric, MetricContext, Workload
from olivine.evaluate.exact_match import share_noise
from olivine.evaluate.formats import REQUIRES, SHAPED_BY, TEXT_FORMATS
from olivine.evaluate.opened import opened
from olivine.evaluate.texts import read_cases
from olivine.passes.base import Format, Requirement
from olivine.passes.estimate import DataSize

if TYPE_CHECKING:
    from olivine.models.text import TextModel

UNANSWERED = "(none)"
"""What stands in the confusion table for an answer that begins with no label."""


class AccuracyParams(AnsweringParams):
    """Parameters of :class:`Accuracy`."""

    label_col: str
    """Column with the right answer."""
    labels: list[str] | None = None
    """All labels there are. Default: those in the data."""
    answer_by: Literal["generate", "likelihood"] = "generate"
    """``generate``: what an app would get, greedily. ``likelihood``: the label to which the model gives the highest
    probability, token by token; it always answers, and takes as many times longer as there are labels."""
    max_new_tokens: int = Field(default=8, ge=1)
    """Most tokens of an answer; a label must fit."""
    ignore_case: bool = True
    """Whether ``Joy`` is ``joy``."""
    strip: bool = True
    """Whether white space before the answer is ignored."""


class Accuracy(Metric[AccuracyParams]):
    """The share of rows for which the answer begins with the right label.

    The answer is normalised (``strip``, ``ignore_case``); then the longest label that it begins with, up to the end of
    a word, is the model's choice. An answer that begins with none is wrong, and counted as ``unanswered``.

    Beside ``accuracy``: ``count``; ``unanswered``, a share; ``majority``, the accuracy of always answering the most
    frequent label, below which nothing was learned; ``macro_f1``; per label ``precision``, ``recall``, ``f1`` and
    ``count``; ``confusion[truth][answer]``.
    """

    type: ClassVar[str] = "accuracy"
    summary: ClassVar[str] = "share of prompts answered with the right label"
    measures: ClassVar[frozenset[Format]] = TEXT_FORMATS
    version: ClassVar[int] = 2
    params_type = AccuracyParams
    units = {"accuracy": "", "count": "", "unanswered": "", "majority": "", "macro_f1": ""}  # noqa: RUF012
    higher_is_better = {  # noqa: RUF012 (declared ClassVar by Metric)
        "accuracy": True,
        "count": True,
        "unanswered": False,
        "majority": False,
        "macro_f1": True,
    }
    requires: ClassVar[dict[Format, tuple[Requirement, ...]]] = REQUIRES
    shaped_by: ClassVar[tuple[str, ...]] = SHAPED_BY

    @classmethod
    def check(cls, params: AccuracyParams, data: Mapping[str, DataConfig]) -> list[Problem]:
        """See :meth:`Metric.check`: the template, the columns, nulls among the rows."""
        return problems_in(params, data["data_config"], params.label_col)

    @classmethod
    def workload(cls, params: AccuracyParams, sizes: Mapping[str, DataSize]) -> Workload | None:
        """See :meth:`Metric.workload`; about every second prompt has the length of another, and answers end early."""
        size = sizes.get("data_config")
        if size is None:
            return None
        rows = min(size.rows, params.max_rows or size.rows)
        longest = params.batch_size * (size.tokens_per_row + params.max_new_tokens)
        if params.answer_by == "generate":
            return Workload(rows * size.tokens_per_row, rows * params.max_new_tokens / 2, longest)
        choices = len(params.labels or ()) or 4
        return Workload(rows * choices * size.tokens_per_row, 0.0, size.tokens_per_row, scored=True)

    @classmethod
    def noise(cls, value: str, values: Mapping[str, Any]) -> float:
        """One standard error of a share."""
        return share_noise(values[value], values["count"]) if value in ("accuracy", "unanswered") else 0.0

    def measure(self, params: AccuracyParams, context: MetricContext) -> dict[str, Any]:
        """See :meth:`Metric.measure`."""
        cases = read_cases(context.data["data_config"], params.prompt_template, params.label_col, params.max_rows)
        labels = list(params.labels) if params.labels is not None else sorted({truth for _, truth in cases})
        normal = {_normalise(label, params): label for label in reversed(labels)}
        unknown = sorted({truth for _, truth in cases if _normalise(truth, params) not in normal})
        if unknown:
            raise DataError(
                f"the data has labels that are not among `labels`: {', '.join(unknown[:5])}",
                where=Location(path="labels"),
                remedy="add them, or leave `labels` out",
            )
        model = opened(context).model
        _check_room(model, labels, params)
        prompts = [encoded(model, prompt, params) for prompt, _ in cases]
        choose = _by_likelihood if params.answer_by == "likelihood" else _by_generating
        answers: list[str | None] = [None] * len(cases)
        for done, (row, answer) in enumerate(choose(model, prompts, normal, params), 1):
            answers[row] = answer
            context.progress(done, len(cases), unit="rows", message="accuracy")
        truths = [normal[_normalise(truth, params)] for _, truth in cases]
        return score(truths, answers)


def _check_room(model: TextModel, labels: Sequence[str], params: AccuracyParams) -> None:
    """Raise a DataError if a label is longer than the answer may be: it could never be right."""
    longest = max(labels, key=lambda label: len(model.encode(label)))
    tokens = len(model.encode(longest))
    if params.answer_by == "generate" and tokens > params.max_new_tokens:
        raise DataError(
            f"the label {longest!r} has {tokens} tokens, and an answer may have {params.max_new_tokens}",
            where=Location(path="max_new_tokens"),
            remedy=f"set max_new_tokens to {tokens + 1} or more",
        )


def score(truths: Sequence[str], answers: Sequence[str | None]) -> dict[str, Any]:
    """Return accuracy and what belongs to it; an answer of ``None`` is none of the labels."""
    confusion: dict[str, Counter[str]] = defaultdict(Counter)
    for truth, answer in zip(truths, answers, strict=True):
        confusion[truth][answer if answer is not None else UNANSWERED] += 1
    right = sum(row[truth] for truth, row in confusion.items())
    per_label: dict[str, dict[str, float]] = {}
    for label in sorted(confusion):
        said = sum(row[label] for row in confusion.values())
        count = sum(confusion[label].values())
        per_label[label] = {
            "precision": confusion[label][label] / said if said else 0.0,
            "recall": confusion[label][label] / count,
            "count": count,
        }
        per_label[label]["f1"] = _f1(per_label[label]["precision"], per_label[label]["recall"])
    return {
        "accuracy": right / len(truths),
        "count": len(truths),
        "unanswered": sum(answer is None for answer in answers) / len(truths),
        "majority": max(Counter(truths).values()) / len(truths),
        "macro_f1": sum(each["f1"] for each in per_label.values()) / len(per_label),
        "labels": per_label,
        "confusion": {truth: dict(sorted(row.items())) for truth, row in sorted(confusion.items())},
    }


def _f1(precision: float, recall: float) -> float:
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def label_of(answer: str, normal: dict[str, str], params: AccuracyParams) -> str | None:
    """Return the label that ``answer`` begins with, ``None`` if none: the longest one that ends where a word ends.

    Args:
        normal: labels by their normalised form.
    """
    text = _normalise(answer, params)
    for each in sorted(normal, key=len, reverse=True):
        if text.startswith(each) and not re.match(r"\w", text[len(each) :]):
            return normal[each]
    return None


def _by_generating(
    model: TextModel, prompts: Sequence[Sequence[int]], normal: dict[str, str], params: AccuracyParams
) -> Iterator[tuple[int, str | None]]:
    """Yield each row with the label that its answer begins with."""
    for row, answer in answers_to(model, prompts, params.max_new_tokens, params.batch_size):
        yield row, label_of(answer, normal, params)


def _by_likelihood(
    model: TextModel, prompts: Sequence[Sequence[int]], normal: dict[str, str], params: AccuracyParams
) -> Iterator[tuple[int, str | None]]:
    """Yield each row with the label whose tokens the model finds likeliest on average."""
    import numpy as np

    tokens = {label: model.encode(label) for label in normal.values()}
    for row, prompt in enumerate(prompts):
        likelihoods = {}
        for label, ids in tokens.items():
            logits = np.concatenate(list(model.logits([*prompt, *ids[:-1]])))[len(prompt) - 1 :]
            top = logits.max(-1, keepdims=True)
            log_shares = logits - top - np.log(np.exp(logits - top).sum(-1, keepdims=True))
            likelihoods[label] = float(log_shares[np.arange(len(ids)), ids].mean())
        yield row, max(likelihoods, key=lambda label: likelihoods[label])


def _normalise(text: str, params: AccuracyParams) -> str:
    text = text.strip() if params.strip else text
    return text.casefold() if params.ignore_case else text
