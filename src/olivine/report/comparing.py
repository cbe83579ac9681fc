"""Runs beside each other: what was measured, what it took, and where their configurations differ."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from typing import Any

from olivine.engine.words import duration, memory, size
from olivine.report.charts import axis_label, curves, points
from olivine.report.markup import chart, details, plain, section, table, text
from olivine.report.page import contents, document
from olivine.report.sections import shown

Record = Mapping[str, Any]


def names_of(records: Sequence[Record]) -> list[str]:
    """Return a short name for each run that tells it from the others."""
    found = [
        record["workflow_id"]
        if record["workflow_id"] != "default_workflow"
        else record["output_dir"].rpartition("/")[2]
        for record in records
    ]
    if len(set(found)) < len(found):
        found = [record["output_dir"].rpartition("/")[2] or record["output_dir"] for record in records]
    if len(set(found)) < len(found):
        found = [f"{name} {number}" for number, name in enumerate(found, 1)]
    return found


def rows_of(records: Sequence[Record]) -> list[tuple[str, list[str]]]:
    """Return the rows of the comparison: what, and for each run its value in words."""
    values = described(records)
    rows: list[tuple[str, list[str]]] = [
        ("state", [record["state"] for record in records]),
        ("format", [record["format"] for record in records]),
        ("size", [size(record["size_bytes"]) if record["size_bytes"] else "" for record in records]),
    ]
    finals = [_final(record) for record in records]
    for key, facts in values.items():
        cells = [shown(final[key], facts["unit"]) if key in final else "" for final in finals]
        if any(cells):
            rows.append((axis_label(key, values), cells))
    for name in dict.fromkeys(step["name"] for record in records for step in record["steps"]):
        cells = []
        for record in records:
            step = next((step for step in record["steps"] if step["name"] == name), None)
            peak = memory(step["peak_memory_bytes"] or 0) if step is not None else ""
            made = step is not None and step["seconds"] is not None
            cells.append(
                ", ".join(filter(None, [duration(step["seconds"]), peak])) if step is not None and made else ""
            )
        rows.append((name, cells))
    return rows


def described(records: Sequence[Record]) -> dict[str, Any]:
    """Return what is known of each value that any run measured."""
    return {key: facts for record in records for key, facts in record["values"].items()}


def _final(record: Record) -> dict[str, float]:
    """Return the values of a run's result: of the final model, or of the only one that was measured."""
    models = record["models"]
    chosen = next((model for model in models if model["role"] == "final"), models[-1] if models else None)
    return dict(chosen["values"]) if chosen is not None else {}


def difference(first: Record, second: Record, names: Sequence[str]) -> list[str]:
    """Return the lines in which two configurations differ, as a unified diff without context beyond a line."""
    before, after = first["workflow"].splitlines(), second["workflow"].splitlines()
    return list(difflib.unified_diff(before, after, names[0], names[1], lineterm="", n=1))


def comparison_page(records: Sequence[Record]) -> str:
    """Return the page that shows runs beside each other."""
    names, values = names_of(records), described(records)
    charts: dict[str, Any] = {}
    rows = [[text(name), *(text(cell) for cell in cells)] for name, cells in rows_of(records)]
    body = section(
        "beside",
        "Beside each other",
        table(["", *(text(name) for name in names)], rows, label="Runs beside each other"),
    )
    groups = [
        (name, [model | {"name": f"{name}: {model['name']}"} for model in record["models"]])
        for name, record in zip(names, records, strict=True)
    ]
    spec = points(groups, values)
    if spec is not None:
        charts["models"] = spec
        options = [(axis["key"], axis["label"]) for axis in spec["axes"]]
        choices = [("x", "across", options), ("y", "up", options)]
        body += section("models", "Models", chart("models", "Models of all runs over two values", choices))
    series = [
        (f"{name}: {step['name']}", step["history"])
        for name, record in zip(names, records, strict=True)
        for step in record["steps"]
        if step["history"]
    ]
    training = curves(series)
    if training is not None:
        charts["training"] = training
        options = [(str(place), each["label"]) for place, each in enumerate(training["choices"])]
        body += section("training", "Training", chart("training", "Training of all runs", [("y", "show", options)]))
    for name, record in list(zip(names, records, strict=True))[1:]:
        lines = difference(records[0], record, [names[0], name])
        marked = "\n".join(_marked(line) for line in lines) or "The configurations are the same."
        body += details(f"Configuration: {text(names[0])} and {text(name)}", f'<pre tabindex="0">{marked}</pre>')
    head = f'<header><p class="kicker">Olivine</p><h1 dir="auto">{plain(" · ".join(names))}</h1></header>'
    return document("Comparison: " + ", ".join(names), head + contents(body) + body, charts, list(records))


def _marked(line: str) -> str:
    if line.startswith("+"):
        return f"<ins>{plain(line)}</ins>"
    return f"<del>{plain(line)}</del>" if line.startswith("-") else plain(line)
