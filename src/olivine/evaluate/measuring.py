"""Measure one model with several metrics, in the process that was started for it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from olivine.config.schema import DataConfig
from olivine.errors import OlivineError
from olivine.evaluate import registry
from olivine.evaluate.base import Metric, MetricContext
from olivine.passes.base import Accelerator, Format, Progress


def measure_all(
    metrics: Sequence[Mapping[str, Any]],
    *,
    model: Path,
    format: Format,
    data: Mapping[str, DataConfig],
    target: Accelerator,
    progress: Progress,
    trust_remote_code: bool = False,
    recordings: Mapping[str, Path] | None = None,
) -> dict[str, Any]:
    """Measure ``model`` with each of ``metrics`` and return their values by the metric's name.

    Args:
        metrics: each ``{"index", "name", "type", "params"}``; params that name data configs are left out.
        data: the data configs by ``"{index}.{parameter}"``.
        recordings: what metrics that compare have kept of the unquantised model, by the metric's index.

    Raises:
        OlivineError: a metric is not installed, cannot measure this format, or says what is wrong with its input.
    """
    found: dict[str, Any] = {}
    for each in metrics:
        metric_type, params, own = _prepared(each, format, data)
        recording = (recordings or {}).get(str(each["index"]))
        context = MetricContext(model, format, own, target, progress, trust_remote_code, recording)
        found[_unused(each["name"], found)] = metric_type().measure(params, context)
    return found


def record(
    metric: Mapping[str, Any],
    *,
    model: Path,
    format: Format,
    data: Mapping[str, DataConfig],
    target: Accelerator,
    progress: Progress,
    output: Path,
    trust_remote_code: bool = False,
) -> dict[str, Any]:
    """Keep in ``output`` what ``metric`` compares other models with; see :meth:`Metric.record`."""
    metric_type, params, own = _prepared(metric, format, data)
    context = MetricContext(model, format, own, target, progress, trust_remote_code)
    return metric_type().record(params, context, output)


def _prepared(
    each: Mapping[str, Any], format: Format, data: Mapping[str, DataConfig]
) -> tuple[type[Metric[Any]], Any, dict[str, DataConfig]]:
    """Return a metric's class, its parameters, and the data configs that they name."""
    metric_type = registry.find(each["type"])
    if metric_type is None:
        raise OlivineError(
            f"the metric {each['type']!r} is not installed where the model is measured",
            remedy="install the package that brings it there too",
        )
    if format not in metric_type.measures:
        raise OlivineError(
            f"{each['type']} cannot measure a model of format {format}",
            remedy=f"it measures {', '.join(sorted(metric_type.measures))}",
        )
    own = {key.partition(".")[2]: config for key, config in data.items() if key.partition(".")[0] == str(each["index"])}
    params = metric_type.params_type.model_validate(
        dict(each["params"]) | {key: config.name for key, config in own.items()}
    )
    return metric_type, params, own


def _unused(name: str, taken: Mapping[str, Any]) -> str:
    """Return ``name``, numbered if two metrics were given the same."""
    number, free = 2, name
    while free in taken:
        free, number = f"{name}-{number}", number + 1
    return free
