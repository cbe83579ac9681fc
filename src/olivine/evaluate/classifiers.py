"""Models that give a number for each class: checkpoints for sequence classification, and ONNX graphs."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from olivine.errors import ConfigError, ModelError, UnavailableError
from olivine.evaluate.base import MetricContext
from olivine.models.sessions import TYPES, onnx_file, open_session, placement
from olivine.passes.base import Format

if TYPE_CHECKING:
    import torch


class Classifier(ABC):
    """A loaded model.

    Attributes:
        labels: numbers of the classes by their names, as far as the model's configuration has names.
    """

    labels: Mapping[str, int]

    @abstractmethod
    def outputs(self, rows: Sequence[Sequence[Any]], max_length: int | None) -> torch.Tensor:
        """Return a number for each class, (rows, classes), or the chosen classes, (rows,).

        Args:
            rows: the values of the input columns of each row.
            max_length: longest text in tokens.
        """


def open_classifier(context: MetricContext, *, tokenizer: str | None = None) -> Classifier:
    """Load the model that is measured.

    Args:
        tokenizer: the model whose tokenizer is used, if it is not the model itself.

    Raises:
        ModelError: it is no classifier, or cannot be loaded.
    """
    if context.format is Format.ONNX:
        return GraphClassifier(context, tokenizer)
    return CheckpointClassifier(context, tokenizer)


class CheckpointClassifier(Classifier):
    """A checkpoint whose architecture is for sequence classification."""

    def __init__(self, context: MetricContext, tokenizer: str | None) -> None:
        import torch
        from transformers import AutoModelForSequenceClassification

        config = json.loads((context.model / "config.json").read_text(encoding="utf-8"))
        architectures = config.get("architectures") or []
        if not any(str(each).endswith("ForSequenceClassification") for each in architectures):
            raise ModelError(
                f"{context.model} is no classifier: its architecture is {', '.join(architectures) or 'not named'}",
                remedy="measure a language model with accuracy, perplexity or lm_eval",
            )
        self._device = "cuda" if context.target.device == "gpu" and torch.cuda.is_available() else "cpu"
        self._model = AutoModelForSequenceClassification.from_pretrained(
            context.model, dtype=torch.float32, trust_remote_code=context.trust_remote_code, local_files_only=True
        ).to(self._device)  # fmt: skip
        self._model.eval()
        self._tokenizer = _tokenizer(Path(tokenizer) if tokenizer else context.model, context.trust_remote_code)
        self.labels = _labels(context.model)

    def outputs(self, rows: Sequence[Sequence[Any]], max_length: int | None) -> torch.Tensor:
        """See :meth:`Classifier.outputs`."""
        import torch

        tokens = _encoded(self._tokenizer, rows, max_length, self._model.config).to(self._device)
        with torch.inference_mode():
            logits: torch.Tensor = self._model(**tokens).logits
        return logits.float().cpu()


class GraphClassifier(Classifier):
    """An ONNX graph; its first output counts."""

    def __init__(self, context: MetricContext, tokenizer: str | None) -> None:
        self._file = onnx_file(context.model)
        self._provider = context.target.execution_provider
        self._session = open_session(self._file, self._provider)
        self._placed = False
        self._inputs = {each.name: each for each in self._session.get_inputs()}
        self._tokenizer = None
        if "input_ids" in self._inputs:
            folder = self._file.parent
            self._tokenizer = _tokenizer(Path(tokenizer) if tokenizer else folder, context.trust_remote_code)
        elif len(self._inputs) != 1:
            raise ModelError(
                f"the graph {self._file} takes {', '.join(self._inputs)}, which rows do not tell",
                remedy="give a graph that takes input_ids, or one matrix of numbers",
            )
        self.labels = _labels(context.model if context.model.is_dir() else context.model.parent)

    def outputs(self, rows: Sequence[Sequence[Any]], max_length: int | None) -> torch.Tensor:
        """See :meth:`Classifier.outputs`."""
        import torch

        fixed = next(iter(self._inputs.values())).shape[0]
        size = fixed if isinstance(fixed, int) else len(rows)
        found = []
        for start in range(0, len(rows), size):
            batch = list(rows[start : start + size])
            filled = batch + [batch[-1]] * (size - len(batch))  # a graph of a fixed size wants so many
            feed = self._fed(filled, max_length)
            if not self._placed:
                placement(self._file, self._provider, feed)
                self._placed = True
            found.append(torch.from_numpy(self._session.run(None, feed)[0])[: len(batch)])
        outputs = torch.cat(found)
        if outputs.dim() == 2 and outputs.shape[1] > 1:
            return outputs.float()
        if outputs.numel() == len(rows) and not outputs.is_floating_point():
            return outputs.reshape(-1)
        raise ModelError(
            f"the graph's first output has the shape {tuple(outputs.shape)}, and not a number for each class",
            remedy="put the classes' numbers first among the outputs",
        )

    def _fed(self, rows: Sequence[Sequence[Any]], max_length: int | None) -> dict[str, Any]:
        import numpy as np

        if self._tokenizer is not None:
            tokens = _encoded(self._tokenizer, rows, max_length, None)
            found = {name: tokens[name].numpy() for name in self._inputs if name in tokens}
            absent = [name for name in self._inputs if name not in found]
            if absent:
                raise ModelError(f"the graph takes {', '.join(absent)}, which the tokenizer does not give")
            return {name: each.astype(self._kind(name)) for name, each in found.items()}
        name = next(iter(self._inputs))
        try:
            return {name: np.asarray([[float(value) for value in row] for row in rows]).astype(self._kind(name))}
        except (TypeError, ValueError):
            raise ConfigError(
                f"the graph takes numbers as {name}, and the input columns hold others",
                remedy="name columns of numbers as input_cols, or put a tokenizer beside a graph that takes input_ids",
            ) from None

    def _kind(self, name: str) -> str:
        kind = self._inputs[name].type
        if kind not in TYPES:
            raise ModelError(f"the input {name} is a {kind}, which rows do not give")
        return TYPES[kind]


def _tokenizer(source: Path, trust_remote_code: bool) -> Any:
    from transformers import AutoTokenizer

    from olivine.models.hub import locate

    folder = source if source.is_dir() else locate(str(source)).path
    if folder is None:
        raise UnavailableError(
            f"the tokenizer of {source} is not on this machine", remedy=f"download it: hf download {source}"
        )
    try:
        return AutoTokenizer.from_pretrained(folder, trust_remote_code=trust_remote_code, local_files_only=True)
    except (OSError, ValueError) as error:
        raise ModelError(
            f"there is no tokenizer in {folder}",
            why=" ".join(str(error).split())[:200],
            remedy="put the tokenizer's files beside the model, or name a model that has it as model_name",
        ) from None


def _encoded(tokenizer: Any, rows: Sequence[Sequence[Any]], max_length: int | None, config: Any) -> Any:
    """Return the tokens of a batch, padded to its longest text."""
    positions = getattr(config, "max_position_embeddings", None)
    longest = max_length or min(
        each for each in (positions, tokenizer.model_max_length, 1 << 20) if isinstance(each, int)
    )  # fmt: skip
    columns = [[str(row[place]) for row in rows] for place in range(len(rows[0]))]
    if len(columns) > 2:
        raise ConfigError("a text has two parts at most", remedy="name one or two columns as input_cols")
    return tokenizer(*columns, padding=len(rows) > 1, truncation=True, max_length=longest, return_tensors="pt")


def _labels(folder: Path) -> dict[str, int]:
    """Return the numbers of the classes by name, from ``config.json``."""
    file = folder / "config.json"
    if not file.is_file():
        return {}
    found = json.loads(file.read_text(encoding="utf-8")).get("label2id") or {}
    return {str(name): int(number) for name, number in found.items()}
