"""Which of several models are best: the Pareto front, and the pick among them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from olivine.config.schema import Evaluator
from olivine.evaluate import registry
from olivine.evaluate.goals import ranked

T = TypeVar("T")


@dataclass(frozen=True)
class Objective:
    """A value that guides a search.

    Attributes:
        metric: the metric's name in the results.
        value: the value's name in the metric.
        higher_is_better: direction.
        priority: rank in choosing, 1 first.
    """

    metric: str
    value: str
    higher_is_better: bool
    priority: int

    @property
    def name(self) -> str:
        """The value as it is called in tables."""
        return self.metric if self.value == self.metric else f"{self.metric}.{self.value}"

    def as_json(self) -> dict[str, Any]:
        """Return it as a JSON object."""
        return {"name": self.name, "higher_is_better": self.higher_is_better, "priority": self.priority}


def objectives_of(evaluator: Evaluator) -> list[Objective]:
    """Return the values with a priority, best rank first; if none has one, the main value of every metric, in order.

    A metric without a direction guides nothing.
    """
    found = [
        Objective(name, value.name, better, value.priority)
        for name, _, value, better, _ in ranked(evaluator)
        if value.priority is not None and better is not None
    ]
    if found:
        return sorted(found, key=lambda each: each.priority)
    for metric in evaluator.metrics:
        metric_type = registry.find(metric.type)
        value = metric_type.main_value(metric.params) if metric_type is not None else None
        if metric_type is not None and value is not None:
            better = metric_type.higher_is_better[value]
            found.append(Objective(metric.name or metric.type, value, better, len(found) + 1))
    return found


def dominates(one: Sequence[float], other: Sequence[float], objectives: Sequence[Objective]) -> bool:
    """Return whether ``one`` is as good in every value and better in one."""
    signed = [
        (a - b) if objective.higher_is_better else (b - a)
        for a, b, objective in zip(one, other, objectives, strict=True)
    ]
    return all(each >= 0 for each in signed) and any(each > 0 for each in signed)


def front(candidates: Mapping[T, Sequence[float]], objectives: Sequence[Objective]) -> list[T]:
    """Return the candidates that no other dominates, best by priority first."""
    found = [
        key
        for key, values in candidates.items()
        if not any(dominates(other, values, objectives) for other in candidates.values())
    ]
    return sorted(found, key=lambda key: rank(candidates[key], objectives))


def rank(values: Sequence[float], objectives: Sequence[Objective]) -> tuple[float, ...]:
    """Return a key that sorts the best first: by the first objective, then by the next where they are equal."""
    return tuple(
        -value if objective.higher_is_better else value for value, objective in zip(values, objectives, strict=True)
    )
