"""Perplexity: how surprised the model is by a text, token by token."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from olivine.errors import DataError
from olivine.evaluate.base import Metric, MetricContext, Workload
from olivine.evaluate.formats import REQUIRES, SHAPED_BY, TEXT_FORMATS
from olivine.evaluate.opened import opened
from olivine.evaluate.texts import read_texts
from olivine.passes.base import Format, Params, Requirement
from olivine.passes.estimate import DataSize

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from olivine.models.text import TextModel


class PerplexityParams(Params):
    """Parameters of :class:`Perplexity`."""

    data_config: str
    """The texts, rendered as for training."""
    max_seq_len: int = Field(default=1024, ge=2)
    """Length of a window in tokens; the model's context if that is shorter."""
    stride: int | None = Field(default=None, ge=1)
    """Tokens between the starts of two windows. Default: ``max_seq_len``, windows that do not overlap: fastest. A
    smaller stride gives every token at least ``max_seq_len - stride`` tokens of context."""
    per_row: bool | None = None
    """Score each row on its own. Default: as the data config's ``strategy`` has it: one long text for the ``join``
    strategies, rows for the ``line-by-line`` ones."""
    add_special_tokens: bool = True
    """Begin the text (or each row) with BOS if the tokenizer has one. BOS itself is not scored."""
    max_rows: int | None = Field(default=None, ge=1)
    """Measure on the first rows only."""
    max_tokens: int | None = Field(default=None, ge=2)
    """Stop after about so many tokens."""


class Perplexity(Metric[PerplexityParams]):
    """``exp`` of the mean negative log-likelihood of the tokens, in the standard protocol of sliding windows.

    The rows are rendered to text, joined by the data config's ``joiner`` (for the ``join`` strategies), and tokenised
    in one piece. Windows of ``max_seq_len`` tokens begin every ``stride`` tokens; a token is scored once, in the first
    window that holds it, and never as the first token of a window, which has no context. With the default stride that
    leaves out one token per window.

    Beside ``perplexity``: ``nll`` in nats per token, and the number of ``tokens`` scored. Values of models with
    different tokenizers cannot be compared.
    """

    type: ClassVar[str] = "perplexity"
    summary: ClassVar[str] = "exp of the mean negative log-likelihood per token"
    measures: ClassVar[frozenset[Format]] = TEXT_FORMATS
    params_type = PerplexityParams
    units = {"perplexity": "", "nll": "nats/token", "tokens": ""}  # noqa: RUF012 (declared ClassVar by Metric)
    higher_is_better = {"perplexity": False, "nll": False, "tokens": True}  # noqa: RUF012
    requires: ClassVar[dict[Format, tuple[Requirement, ...]]] = REQUIRES
    shaped_by: ClassVar[tuple[str, ...]] = SHAPED_BY

    @classmethod
    def workload(cls, params: PerplexityParams, sizes: Mapping[str, DataSize]) -> Workload | None:
        """See :meth:`Metric.workload`."""
        size = sizes.get("data_config")
        if size is None:
            return None
        tokens = min(size.rows, params.max_rows or size.rows) * size.tokens_per_row
        tokens = min(tokens, params.max_tokens or tokens)
        overlap = params.max_seq_len / (params.stride or params.max_seq_len)
        return Workload(read=tokens * max(1.0, overlap), longest=min(tokens, params.max_seq_len), scored=True)

    def measure(self, params: PerplexityParams, context: MetricContext) -> dict[str, Any]:
        """See :meth:`Metric.measure`."""
        config = context.data["data_config"]
        model = opened(context).model
        texts = read_texts(config, model.path, params.max_rows)
        per_row = params.per_row if params.per_row is not None else config.strategy.startswith("line")
        pieces = texts if per_row else [(config.joiner or "").join(texts)]
        sequences = [model.encode_prompt(text, add_special_tokens=params.add_special_tokens) for text in pieces]
        length = min(params.max_seq_len, model.context_length)
        total = min(sum(map(len, sequences)), params.max_tokens or 2**62)
        nll, scored = 0.0, 0
        for ids in sequences:
            for losses in windows(model, ids, length, min(params.stride or length, length)):
                nll += float(losses.sum(dtype="float64"))
                scored += len(losses)
                context.progress(min(scored, total), total, unit="tokens", message="perplexity")
                if params.max_tokens is not None and scored >= params.max_tokens:
                    return _values(nll, scored)
        if scored == 0:
            raise DataError(
                f"no row of {config.name} has a token that can be scored",
                why="the first token of a text has no context",
                remedy="give longer texts, or keep add_special_tokens",
            )
        return _values(nll, scored)


def _values(nll: float, tokens: int) -> dict[str, Any]:
    mean = nll / tokens
    return {"perplexity": math.exp(mean) if mean < 700 else math.inf, "nll": mean, "tokens": tokens}


def windows(model: TextModel, ids: Sequence[int], length: int, stride: int) -> Iterator[NDArray[np.float32]]:
    """Yield the negative log-likelihoods of the tokens of ``ids`` in nats, window by window.

    Args:
        length: tokens of a window.
        stride: tokens between the starts of two windows.
    """
    import numpy as np

    done = 0
    for begin in range(0, max(len(ids) - 1, 0), stride):
        window = ids[begin : begin + length]
        first = max(done, begin + 1)  # the first token that is scored in this window
        losses = []
        place = begin
        for logits in model.logits(window):
            # Row i of this chunk predicts token place + i + 1.
            start, stop = max(first, place + 1), min(place + len(logits), begin + len(window) - 1)
            if start <= stop:
                rows = logits[start - place - 1 : stop - place]
                losses.append(_losses(rows, np.asarray(ids[start : stop + 1])))
            place += len(logits)
        done = begin + len(window)
        if losses:
            yield np.concatenate(losses)
        if done >= len(ids):
            return


def _losses(logits: NDArray[np.float32], targets: NDArray[Any]) -> NDArray[np.float32]:
    """Return -log softmax(logits)[target] for every row."""
    import numpy as np

    top = logits.max(axis=-1, keepdims=True)
    log_total = np.log(np.exp(logits - top).sum(axis=-1)) + top[:, 0]
    found: NDArray[np.float32] = log_total - logits[np.arange(len(targets)), targets]
    return found
