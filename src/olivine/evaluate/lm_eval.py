"""Tasks of the language model evaluation harness (lm-eval), on every format that can be asked for text.

The one adapter to lm-eval, seen with 0.4.13. The harness brings the tasks and their scores; the model is ours, so that
a GenAI folder is asked exactly what a checkpoint is asked. Tasks from local files need no network.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from olivine.config.schema import DataConfig
from olivine.errors import ConfigError, Location, OlivineError, Problem
from olivine.evaluate.base import Metric, MetricContext
from olivine.evaluate.formats import REQUIRES, SHAPED_BY, TEXT_FORMATS
from olivine.evaluate.opened import opened
from olivine.passes.base import Format, Params, Requirement

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from olivine.models.text import TextModel

SCORES = {
    "acc": True, "acc_norm": True, "exact_match": True, "em": True, "f1": True, "bleu": True, "rouge1": True,
    "mc1": True, "mc2": True, "word_perplexity": False, "byte_perplexity": False, "bits_per_byte": False,
    "perplexity": False,
}  # fmt: skip
"""Directions of the harness's usual scores."""


class LmEvalParams(Params):
    """Parameters of :class:`LmEval`."""

    tasks: list[str] = Field(min_length=1)
    """Names of tasks."""
    include_path: str | None = None
    """Folder with task files (YAML) of your own. With it, only those are known, and nothing is looked up elsewhere."""
    limit: int | None = Field(default=None, ge=1)
    """Documents of each task; default: all."""
    num_fewshot: int | None = Field(default=None, ge=0)
    """Solved examples before each question; default: as the task has it."""
    seed: int = 1234
    """Of the choice of examples."""
    add_special_tokens: bool = True
    """Begin with BOS if the tokenizer has one."""


class LmEval(Metric[LmEvalParams]):
    """Runs tasks of lm-eval. Values by task: ``{"arc_easy": {"acc": 0.41, "acc_stderr": 0.01}}``.

    A value that guides a search or has a goal is named ``TASK.SCORE``.
    """

    type: ClassVar[str] = "lm_eval"
    summary: ClassVar[str] = "tasks of lm-evaluation-harness"
    measures: ClassVar[frozenset[Format]] = TEXT_FORMATS
    version: ClassVar[int] = 2
    params_type = LmEvalParams
    units: ClassVar[Mapping[str, str]] = dict.fromkeys(SCORES, "") | {"bits_per_byte": "bits/byte"}
    higher_is_better: ClassVar[Mapping[str, bool]] = SCORES
    requires: ClassVar[dict[Format, tuple[Requirement, ...]]] = {
        format: (*needed, Requirement("lm_eval", "lm-eval", ">=0.4.9,<0.5")) for format, needed in REQUIRES.items()
    }
    shaped_by: ClassVar[tuple[str, ...]] = (*SHAPED_BY, "lm_eval")

    @classmethod
    def check(cls, params: LmEvalParams, data: Mapping[str, DataConfig]) -> list[Problem]:
        """See :meth:`Metric.check`."""
        if params.include_path is not None and not os.path.isdir(params.include_path):
            return [
                Problem(
                    f"there is no folder {params.include_path}",
                    Location(path="include_path"),
                    remedy="give the absolute path of the folder with the task files",
                )
            ]
        return []

    @classmethod
    def main_value(cls, params: Mapping[str, Any]) -> str | None:
        """See :meth:`Metric.main_value`: which scores a task has is known only when it has run."""
        return None

    def measure(self, params: LmEvalParams, context: MetricContext) -> dict[str, Any]:
        """See :meth:`Metric.measure`."""
        import lm_eval
        from lm_eval.tasks import TaskManager

        manager = TaskManager(include_path=params.include_path, include_defaults=params.include_path is None)
        unknown = [task for task in params.tasks if task not in manager.all_tasks]
        if unknown:
            raise ConfigError(
                f"lm-eval has no task {', '.join(unknown)}",
                where=Location(path="tasks"),
                remedy="`lm_eval ls tasks` lists them" if params.include_path is None
                else f"{params.include_path} has {', '.join(manager.all_tasks)}",
            )  # fmt: skip
        found = lm_eval.simple_evaluate(
            model=harness_model(opened(context).model, context, add_special_tokens=params.add_special_tokens),
            tasks=list(params.tasks),
            task_manager=manager,
            limit=params.limit,
            num_fewshot=params.num_fewshot,
            random_seed=params.seed,
            numpy_random_seed=params.seed,
            fewshot_random_seed=params.seed,
            bootstrap_iters=0,
            log_samples=False,
        )
        if not found or not found.get("results"):
            raise OlivineError(f"lm-eval gave no results for {', '.join(params.tasks)}")
        return {task: _scores(values) for task, values in found["results"].items()}


def _scores(values: Mapping[str, Any]) -> dict[str, float]:
    """Return the scores of a task; ``acc,none`` is called ``acc``, those of other filters ``exact_match-FILTER``.

    How many documents there were (``sample_len``) is none.
    """
    scores = {}
    for key, value in values.items():
        name, _, chosen = key.partition(",")
        if isinstance(value, int | float) and not isinstance(value, bool) and name != "sample_len":
            scores[name if chosen in ("", "none") else f"{name}-{chosen}"] = float(value)
    return scores


def harness_model(model: TextModel, context: MetricContext, *, add_special_tokens: bool) -> Any:
    """Return ``model`` as the harness wants it."""
    from lm_eval.api.model import LM

    class HarnessModel(LM):  # type: ignore[misc]
        """Answers the harness's three questions, one request at a time."""

        def loglikelihood(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[tuple[float, bool]]:
            answers = []
            for request in self._reported(requests):
                prompt, continuation = request.args
                answers.append(loglikelihood(model, prompt, continuation, add_special_tokens))
            return answers

        def loglikelihood_rolling(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[float]:
            return [rolling(model, request.args[0], add_special_tokens) for request in self._reported(requests)]

        def generate_until(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[str]:
            return [
                generate_until(model, *request.args, add_special_tokens=add_special_tokens)
                for request in self._reported(requests)
            ]

        def _reported(self, requests: Sequence[Any]) -> Iterator[Any]:
            for done, request in enumerate(requests, 1):
                yield request
                context.progress(done, len(requests), unit="requests", message="lm-eval")

    return HarnessModel()


def loglikelihood(model: TextModel, prompt: str, continuation: str, add_special_tokens: bool) -> tuple[float, bool]:
    """Return the log-probability of ``continuation`` after ``prompt`` in nats, and whether it is the greedy answer.

    Both are encoded together and cut where the prompt ends; white space at its end belongs to the continuation. A
    prompt that is too long loses its beginning.
    """
    stripped = prompt.rstrip()
    continuation = prompt[len(stripped) :] + continuation
    start = model.encode_prompt(stripped, add_special_tokens=add_special_tokens) or [_first(model)]
    whole = model.encode_prompt(stripped + continuation, add_special_tokens=add_special_tokens)
    answer = whole[len(start) :] if whole[: len(start)] == start else model.encode(continuation)
    ids = [*start, *answer][-model.context_length :]
    chosen, greedy = _scored(model, ids, len(answer))
    return float(chosen.sum()), greedy


def rolling(model: TextModel, text: str, add_special_tokens: bool) -> float:
    """Return the log-probability of a whole text in nats, in windows that do not overlap."""
    ids = model.encode_prompt(text, add_special_tokens=add_special_tokens)
    if model.bos_id is None or not add_special_tokens:
        ids = [_first(model), *ids]
    total, length = 0.0, model.context_length
    for begin in range(0, len(ids) - 1, length - 1):
        window = ids[begin : begin + length]
        total += float(_scored(model, window, len(window) - 1)[0].sum())
    return total


def generate_until(model: TextModel, prompt: str, settings: Mapping[str, Any], *, add_special_tokens: bool) -> str:
    """Return the greedy answer, up to the first of the texts that end it."""
    until = settings.get("until") or []
    stops = [until] if isinstance(until, str) else list(until)
    most = int(settings.get("max_gen_toks", 256))
    most = min(most, model.context_length - 1)
    ids = model.encode_prompt(prompt, add_special_tokens=add_special_tokens)[-(model.context_length - most) :]
    answer: list[int] = []
    text = ""
    for token in model.generate(ids, most):
        answer.append(token)
        text = model.decode(answer)
        if any(stop and stop in text for stop in stops):
            break
    ends = [text.index(stop) for stop in stops if stop and stop in text]
    return text[: min(ends)] if ends else text


def _first(model: TextModel) -> int:
    """Return a token that stands before a text without context."""
    return model.bos_id if model.bos_id is not None else min(model.eos_ids)


def _scored(model: TextModel, ids: Sequence[int], count: int) -> tuple[NDArray[np.float64], bool]:
    """Return the log-probabilities of the last ``count`` of ``ids``, and whether each is the likeliest there."""
    import numpy as np

    logits = np.concatenate(list(model.logits(ids[:-1])))[-count:].astype(np.float64)
    logits -= logits.max(-1, keepdims=True)
    logits -= np.log(np.exp(logits).sum(-1, keepdims=True))
    targets = np.asarray(ids[-count:])
    return logits[np.arange(count), targets], bool((logits.argmax(-1) == targets).all())
