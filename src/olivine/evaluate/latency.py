"""Latency and throughput of one run of an ONNX graph, on made-up inputs."""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping
from typing import Any, ClassVar

from pydantic import Field

from olivine.config.schema import DataConfig
from olivine.errors import ConfigError, Location, Problem
from olivine.evaluate.base import Metric, MetricContext
from olivine.evaluate.known import FUNCTIONS, UserConfig
from olivine.evaluate.speed import percentile, spread
from olivine.models.sessions import known_dimensions, made_up_inputs, onnx_file, open_session, placement
from olivine.passes.base import Format, Params, Requirement

PERCENTILES = {"p50": 50.0, "p75": 75.0, "p90": 90.0, "p95": 95.0, "p99": 99.0, "p999": 99.9}
TIMES = ("avg", "max", "min", *PERCENTILES)
SETTINGS = {"warmup_num": "warmup", "repeat_test_num": "repeats", "sleep_num": "sleep_s"}
"""Settings of a value in Olive, and the parameter that each is here."""
_RUNTIME = "onnxruntime|onnxruntime-gpu|onnxruntime-directml|onnxruntime-genai|onnxruntime-genai-cuda"


class LatencyParams(Params):
    """Parameters of :class:`Latency` and :class:`Throughput`."""

    warmup: int = Field(default=10, ge=0)
    """Runs that are not counted."""
    repeats: int = Field(default=20, ge=1)
    """Runs that are counted."""
    sleep_s: float = Field(default=0, ge=0)
    """Rest between two runs, in seconds, for machines that slow down when they get hot."""
    dimensions: dict[str, int] = Field(default_factory=dict)
    """Sizes of the graph's symbolic dimensions, e.g. ``{batch_size: 1, sequence_length: 128}``. Others are 1, and past
    ones 0."""
    batch_size: int | None = Field(default=None, ge=1)
    """Size of the dimension ``batch_size``, and what throughput counts."""
    onnx_file: str | None = None
    """The graph, if the folder has several."""
    data_config: str | None = None
    """Kept: inputs are made up."""
    user_config: UserConfig | None = None
    """Settings of Olive: ``batch_size`` and ``input_shapes`` are heeded; functions are not run."""
    sample_log_num: int | None = None
    """Kept."""
    sample_log_dir: str | None = None
    """Kept."""


class Latency(Metric[LatencyParams]):
    """Milliseconds of one run of the graph in an ONNX Runtime session on the target's execution provider.

    Inputs are made up once: floats uniform in [0, 1), integers 1. Values: ``avg``, ``max``, ``min``, ``p50`` ...
    ``p999``; ``spread``, (slowest - fastest) / median; ``nodes``: how many nodes ran on each execution provider. That
    another provider than the CPU was asked for and no node ran on it is an error.
    """

    type: ClassVar[str] = "latency"
    summary: ClassVar[str] = "milliseconds of one run of an ONNX graph"
    measures: ClassVar[frozenset[Format]] = frozenset({Format.ONNX, Format.GENAI})
    params_type = LatencyParams
    units = {**dict.fromkeys(TIMES, "ms"), "spread": ""}  # noqa: RUF012 (declared ClassVar by Metric)
    higher_is_better = {**dict.fromkeys(TIMES, False), "spread": False}  # noqa: RUF012
    hardware_dependent: ClassVar[bool] = True
    cost: ClassVar[int] = 2
    requires: ClassVar[dict[Format, tuple[Requirement, ...]]] = dict.fromkeys(
        measures, (Requirement("onnxruntime|onnxruntime-gpu|onnxruntime-directml", "cpu"), Requirement("numpy", "cpu"))
    )
    shaped_by: ClassVar[tuple[str, ...]] = (_RUNTIME,)

    @classmethod
    def settle(cls, params: LatencyParams, settings: Mapping[str, Mapping[str, Any]]) -> LatencyParams:
        """See :meth:`Metric.settle`; Olive takes the settings of the first value for all of them, and so does this."""
        found: dict[str, Any] = {}
        for name, config in settings.items():
            for key, value in config.items():
                if key not in SETTINGS:
                    raise ConfigError(
                        f"{key} is no setting of {name}",
                        where=Location(path="sub_types"),
                        remedy=f"it has {', '.join(SETTINGS)}",
                    )
                found.setdefault(SETTINGS[key], value)
        return cls.params_type.model_validate(params.model_dump(exclude_unset=True) | found)

    @classmethod
    def check(cls, params: LatencyParams, data: Mapping[str, DataConfig]) -> list[Problem]:
        """See :meth:`Metric.check`: functions of the user's would have to run."""
        user = params.user_config
        named = [key for key in FUNCTIONS if user is not None and getattr(user, key) is not None]
        return [
            Problem(
                f"{cls.type} is measured on made-up inputs, and {key} is not run",
                Location(path=f"user_config.{key}"),
                remedy="remove it, and give the sizes of the inputs as `dimensions`",
            )
            for key in named
        ]

    @classmethod
    def noise(cls, value: str, values: Mapping[str, Any]) -> float:
        """Half of what lies between the slowest and the fastest run, at least a twentieth, at most a third."""
        return abs(float(values[value])) * min(max(0.05, float(values.get("spread", 0.0)) / 2), 1 / 3)

    def measure(self, params: LatencyParams, context: MetricContext) -> dict[str, Any]:
        """See :meth:`Metric.measure`."""
        seconds, nodes = run_times(params, context)
        return {**times([each * 1000 for each in seconds]), "spread": spread(seconds), "nodes": nodes}


class Throughput(Latency):
    """Rows per second: the batch size over the time of one run. Olive's values: ``max`` is the fastest run's.

    See :class:`Latency` for how it is measured. It is not tokens per second; ``speed`` measures those.
    """

    type: ClassVar[str] = "throughput"
    summary: ClassVar[str] = "rows per second of an ONNX graph"
    units = {**dict.fromkeys(TIMES, "rows/s"), "spread": ""}  # noqa: RUF012 (declared ClassVar by Metric)
    higher_is_better = {**dict.fromkeys(TIMES, True), "spread": False}  # noqa: RUF012

    def measure(self, params: LatencyParams, context: MetricContext) -> dict[str, Any]:
        """See :meth:`Metric.measure`."""
        seconds, nodes = run_times(params, context)
        rows = _dimensions(params).get("batch_size", 1)
        return {**times([rows / each for each in seconds]), "spread": spread(seconds), "nodes": nodes}


def times(values: list[float]) -> dict[str, float]:
    """Return mean, extremes and percentiles."""
    return {
        "avg": statistics.fmean(values),
        "max": max(values),
        "min": min(values),
        **{name: percentile(values, percent) for name, percent in PERCENTILES.items()},
    }


def _dimensions(params: LatencyParams) -> dict[str, int]:
    batch = params.batch_size or (params.user_config.batch_size if params.user_config is not None else None)
    return dict(params.dimensions) | ({"batch_size": batch} if batch else {})


def run_times(params: LatencyParams, context: MetricContext) -> tuple[list[float], dict[str, int]]:
    """Return the seconds of each counted run, and how many nodes ran on each execution provider."""
    file = onnx_file(context.model, params.onnx_file)
    provider = context.target.execution_provider
    session = open_session(file, provider)
    inputs = made_up_inputs(session, known_dimensions(context.model) | _dimensions(params))
    if params.user_config is not None and params.user_config.input_names and params.user_config.input_shapes:
        inputs = _shaped(inputs, params.user_config.input_names, params.user_config.input_shapes)
    nodes = placement(file, provider, inputs)
    seconds = []
    total = params.warmup + params.repeats
    for run in range(total):
        started = time.perf_counter()
        session.run(None, inputs)
        if run >= params.warmup:
            seconds.append(time.perf_counter() - started)
        if params.sleep_s:
            time.sleep(params.sleep_s)
        context.progress(run + 1, total, unit="runs", message="latency")
    return seconds, nodes


def _shaped(inputs: Mapping[str, Any], names: list[Any], shapes: list[Any]) -> dict[str, Any]:
    """Return the inputs in the shapes that the configuration gives."""
    import numpy as np

    found = dict(inputs)
    for name, shape in zip(names, shapes, strict=True):
        if name not in found:
            raise ConfigError(f"the graph has no input {name}", remedy=f"it has {', '.join(inputs)}")
        kind = found[name].dtype
        filled = np.random.default_rng(0).random(shape) if kind.kind == "f" else np.ones(shape)
        found[name] = filled.astype(kind)
    return found
