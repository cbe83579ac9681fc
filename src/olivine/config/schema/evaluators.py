"""``evaluators``: what is measured, and what it has to reach."""

# Annotations are not postponed: pydantic would compile each once more, at every start.

from typing import Any, Literal, Self

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from olivine.config.schema.node import Node, gather

GoalType = Literal[
    "threshold", "min-improvement", "max-degradation", "percent-min-improvement", "percent-max-degradation"
]


class Goal(Node):
    """What a value has to reach."""

    type: GoalType
    """``threshold``: the value itself. The others compare with the input model: by how much the value is better at
    least, or worse at most, as a difference or in per cent."""
    value: float
    """The bound. Differences and per cents are not negative."""
    against: str | None = None
    """The model to compare with: the name of a pass, whose result is measured too; default: the input model."""

    @model_validator(mode="after")
    def _is_a_distance(self) -> Self:
        if self.type != "threshold" and self.value < 0:
            raise PydanticCustomError("value_error", "", {"error": f"a {self.type} is not negative"})
        return self


class SubType(Node):
    """One value of a metric, and what it counts for in a search."""

    name: str
    """The value, e.g. ``perplexity``, ``size_bytes``, ``avg``."""
    metric_config: dict[str, Any] | None = None
    """Settings of this value, as the library that computes it takes them."""
    priority: int | None = Field(default=None, ge=1)
    """Rank in comparing models, 1 first; without one it is measured only."""
    higher_is_better: bool | None = None
    """Direction, if the metric does not know it."""
    goal: Goal | None = None
    """What it has to reach."""


class MetricConfig(Node):
    """One metric: its type, and its parameters beside it. In memory the parameters are gathered in ``params``."""

    type: str
    """The metric, e.g. ``accuracy``, ``perplexity``, ``speed``, ``size``."""
    name: str | None = None
    """How the result is called; default: the type."""
    sub_types: list[SubType] | None = None
    """Values that guide a search, and their goals; default: none does."""
    params: dict[str, Any] = {}
    """Filled from the keys beside ``type``."""

    @model_validator(mode="before")
    @classmethod
    def _gather(cls, value: Any) -> Any:
        return gather(value, {"type", "name", "sub_types"})


class Evaluator(Node):
    """A set of metrics."""

    type: str | None = None
    """An evaluator with measures of its own (``LMEvaluator``, ``MTEBEvaluator``); not available yet."""
    metrics: list[MetricConfig] = []
    """What is measured; at least one, unless there is a ``type``."""
    user_script: str | None = None
    """Python file that defines the type. It is recorded, and not run."""
    script_dir: str | None = None
    """Folder that ``user_script`` imports from. It is recorded, and not searched."""
    params: dict[str, Any] = {}
    """Parameters of the type, filled from the keys beside it."""

    @model_validator(mode="before")
    @classmethod
    def _gather(cls, value: Any) -> Any:
        if isinstance(value, dict) and value.get("type") is not None:
            return gather(value, {"type", "metrics", "user_script", "script_dir"})
        return value

    @model_validator(mode="after")
    def _measures_something(self) -> Self:
        if not self.metrics and self.type is None:
            raise PydanticCustomError("key_missing", "metrics is missing", {"key": "metrics"})
        return self
