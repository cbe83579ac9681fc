"""Goals of a verb without a configuration, as goals of its evaluator."""

from __future__ import annotations

from typing import Any

from olivine.config.sizes import parse_size
from olivine.errors import ConfigError


def set_goals(
    workflow: dict[str, Any], max_size: int | str | None, min_accuracy: float | None, max_accuracy_drop: float | None
) -> bool:
    """Put goals on the metrics of the workflow's evaluator, and return whether there are any.

    Raises:
        ConfigError: what a goal is about is not measured, or is no number.
    """
    accuracy: list[dict[str, Any]] = []
    if min_accuracy is not None:
        accuracy.append({"type": "threshold", "value": min_accuracy})
    if max_accuracy_drop is not None:
        accuracy.append({"type": "max-degradation", "value": max_accuracy_drop})
    if len(accuracy) > 1:
        raise ConfigError("accuracy has two goals", remedy="give the least accuracy, or the largest drop")
    if max_size is None and not accuracy:
        return False
    metrics = workflow.get("evaluators", {}).get("measure", {}).get("metrics", [])
    found = {metric["type"]: metric for metric in metrics}
    for goal in accuracy:
        if "accuracy" not in found:
            raise ConfigError("accuracy is not measured", remedy="give data and the label column")
        found["accuracy"]["sub_types"] = [{"name": "accuracy", "priority": 2, "goal": goal}]
    if "size" not in found:
        raise ConfigError("a goal needs measuring", remedy="leave --no-measure out")
    size: dict[str, Any] = {"name": "size_bytes", "priority": 1}
    if max_size is not None:
        try:
            size["goal"] = {"type": "threshold", "value": parse_size(str(max_size))}
        except ValueError as error:
            raise ConfigError(f"max size (--max-size): {error}") from None
    found["size"]["sub_types"] = [size]
    return True
