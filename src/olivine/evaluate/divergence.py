"""Divergence: how far a model's predictions are from those of the model before it was quantised."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from olivine.errors import DataError, ModelError
from olivine.evaluate.base import Metric, MetricContext, Workload
from olivine.evaluate.exact_match import share_noise
from olivine.evaluate.formats import REQUIRES, SHAPED_BY, TEXT_FORMATS
from olivine.evaluate.opened import opened
from olivine.evaluate.texts import read_texts
from olivine.passes.base import Format, Params, Requirement
from olivine.passes.estimate import DataSize

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from olivine.models.text import TextModel

RECORD = "divergence.json"
LOGITS = "top.npz"
FEW = 512
"""Predictions that a search compares before it compares all."""


class DivergenceParams(Params):
    """Parameters of :class:`Divergence`."""

    data_config: str
    """The texts, rendered as for training; each row is read on its own."""
    reference: str | None = None
    """The model to compare with: a folder, or a hub id on this machine. Default: the last checkpoint that is not
    quantised."""
    max_seq_len: int = Field(default=512, ge=2)
    """Tokens of a row that are read."""
    max_rows: int | None = Field(default=None, ge=1)
    """Measure on the first rows only."""
    max_tokens: int = Field(default=4096, ge=2)
    """Stop after so many predictions."""
    top_k: int = Field(default=64, ge=1)
    """How many of the likeliest tokens are kept of each prediction, 8 bytes each; all others are one outcome."""
    add_special_tokens: bool = True
    """Begin each row with BOS if the tokenizer has one."""


class Divergence(Metric[DivergenceParams]):
    """Kullback-Leibler divergence of the model's predictions from the unquantised model's, and how often both agree on
    the likeliest token.

    The unquantised model is the last checkpoint in full precision that the passes made, or the input model, unless
    ``reference`` names another. Its
    predictions are kept once, for all models that are compared with it: for each position the logarithms of the
    probabilities of its ``top_k`` likeliest tokens, and that of all others together. Both models' probabilities of
    those others count as one outcome, so no mass is lost, and the value is a lower bound of the divergence over the
    whole vocabulary, which it reaches as ``top_k`` grows; ``tail_mass`` says how much the others had.

    Beside ``kl`` (the mean, in nats per token): ``kl_stderr``, its standard error, as if predictions did not depend on
    each other; ``kl_p99``; ``top_agreement``, a share; ``tail_mass``; ``tokens``.
    """

    type: ClassVar[str] = "divergence"
    summary: ClassVar[str] = "mean KL divergence and top-token agreement with the unquantised model"
    measures: ClassVar[frozenset[Format]] = TEXT_FORMATS
    version: ClassVar[int] = 2
    params_type = DivergenceParams
    units = {  # noqa: RUF012
        "kl": "nats/token",
        "kl_stderr": "nats/token",
        "kl_p99": "nats/token",
        "top_agreement": "",
        "tail_mass": "",
        "tokens": "",
    }
    higher_is_better = {  # noqa: RUF012
        "kl": False,
        "kl_stderr": False,
        "kl_p99": False,
        "top_agreement": True,
        "tail_mass": False,
        "tokens": True,
    }
    requires: ClassVar[dict[Format, tuple[Requirement, ...]]] = REQUIRES
    shaped_by: ClassVar[tuple[str, ...]] = SHAPED_BY
    compares: ClassVar[bool] = True
    cost: ClassVar[int] = 1

    @classmethod
    def workload(cls, params: DivergenceParams, sizes: Mapping[str, DataSize]) -> Workload | None:
        """See :meth:`Metric.workload`."""
        size = sizes.get("data_config")
        if size is None:
            return None
        rows = min(size.rows, params.max_rows or size.rows)
        tokens = min(params.max_tokens, rows * min(size.tokens_per_row, params.max_seq_len))
        return Workload(read=tokens, longest=min(size.tokens_per_row * 2, params.max_seq_len), scored=True)

    @classmethod
    def few(cls, params: DivergenceParams) -> DivergenceParams | None:
        """See :meth:`Metric.few`."""
        return params.model_copy(update={"max_tokens": FEW}) if params.max_tokens >= 4 * FEW else None

    @classmethod
    def noise(cls, value: str, values: Mapping[str, Any]) -> float:
        """One standard error of a mean or a share; unknown for the others."""
        if value == "top_agreement":
            return share_noise(values[value], values["tokens"])
        return float(values["kl_stderr"]) if value == "kl" else 0.0

    def record(self, params: DivergenceParams, context: MetricContext, output: Path) -> dict[str, Any]:
        """Keep the likeliest tokens of every prediction in ``output``: see :meth:`Metric.record`."""
        import numpy as np

        config = context.data["data_config"]
        model = opened(context).model
        texts = read_texts(config, model.path, params.max_rows)
        length = min(params.max_seq_len, model.context_length)
        sequences: list[list[int]] = []
        kept: list[tuple[NDArray[np.int32], NDArray[np.float32], NDArray[np.float32]]] = []
        tokens = vocabulary = 0
        for text in texts:
            room = params.max_tokens - tokens
            ids = model.encode_prompt(text, add_special_tokens=params.add_special_tokens)[: min(length, room + 1)]
            if len(ids) < 2:
                continue
            for log_shares in predictions(model, ids):
                vocabulary = log_shares.shape[1]
                kept.append(top_and_rest(log_shares, min(params.top_k, vocabulary)))
            sequences.append(ids)
            tokens += len(ids) - 1
            context.progress(tokens, params.max_tokens, unit="tokens", message="recording")
            if tokens >= params.max_tokens:
                break
        if not sequences:
            raise DataError(f"no row of {config.name} has two tokens", remedy="give longer texts")
        top, log_top, log_rest = (np.concatenate(each) for each in zip(*kept, strict=True))
        np.savez(output / LOGITS, top=top, log_top=log_top, log_rest=log_rest)
        noted = {"vocabulary": vocabulary, "sequences": sequences, "first_text": texts[0][:2000]}
        (output / RECORD).write_text(json.dumps(noted), encoding="utf-8")
        return {"tokens": tokens, "tail_mass": float(np.exp(log_rest.astype("float64")).mean())}

    def measure(self, params: DivergenceParams, context: MetricContext) -> dict[str, Any]:
        """See :meth:`Metric.measure`."""
        import numpy as np

        if context.recording is None:
            raise ModelError(
                "divergence has nothing to compare with",
                why="the predictions of the unquantised model were not recorded",
                remedy="measure it in a workflow, or give `olivine evaluate --reference CHECKPOINT`",
            )
        noted = json.loads((context.recording / RECORD).read_text(encoding="utf-8"))
        kept: Mapping[str, Any] = np.load(context.recording / LOGITS)
        top, log_top, log_rest = kept["top"], kept["log_top"], kept["log_rest"]
        model = opened(context).model
        _check_same_tokens(model, noted, params)
        divergences, agreeing, done = [], 0, 0
        for sequence in noted["sequences"]:
            ids = sequence[: params.max_tokens - done + 1]
            if len(ids) < 2:
                break
            for log_shares in predictions(model, ids):
                if log_shares.shape[1] <= top.max():
                    raise ModelError(
                        f"the model's vocabulary of {log_shares.shape[1]} is smaller than that of the unquantised one"
                    )
                here = slice(done, done + len(log_shares))
                divergences.append(divergence(top[here], log_top[here], log_rest[here], log_shares))
                agreeing += int((log_shares.argmax(-1) == top[here, 0]).sum())
                done += len(log_shares)
            context.progress(done, min(len(top), params.max_tokens), unit="tokens", message="divergence")
        nats = np.concatenate(divergences)
        return {
            "kl": float(nats.mean()),
            "kl_stderr": float(nats.std() / len(nats) ** 0.5),
            "kl_p99": float(np.percentile(nats, 99)),
            "top_agreement": agreeing / len(nats),
            "tail_mass": float(np.exp(log_rest[: len(nats)].astype("float64")).mean()),
            "tokens": len(nats),
        }


def predictions(model: TextModel, ids: Sequence[int]) -> Iterator[NDArray[np.float64]]:
    """Yield the logarithms of the probabilities of what follows each of ``ids`` but the last: (tokens, vocabulary)."""
    import numpy as np

    for logits in model.logits(ids[:-1]):
        wide = logits.astype(np.float64)
        wide -= wide.max(-1, keepdims=True)
        wide -= np.log(np.exp(wide).sum(-1, keepdims=True))
        yield wide


def top_and_rest(
    log_shares: NDArray[np.float64], count: int
) -> tuple[NDArray[np.int32], NDArray[np.float32], NDArray[np.float32]]:
    """Return the ids of the ``count`` likeliest tokens of each row, likeliest first, their log-probabilities, and that
    of all others together (``-inf`` if there are none)."""
    import numpy as np

    count = min(count, log_shares.shape[1])
    found = np.argpartition(-log_shares, count - 1, axis=-1)[:, :count]
    # Of tokens that are equally likely the first is the likeliest, here as for whoever looks only for that one.
    best = log_shares.argmax(-1)
    absent = ~(found == best[:, None]).any(-1)
    found[absent, -1] = best[absent]
    order = np.lexsort((found, -np.take_along_axis(log_shares, found, -1)), axis=-1)
    top = np.take_along_axis(found, order, -1).astype(np.int32)
    return top, np.take_along_axis(log_shares, top, -1).astype(np.float32), _rest(log_shares, top)


def _rest(log_shares: NDArray[np.float64], top: NDArray[np.int32]) -> NDArray[np.float32]:
    """Return the logarithm of what is left when the tokens ``top`` of each row are taken out.

    It is summed up over the others: 1 minus the sum of the top would be mere rounding where they have nearly all.
    """
    import numpy as np

    others = np.exp(log_shares)
    np.put_along_axis(others, top.astype(np.int64), 0.0, -1)
    with np.errstate(divide="ignore"):
        found: NDArray[np.float32] = np.log(others.sum(-1)).astype(np.float32)
    return found


def divergence(
    top: NDArray[np.int32],
    log_top: NDArray[np.float32],
    log_rest: NDArray[np.float32],
    log_shares: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Return KL(recorded || model) of each row in nats, over the outcomes "token i of top" and "any other".

    Args:
        top: ids, (rows, k).
        log_top: their recorded log-probabilities, (rows, k).
        log_rest: the recorded log-probability of all others, (rows,).
        log_shares: the model's log-probabilities, (rows, vocabulary).
    """
    import numpy as np

    recorded = np.concatenate([log_top, log_rest[:, None]], -1).astype(np.float64)
    here = np.concatenate(
        [np.take_along_axis(log_shares, top.astype(np.int64), -1), _rest(log_shares, top)[:, None]], -1
    )
    # An outcome that never happens adds nothing, whatever the model thinks of it.
    happens = np.isfinite(recorded)
    gaps = np.subtract(recorded, here, out=np.zeros_like(recorded), where=happens)
    found: NDArray[np.float64] = (np.exp(recorded) * gaps).sum(-1)
    return found


def _check_same_tokens(model: TextModel, noted: Mapping[str, Any], params: DivergenceParams) -> None:
    ids = noted["sequences"][0]
    if model.encode_prompt(noted["first_text"], add_special_tokens=params.add_special_tokens)[: len(ids)] != ids and (
        len(noted["first_text"]) < 2000
    ):
        raise ModelError(
            "the model reads the same text as other tokens than the unquantised model",
            why="predictions of models with different tokenizers cannot be compared",
            remedy="compare their perplexity per row, or their accuracy",
        )
