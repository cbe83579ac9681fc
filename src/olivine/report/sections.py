"""The sections of the page that shows one run."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from olivine.engine.words import duration, memory, number, size
from olivine.report.candidates import candidates_of
from olivine.report.charts import OTHERS, axis_label, curves, layer_bars, layer_map, points
from olivine.report.markup import bar, chart, code, details, plain, section, table, text

Record = Mapping[str, Any]
Charts = dict[str, Any]
STATES = {"done": "made", "cached": "from the cache", "failed": "failed", "pending": "not reached"}


def header(record: Record) -> str:
    """Return the name of the run, how it ended, and the figures that matter most."""
    name = record["workflow_id"] if record["workflow_id"] != "default_workflow" else record["model"]
    ended = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(record["ended"]))
    lines = [
        f'<p class="kicker">Olivine {plain(record["olivine"])} · <time>{ended}</time></p>',
        f'<h1 dir="auto">{plain(name)}</h1>',
        f'<p><span class="badge {plain(record["state"].replace(" ", "-"))}">{plain(record["state"])}</span> '
        f"from {text(record['model'])}</p>",
    ]
    if record["reason"]:
        where = f"at {text(record['failed'])}: " if record["failed"] else ""
        lines.append(f'<p class="reason" role="alert">{where}{text(record["reason"])}</p>')
    tiles = "".join(
        f'<div class="tile"><dt>{plain(name)}</dt><dd>{plain(value)}</dd><dd class="note">{plain(note)}</dd></div>'
        for name, value, note in _tiles(record)
    )
    return f'<header>{"".join(lines)}</header><dl class="tiles">{tiles}</dl>'


def _tiles(record: Record) -> list[tuple[str, str, str]]:
    """Return figures: name, value, and what it compares with."""
    found = []
    before, after = _values(record, "input"), _values(record, "final") or _values(record, "input")
    if record["size_bytes"]:
        was = next((value for key, value in before.items() if key.rpartition(".")[2] == "size_bytes"), None)
        share = f"{record['size_bytes'] / was:.0%} of the input model" if was else record["format"]
        found.append(("size", size(record["size_bytes"]), share))
    for key, facts in record["values"].items():
        if facts["main"] and key in after and key.rpartition(".")[2] != "size_bytes" and len(found) < 5:
            note = f"input model {number(before[key])}" if key in before and before is not after else ""
            found.append((axis_label(key, record["values"]), number(after[key]), note))
    made = [step for step in record["steps"] if step["seconds"] is not None]
    if made:
        found.append(("time", duration(sum(step["seconds"] for step in made)), "all steps, when they were made"))
        peak = max(made, key=lambda step: step["peak_memory_bytes"] or 0)
        if peak["peak_memory_bytes"]:
            found.append(("peak memory", memory(peak["peak_memory_bytes"]), f"in {peak['name']}"))
    return found


def _values(record: Record, role: str) -> dict[str, float]:
    return next((dict(model["values"]) for model in record["models"] if model["role"] == role), {})


def goals(record: Record, charts: Charts) -> str:
    """Return the goals with their verdicts; nothing if there are none."""
    found = record.get("goals") or []
    if not found:
        return ""
    rows = [[text(goal["name"]), text(goal["goal"]), _cell(goal["measured"]), _verdict(goal)] for goal in found]
    return section(
        "goals",
        "Goals",
        table(["value", "wanted", "measured", "verdict"], rows, label="Goals and verdicts", numbers=False),
    )


def _verdict(goal: Mapping[str, Any]) -> str:
    if goal["met"]:
        word = "met"
    elif goal["measured"] is None or goal["missed_by"] is None:
        word = "not measured"
    else:
        word = f"missed by {number(goal['missed_by'])}"
    near = "<small>within what chance does to it</small>" if goal["near"] else ""
    return f'<span class="badge {"succeeded" if goal["met"] else "failed"}">{plain(word)}</span>{near}'


def _cell(value: Any, unit: str = "") -> str:
    return plain(shown(value, unit)) if isinstance(value, int | float) and not isinstance(value, bool) else ""


def shown(value: float, unit: str) -> str:
    """Return a number as it is written for people: bytes in their own units."""
    return size(value) if unit == "bytes" else number(value)


def lineage(record: Record, charts: Charts) -> str:
    """Return the Steps in their order: what each made of what, its time and its memory."""
    steps = record["steps"]
    longest = max((step["seconds"] or 0 for step in steps), default=0) or 1
    largest = max((step["peak_memory_bytes"] or 0 for step in steps), default=0) or 1
    rows = []
    for step in steps:
        kind = "measures" if step["kind"] == "evaluate" else plain(step["type"])
        seconds, peak = step["seconds"], step["peak_memory_bytes"]
        made = "" if step["kind"] == "evaluate" else f" <span aria-label='becomes'>→</span> {plain(step['produces'])}"
        rows.append(
            [
                f"{text(step['name'])}<small>{kind}, {_state(step['state'])}</small>",
                f"{plain(step['consumes'])}{made}",
                bar(seconds / longest, duration(seconds)) if seconds is not None else "",
                bar(peak / largest, memory(peak)) if peak else "",
            ]
        )
    more = "".join(_step_details(step) for step in steps if step["kind"] != "evaluate")
    body = table(["step", "model", "time", "peak memory"], rows, label="Steps with time and memory", numbers=False)
    return section("lineage", "How it was made", body + more)


def _state(state: str) -> str:
    return f'<span class="state {plain(state)}">{plain(STATES.get(state, state))}</span>'


def _step_details(step: Mapping[str, Any]) -> str:
    rows = [[text(key), text(_short(value))] for key, value in step["params"].items() if value is not None]
    rows += [
        [f"data {text(name)}", text(f"{data['rows']} rows, {', '.join(data['files'])}")]
        for name, data in step["data"].items()
    ]
    body = table(["parameter", "value"], rows, label=f"Parameters of {step['name']}", numbers=False) if rows else ""
    reported = [[text(key), text(_short(value))] for key, value in {**step["metrics"], **_facts(step)}.items()]
    if reported:
        body += table(["reported", ""], reported, label=f"Reported by {step['name']}", numbers=False)
    body += "".join(f"<p>{text(note)}</p>" for note in step["notes"])
    return details(
        f"{text(step['name'])}: parameters and what it reported", f"{body}<p class='digest'>{plain(step['digest'])}</p>"
    )


def _facts(step: Mapping[str, Any]) -> dict[str, Any]:
    layers = layer_map(step["attributes"])
    recorded = {name: facts for name, facts in layers.items() if name != OTHERS}
    return {key: value for key, value in step["attributes"].items() if not layers or value != recorded}


def _short(value: Any) -> str:
    if isinstance(value, float):
        return number(value)
    if isinstance(value, list):
        return ", ".join(_short(each) for each in value)
    if isinstance(value, Mapping):
        return ", ".join(f"{key}: {_short(item)}" for key, item in value.items() if item is not None)
    return str(value)


def training(record: Record, charts: Charts) -> str:
    """Return the curves of passes that trained."""
    series = [(step["name"], step["history"]) for step in record["steps"] if step["history"]]
    spec = curves(series)
    if spec is None:
        return ""
    charts["training"] = spec
    options = [(str(place), each["label"]) for place, each in enumerate(spec["choices"])]
    rows_shown = "".join(_history(name, rows) for name, rows in series)
    label = "Training: " + ", ".join(name for name, _ in series)
    return section("training", "Training", chart("training", label, [("y", "show", options)]) + rows_shown)


def _history(name: str, rows: list[Mapping[str, Any]]) -> str:
    keys = list(dict.fromkeys(key for row in rows for key in row))
    cells = [[_cell(row.get(key)) for key in keys] for row in rows]
    return details(
        f"{text(name)} as a table",
        table([plain(key.replace("_", " ")) for key in keys], cells, label=f"Training of {name}"),
    )


def metrics(record: Record, charts: Charts) -> str:
    """Return what was measured, model by model, and the models as points over two values that one chooses."""
    models, values = record["models"], record["values"]
    candidates = candidates_of(record)
    if not models and not candidates:
        return ""
    first = models[0]["values"] if models and models[0]["role"] == "input" else {}
    rows = []
    for key in values:
        row = [text(axis_label(key, values))]
        for model in models:
            row.append(
                _measured(model["values"].get(key), first.get(key) if model["role"] != "input" else None, values[key])
            )
        rows.append(row)
    heads = ["", *(text(model["name"]) for model in models)]
    body = table(heads, rows, label="What was measured") if models else ""
    groups = [(model["name"], [model]) for model in models]
    spec = points([*groups, *([("candidates", candidates)] if candidates else [])], values)
    if spec is not None:
        charts["models"] = spec
        options = [(axis["key"], axis["label"]) for axis in spec["axes"]]
        body += chart("models", "Models over two values", [("x", "across", options), ("y", "up", options)])
    if candidates:
        said = "Why the pick: " if record["search"]["pick"] is not None else ""
        body += f"<p>{said}{text(record['search']['why'])}.</p>" + _candidates(candidates, values)
    body += "".join(_tables(model) for model in models)
    return section("metrics", "What was measured", body)


def _measured(value: float | None, before: float | None, facts: Mapping[str, Any]) -> str:
    """Return a value, and how it compares with the input model's, in words as well as in colour."""
    if value is None:
        return ""
    now = _cell(value, facts["unit"])
    if before is None or value == before or facts["higher_is_better"] is None:
        return now
    better = (value > before) == facts["higher_is_better"]
    change = f"{(value - before) / abs(before):+.1%}" if before else f"{value - before:+.4g}"
    word = "better" if better else "worse"
    return f'{now}<small class="{word}">{plain(change)} <span class="hear">{word}</span></small>'


def _candidates(candidates: Sequence[Mapping[str, Any]], values: Mapping[str, Any]) -> str:
    keys = [key for key in values if any(key in each["values"] for each in candidates)]
    rows = [
        [
            text(each["name"]),
            text(each.get("note", "")),
            *(_cell(each["values"].get(key), values[key]["unit"]) for key in keys),
        ]
        for each in candidates
    ]
    heads = ["candidate", "", *(text(axis_label(key, values)) for key in keys)]
    return details(f"All {len(candidates)} candidates as a table", table(heads, rows, label="Candidates"))


def _tables(model: Mapping[str, Any]) -> str:
    """Return the tables that metrics report, such as precision and recall per label."""
    found = ""
    for metric, reported in model["measured"].items():
        for key, value in reported.items() if isinstance(reported, Mapping) else ():
            if isinstance(value, Mapping) and value and all(isinstance(item, Mapping) for item in value.values()):
                columns = list(dict.fromkeys(column for row in value.values() for column in row))
                rows = [[text(name), *(_cell(row.get(column)) for column in columns)] for name, row in value.items()]
                heads = ["", *(text(column) for column in columns)]
                label = f"{metric}: {key}, {model['name']}"
                found += details(text(label), table(heads, rows, label=label))
    return found


def layers(record: Record, charts: Charts) -> str:
    """Return the map of bits over the layers, of the last pass that recorded one."""
    for step in reversed(record["steps"]):
        found = layer_map(step["attributes"])
        if not found:
            continue
        charts["layers"] = spec = layer_bars(found)
        options = [(str(place), each["label"]) for place, each in enumerate(spec["choices"])]
        keys = list(dict.fromkeys(key for facts in found.values() for key in facts))
        rows = [[text(name), *(text(_short(facts.get(key, ""))) for key in keys)] for name, facts in found.items()]
        shown = details(
            "As a table", table(["module", *(plain(key.replace("_", " ")) for key in keys)], rows, label="Layers")
        )
        return section(
            "layers",
            "Bits by layer",
            f"<p>As {text(step['name'])} stored them.</p>"
            + chart("layers", "Layers", [("y", "show", options)])
            + shown,
        )
    return ""


def environment(record: Record, charts: Charts) -> str:
    """Return where it was made: machine, system, libraries."""
    found = record["environment"]
    rows = [
        ["processor", text(f"{found['processor']}, {found['cores']} cores")],
        ["memory", plain(memory(found["memory_bytes"]))],
        ["GPUs", text(", ".join(found["gpus"]) or "none")],
        ["system", text(found["system"])],
        ["Python", plain(found["python"])],
    ]
    libraries = [[text(name), plain(version)] for name, version in found["libraries"].items()]
    body = table(["", ""], rows, label="Machine", numbers=False)
    body += details(
        "Libraries that shape the result", table(["library", "version"], libraries, label="Libraries", numbers=False)
    )
    return section("environment", "Where it was made", body)


def reproduce(record: Record, charts: Charts) -> str:
    """Return the commands that make it again, and the configuration."""
    pins = " ".join(f"'{name}=={version}'" for name, version in record["environment"]["libraries"].items())
    commands = "\n".join(
        [
            f"pip install 'olivine=={record['olivine']}' {pins}".rstrip(),
            "olivine plan workflow.yaml      # what would run, and what is in the cache",
            "olivine run --config workflow.yaml",
        ]
    )
    body = "<p>The configuration below is <code>workflow.yaml</code>, with every path absolute.</p>"
    body += code(commands, "Commands") + details("workflow.yaml", code(record["workflow"], "workflow.yaml"))
    if record["notes"]:
        body += "<h3>Notes</h3><ul>" + "".join(f"<li>{text(note)}</li>" for note in record["notes"]) + "</ul>"
    return section("again", "How to make it again", body)


SECTIONS = (goals, metrics, training, layers, lineage, environment, reproduce)
"""In the order of the page."""
