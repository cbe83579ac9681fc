"""The candidates of a search, as points and rows of the page."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

STATES = {"complete": "", "stopped": "stopped", "failed": "failed"}


def candidates_of(record: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the trials of the run's search: name, what was chosen, how it went, and values by key."""
    search = record.get("search") or {}
    front, pick = set(search.get("pareto_front", ())), search.get("pick")
    return [
        {
            "name": f"trial {trial['number']}",
            "note": _note(trial, front, pick),
            "values": _values(trial["metrics"]),
        }
        for trial in search.get("trials", ())
    ]


def _note(trial: Mapping[str, Any], front: set[int], pick: int | None) -> str:
    parts = [f"{key} {value}" for key, value in trial["point"].items()]
    if trial["number"] == pick:
        parts.append("the pick")
    if trial["number"] in front:
        parts.append("on the Pareto front")
    if trial["state"] != "complete":
        parts.append(f"{STATES.get(trial['state'], trial['state'])}: {trial['reason']}")
    elif trial.get("until"):
        parts.append(f"up to {trial['until']}")
    elif not trial["qualifies"]:
        parts.append("misses a goal")
    return ", ".join(parts)


def _values(metrics: Mapping[str, Any]) -> dict[str, float]:
    """Return the numbers by the keys that values have in a record (:attr:`olivine.engine.values.Value.key`)."""
    return {
        metric if metric == name else f"{metric}.{name}": value
        for metric, values in metrics.items()
        if isinstance(values, Mapping)
        for name, value in values.items()
        if isinstance(value, int | float) and not isinstance(value, bool)
    }
