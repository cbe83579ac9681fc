"""Goals of a verb without a configuration, as goals of its evaluator."""

from __future__ import annotations

import re
from typing import Any

from olivine.errors import ConfigError

UNITS = {"": 1, "b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12, "kib": 2**10, "mib": 2**20, "gib": 2**30}


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
        size["goal"] = {"type": "threshold", "value": size_of(max_size)}
    found["size"]["sub_types"] = [size]
    return True


def size_of(text: int | str) -> int:
    """Return bytes: ``2GB`` is 2e9, ``2GiB`` is 2 * 2**30.

    Raises:
        ConfigError: it is no size.
    """
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([a-zA-Z]*)\s*", str(text))
    if found is None or found[2].lower() not in UNITS:
        raise ConfigError(f"{text!r} is no size", remedy="write it like 2GB, 800MB or 1.5GiB")
    return int(float(found[1]) * UNITS[found[2].lower()])
