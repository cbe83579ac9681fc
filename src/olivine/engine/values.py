"""What was measured on a model, value by value: with unit, direction, and the data it was measured on."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from olivine.config.schema import DataConfig
    from olivine.planning.plan import PlannedStep


@dataclass(frozen=True)
class Value:
    """One number of one metric.

    Attributes:
        metric: the metric's name in the evaluator.
        type: the metric's type.
        name: the value's name within the metric (``macro_f1``).
        value: finite.
        unit: ``tokens/s``, ``ms`` ...; empty for a ratio or a count.
        higher_is_better: direction; ``None`` if the metric does not say.
        main: whether it is the metric's main value.
        data: the data config it was measured on, if any.
    """

    metric: str
    type: str
    name: str
    value: float
    unit: str
    higher_is_better: bool | None
    main: bool
    data: DataConfig | None = None

    @property
    def key(self) -> str:
        """The name in tables: ``accuracy``, ``accuracy.macro_f1``."""
        return self.metric if self.metric == self.name else f"{self.metric}.{self.name}"


def values_of(evaluation: PlannedStep, measured: Mapping[str, Any]) -> Iterator[Value]:
    """Yield the values of one evaluation in the order of its metrics; tables and what is not finite are left out.

    Args:
        evaluation: the planned Step.
        measured: what it reported, by metric.
    """
    from olivine.evaluate import registry

    taken: set[str] = set()
    for each in evaluation.step.params["metrics"]:
        # Two metrics of one name are numbered as they are measured.
        name, number = each["name"], 2
        while name in taken:
            name, number = f"{each['name']}-{number}", number + 1
        taken.add(name)
        values = measured.get(name)
        if not isinstance(values, Mapping):
            continue
        metric_type = registry.find(each["type"])
        units = metric_type.units if metric_type is not None else {}
        better = metric_type.higher_is_better if metric_type is not None else {}
        data = next(
            (data for key, data in evaluation.data.items() if key.partition(".")[0] == str(each["index"])), None
        )
        for place, (key, value) in enumerate(values.items()):
            if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
                yield Value(name, each["type"], key, value, units.get(key, ""), better.get(key), place == 0, data)
