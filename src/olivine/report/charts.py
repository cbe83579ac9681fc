"""What the charts of a page show, as plain data; ``assets/page.js`` draws it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

Record = Mapping[str, Any]
OTHERS = "all others"
"""What stands for the modules that a pass stored alike."""


def curves(series: Sequence[tuple[str, Sequence[Mapping[str, Any]]]]) -> dict[str, Any] | None:
    """Return what passes reported over their steps, or ``None`` if none did.

    Args:
        series: a name and the rows of its history, each with ``step`` and values.
    """
    keys = list(dict.fromkeys(key for _, rows in series for row in rows for key in row if key not in ("step", "epoch")))
    losses = [key for key in keys if key.endswith("loss")]
    choices = [{"label": "loss", "keys": losses}] if losses else []
    choices += [{"label": key.replace("_", " "), "keys": [key]} for key in keys if key not in losses]
    if not choices:
        return None
    return {
        "kind": "curves",
        "choices": choices,
        "series": [{"name": name, "rows": list(rows)} for name, rows in series if rows],
    }


def points(
    groups: Sequence[tuple[str, Sequence[Mapping[str, Any]]]], values: Mapping[str, Any]
) -> dict[str, Any] | None:
    """Return measured models as points, or ``None`` if there are not two models with two values.

    Args:
        groups: a name and its models, each with ``name`` and ``values`` by key.
        values: what is known of each value, by key.
    """
    models = [model for _, found in groups for model in found]
    keys = [key for key in values if sum(key in model["values"] for model in models) >= 2]
    keys.sort(key=lambda key: not values[key]["main"])
    if len(models) < 2 or len(keys) < 2:
        return None
    axes = [{"key": key, "label": axis_label(key, values), "better": values[key]["higher_is_better"]} for key in keys]
    small = next((key for key in keys if key.rpartition(".")[2] == "size_bytes"), keys[1])
    return {
        "kind": "points",
        "axes": axes,
        "x": small,
        "y": next(key for key in keys if key != small),
        "groups": [{"name": name, "points": [_point(model) for model in found]} for name, found in groups],
    }


def _point(model: Mapping[str, Any]) -> dict[str, Any]:
    return {"name": model["name"], "note": model.get("note", ""), "values": model["values"]}


def axis_label(key: str, values: Mapping[str, Any]) -> str:
    """Return a value's name with its unit."""
    unit = values[key]["unit"]
    return f"{key}, {unit}" if unit and unit not in key else key


def layer_bars(layers: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Return the map of layers: for each module its bits, and what else is known of it in numbers."""
    keys = list(dict.fromkeys(key for facts in layers.values() for key, value in facts.items() if _is_number(value)))
    return {
        "kind": "bars",
        "labels": list(layers),
        "choices": [
            {
                "label": key.replace("_", " "),
                "values": [facts.get(key) if _is_number(facts.get(key)) else None for facts in layers.values()],
            }
            for key in sorted(keys, key=lambda key: key != "bits")
        ],
    }


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def layer_map(attributes: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """Return the modules that a pass recorded with bits of their own: any attribute that maps names to such facts.

    Where those are exceptions from what the pass did to all others, the others come first, as one.
    """
    for name, value in attributes.items():
        if (
            isinstance(value, Mapping)
            and value
            and all(isinstance(facts, Mapping) and "bits" in facts for facts in value.values())
        ):
            others = {key: attributes[key] for key in ("bits", "group_size", "symmetric") if key in attributes}
            are_exceptions = name == "overrides" and _is_number(others.get("bits"))
            return ({OTHERS: others} if are_exceptions else {}) | dict(value)
    return {}
