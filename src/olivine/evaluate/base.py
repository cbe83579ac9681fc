"""The contract of a metric: what it declares and what the worker runs, in a fresh process on the target.

As with passes, importing a metric's file must stay cheap; heavy imports go inside :meth:`Metric.measure`.
"""

from __future__ import annotations

import builtins
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Generic

from olivine.config.schema import DataConfig
from olivine.errors import ConfigError, Location, Problem
from olivine.passes.base import Accelerator, Format, Params, ParamsT, Progress, Requirement
from olivine.passes.estimate import DataSize

__all__ = ["RECORDING", "REFERENCE", "Metric", "MetricContext", "Params", "Workload"]

RECORDING = "recording."
"""What an input's name begins with if it is the recording that a metric compares with; the metric's index follows."""


REFERENCE = "reference"
"""The parameter of such a metric that names the model to compare with."""


@dataclass(frozen=True)
class MetricContext:
    """What a metric gets.

    Attributes:
        model: folder of the model to measure.
        format: its format (``hf``, ``genai`` ...).
        data: the data configs that the parameters name, paths absolute.
        target: where it is measured.
        progress: receives how far it is.
        trust_remote_code: whether the user allowed code that comes with the model to run.
        recording: folder with what :meth:`Metric.record` kept of the unquantised model, for metrics that compare with
            it.
    """

    model: Path
    format: Format
    data: Mapping[str, DataConfig]
    target: Accelerator
    progress: Progress
    trust_remote_code: bool = False
    recording: Path | None = None


@dataclass(frozen=True)
class Workload:
    """What a metric has the model compute, for the plan's estimate.

    Attributes:
        read: tokens of prompts and texts that go in.
        passes: times that the model is run for one token each, or for one each of a batch.
        longest: tokens that it holds at a time, over all sequences of a batch.
        scored: whether the logits of every token are looked at.
        loads: whether the model is loaded at all.
    """

    read: float = 0.0
    passes: float = 0.0
    longest: float = 0.0
    scored: bool = False
    loads: bool = True


class Metric(ABC, Generic[ParamsT]):
    """One kind of measurement.

    Attributes:
        type: the name in a configuration (``accuracy``).
        summary: one line for lists.
        measures: formats it can measure.
        version: raise it when the same model would measure otherwise; part of the cache key.
        params_type: the pydantic model of the parameters.
        units: unit of each value it returns, e.g. ``{"decode": "tokens/s"}``; empty string for a ratio.
        higher_is_better: direction of each value.
        hardware_dependent: whether another machine would measure otherwise (time, memory); then the machine is part
            of the cache key.
        requires: packages per format.
        shaped_by: distributions whose version changes the result; part of the cache key.
        compares: whether it compares with the unquantised model, of which :meth:`record` keeps what it needs once. A
            parameter ``reference`` names another model; where it lies is no part of the cache key.
        cost: in a search, what is cheap is measured first: 0 files alone, 1 a few samples, 2 timings, 3 the rest.
    """

    type: ClassVar[str]
    summary: ClassVar[str]
    measures: ClassVar[frozenset[Format]]
    version: ClassVar[int] = 1
    params_type: ClassVar[builtins.type[Params]]
    units: ClassVar[Mapping[str, str]]
    higher_is_better: ClassVar[Mapping[str, bool]]
    hardware_dependent: ClassVar[bool] = False
    requires: ClassVar[Mapping[Format, tuple[Requirement, ...]]] = {}
    shaped_by: ClassVar[tuple[str, ...]] = ()
    compares: ClassVar[bool] = False
    cost: ClassVar[int] = 3

    @classmethod
    def settle(cls, params: ParamsT, settings: Mapping[str, Mapping[str, Any]]) -> ParamsT:
        """Return the parameters with what ``metric_config`` of single values says (``warmup_num`` of Olive's latency).

        Args:
            settings: ``metric_config`` by the value's name.

        Raises:
            ConfigError: this metric has no such settings.
        """
        for name, config in settings.items():
            if config:
                raise ConfigError(
                    f"{name} has no settings of its own: {', '.join(config)}", where=Location(path="sub_types")
                )
        return params

    @classmethod
    def workload(cls, params: ParamsT, sizes: Mapping[str, DataSize]) -> Workload | None:
        """Return what it has the model compute, ``None`` if nobody can tell. Called by ``plan``.

        Args:
            sizes: how much is in the data configs, by the parameter that names them, as far as that is known.
        """
        return None

    @classmethod
    def script(cls, params: ParamsT) -> str | None:
        """Return the Python file of the user's that :meth:`measure` runs, ``None`` if it runs none.

        It runs only if the user allows it for this run, and its content is part of the cache key.
        """
        return None

    @classmethod
    def noise(cls, value: str, values: Mapping[str, Any]) -> float:
        """Return by how much the value called ``value`` may be off by chance, in its own unit; 0 if that is unknown."""
        return 0.0

    @classmethod
    def main_value(cls, params: Mapping[str, Any]) -> str | None:
        """Return the value that a search goes by if the configuration names none, ``None`` if that has to be named."""
        return next(iter(cls.higher_is_better), None)

    @classmethod
    def few(cls, params: ParamsT) -> ParamsT | None:
        """Return parameters that measure the same on a few samples, ``None`` if that would not be much cheaper.

        A search measures so first what has a goal; :meth:`noise` of such a measurement says how sure it is.
        """
        return None

    @classmethod
    def check(cls, params: ParamsT, data: Mapping[str, DataConfig]) -> list[Problem]:
        """Return what is known to be wrong before anything runs. Called by ``plan``; reads data, imports nothing heavy.

        Args:
            data: the data configs by the parameter that names them, paths absolute.
        """
        return []

    @abstractmethod
    def measure(self, params: ParamsT, context: MetricContext) -> dict[str, Any]:
        """Measure and return values by name, the main one first (``{"accuracy": 0.93, "count": 160}``).

        Raises:
            OlivineError: for anything the user can mend (a missing column, an empty data set).
        """

    def record(self, params: ParamsT, context: MetricContext, output: Path) -> dict[str, Any]:
        """Keep in ``output`` what :meth:`measure` compares other models with; only called if it ``compares``.

        ``context.model`` is the unquantised model. Returns numbers worth showing.
        """
        raise NotImplementedError
