"""Scores of classifiers that torchmetrics computes: what Olive's ``accuracy`` is, on checkpoints and ONNX graphs.

Seen with torchmetrics 1.9.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from olivine.config.schema import DataConfig
from olivine.errors import ConfigError, DataError, Location, OlivineError, Problem
from olivine.evaluate.base import Metric, MetricContext
from olivine.evaluate.classifiers import Classifier, open_classifier
from olivine.evaluate.exact_match import share_noise
from olivine.evaluate.known import FUNCTIONS, UserConfig
from olivine.passes.base import Format, Params, Requirement

if TYPE_CHECKING:
    import torch

CLASSES = {
    "accuracy_score": "Accuracy",
    "f1_score": "F1Score",
    "precision": "Precision",
    "recall": "Recall",
    "auroc": "AUROC",
}
"""The class of torchmetrics that each score is."""
ON_SHARES = frozenset({"auroc"})
"""Scores of how sure the model is, not of what it chooses."""
PREPARED = "huggingface_pre_process"
_TORCH = (Requirement("torch", "torch"), Requirement("torchmetrics", "classify", ">=1.4,<2"))
_RUNTIME = "onnxruntime|onnxruntime-gpu|onnxruntime-directml"


class TorchMetricsParams(Params):
    """Parameters of :class:`TorchMetrics`."""

    data_config: str
    """Rows with the columns of the inputs and the label."""
    input_cols: list[str] | None = None
    """Columns of the text, two for pairs; for an ONNX graph without a tokenizer: of its numbers. Default: what the data
    config's preparation (``huggingface_pre_process``) says."""
    label_col: str | None = None
    """Column with the right class, a number or a name that the model's configuration knows. Default: what the data
    config's preparation says, or ``label``."""
    max_length: int | None = Field(default=None, ge=1)
    """Longest text in tokens. Default: what the data config's preparation says, or what the model has positions for."""
    model_name: str | None = None
    """Model whose tokenizer is used, for ONNX graphs that lie without one."""
    max_rows: int | None = Field(default=None, ge=1)
    """Measure on the first rows only."""
    batch_size: int = Field(default=16, ge=1)
    """Rows that are run together."""
    scores: dict[str, dict[str, Any]] = Field(default_factory=dict)
    """Scores by name, with the arguments of their class in torchmetrics. Filled from ``sub_types`` and their
    ``metric_config``."""
    user_config: UserConfig | None = None
    """Settings of Olive: ``batch_size`` is heeded; functions are not run."""
    sample_log_num: int | None = None
    """Kept."""
    sample_log_dir: str | None = None
    """Kept."""


class TorchMetrics(Metric[TorchMetricsParams]):
    """Scores of a classifier of texts (a checkpoint for sequence classification) or of an ONNX graph.

    Values are the scores that ``sub_types`` name: ``accuracy_score``, ``f1_score``, ``precision``, ``recall``,
    ``auroc``; ``metric_config`` has the arguments of the class in torchmetrics. Without a ``task`` it is ``binary`` for
    two classes, as Olive has it, and ``multiclass`` for more. Beside them ``count``, the rows.

    The model's choice is the largest of its outputs; ``auroc`` goes by their softmax. An ONNX graph gets the tokens of
    its tokenizer, or, if it takes one matrix, the numbers in ``input_cols``; its first output counts.
    """

    type: ClassVar[str] = "torch_metrics"
    summary: ClassVar[str] = "scores of classifiers that torchmetrics computes (Olive's accuracy)"
    measures: ClassVar[frozenset[Format]] = frozenset({Format.HF, Format.ONNX})
    params_type = TorchMetricsParams
    units = {**dict.fromkeys(CLASSES, ""), "count": ""}  # noqa: RUF012 (declared ClassVar by Metric)
    higher_is_better = {**dict.fromkeys(CLASSES, True), "count": True}  # noqa: RUF012
    requires: ClassVar[dict[Format, tuple[Requirement, ...]]] = {
        Format.HF: (*_TORCH, Requirement("transformers", "torch", ">=5,<6")),
        Format.ONNX: (*_TORCH, Requirement(_RUNTIME, "cpu")),
    }
    shaped_by: ClassVar[tuple[str, ...]] = ("torch", "torchmetrics", "transformers", _RUNTIME)

    @classmethod
    def settle(cls, params: TorchMetricsParams, settings: Mapping[str, Mapping[str, Any]]) -> TorchMetricsParams:
        """See :meth:`Metric.settle`."""
        scores = {**params.scores, **{name: dict(config) for name, config in settings.items()}}
        for name in scores:
            if name not in CLASSES:
                raise ConfigError(
                    f"a classifier has no {name}",
                    where=Location(path="sub_types"),
                    remedy="add a metric of the type perplexity" if name == "perplexity"
                    else f"choose among {', '.join(CLASSES)}",
                )  # fmt: skip
        return params.model_copy(update={"scores": scores or {"accuracy_score": {}}})

    @classmethod
    def check(cls, params: TorchMetricsParams, data: Mapping[str, DataConfig]) -> list[Problem]:
        """See :meth:`Metric.check`: functions of the user's, the columns, nulls among the rows."""
        from olivine.data.rows import find_problems

        user = params.user_config
        problems = [
            Problem(
                f"{key} would have to run",
                Location(path=f"user_config.{key}"),
                "rows are read from data_config, and prepared without code of yours",
                "remove it, or measure with a custom metric: evaluate_func and --allow-script",
            )
            for key in FUNCTIONS
            if user is not None and getattr(user, key) is not None
        ]
        try:
            inputs, label = columns_of(params, data["data_config"])
            return problems + find_problems(data["data_config"], columns=(*inputs, label))
        except OlivineError as error:
            return problems + list(error.problems)

    @classmethod
    def noise(cls, value: str, values: Mapping[str, Any]) -> float:
        """One standard error of a share."""
        return share_noise(values[value], values["count"]) if value == "accuracy_score" else 0.0

    def measure(self, params: TorchMetricsParams, context: MetricContext) -> dict[str, Any]:
        """See :meth:`Metric.measure`."""
        import torch

        from olivine.data.rows import read_rows

        config = context.data["data_config"]
        inputs, label = columns_of(params, config)
        rows = read_rows(config, columns=(*inputs, label)).rows[: params.max_rows]
        user = params.user_config
        batch_size = user.batch_size if user is not None and user.batch_size else params.batch_size
        model = open_classifier(context, tokenizer=params.model_name or _prepared(config).get("model_name"))
        length = params.max_length or _prepared(config).get("max_length")
        outputs: list[torch.Tensor] = []
        for start in range(0, len(rows), batch_size):
            batch = [[row.values[column] for column in inputs] for row in rows[start : start + batch_size]]
            outputs.append(model.outputs(batch, length))
            context.progress(min(start + batch_size, len(rows)), len(rows), unit="rows", message="classifying")
        found = torch.cat(outputs)
        truths = torch.tensor([_class_of(row.values[label], model, row.where) for row in rows])
        return {**scores_of(found, truths, params.scores or {"accuracy_score": {}}), "count": len(rows)}


def columns_of(params: TorchMetricsParams, config: DataConfig) -> tuple[list[str], str]:
    """Return the columns of the inputs and of the label.

    Raises:
        ConfigError: nothing says which columns are the inputs.
    """
    prepared = _prepared(config)
    label = params.label_col or prepared.get("label_col") or (prepared.get("label_cols") or ["label"])[0]
    inputs = params.input_cols or prepared.get("input_cols")
    if not inputs:
        raise ConfigError(
            f"nothing says which columns of {config.name} the model gets",
            where=Location(path="input_cols"),
            remedy="add input_cols, e.g. input_cols: [sentence]",
        )
    return [str(each) for each in inputs], str(label)


def _prepared(config: DataConfig) -> Mapping[str, Any]:
    component = config.pre_process_data
    return component.params if component is not None and component.type == PREPARED else {}


def scores_of(outputs: torch.Tensor, truths: torch.Tensor, scores: Mapping[str, Mapping[str, Any]]) -> dict[str, float]:
    """Return each score.

    Args:
        outputs: (rows, classes), a number for each class; or (rows,), the classes that a graph has chosen itself.
        truths: (rows,), the right classes.
        scores: arguments of the class in torchmetrics, by score.

    Raises:
        ConfigError: torchmetrics does not take these arguments.
    """
    import torchmetrics

    classes = outputs.shape[1] if outputs.dim() == 2 else int(max(outputs.max(), truths.max())) + 1
    chosen = outputs.argmax(-1) if outputs.dim() == 2 else outputs
    found = {}
    for name, settings in scores.items():
        arguments = dict(settings)
        arguments.setdefault("task", "binary" if classes <= 2 else "multiclass")
        if arguments["task"] == "multiclass":
            arguments.setdefault("num_classes", classes)
        given = chosen
        if name in ON_SHARES:
            if outputs.dim() != 2:
                raise ConfigError(f"{name} needs a number for each class, and the graph gives the class alone")
            shares = outputs.softmax(-1)
            given = shares[:, 1] if arguments["task"] == "binary" else shares
        try:
            found[name] = float(getattr(torchmetrics, CLASSES[name])(**arguments)(given, truths))
        except (TypeError, ValueError, RuntimeError) as error:
            raise ConfigError(
                f"torchmetrics does not compute {name} with {arguments}",
                where=Location(path="sub_types"),
                why=" ".join(str(error).split())[:300],
                remedy="correct its metric_config",
            ) from None
    return found


def _class_of(value: Any, model: Classifier, where: Location) -> int:
    """Return the number of a class."""
    if isinstance(value, str) and value in model.labels:
        return model.labels[value]
    try:
        return int(value)
    except (TypeError, ValueError):
        known = (
            f"its classes are {', '.join(sorted(model.labels, key=model.labels.__getitem__))}"
            if model.labels
            else "it has no names of classes"
        )
        raise DataError(
            f"{value!r} is no class of the model", where=where, why=known, remedy="give the number of the class"
        ) from None
