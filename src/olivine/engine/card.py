"""The model card: what the model is, how it was made, and what was measured on it, in the Hugging Face hub's format."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from olivine import __version__
from olivine.engine.card_metadata import carried_from, metadata, model_name, quantised_bits
from olivine.engine.result import Result
from olivine.engine.values import values_of
from olivine.engine.words import duration, memory, number, size
from olivine.evaluate.goals import sentence
from olivine.planning.plan import Plan

if TYPE_CHECKING:
    from olivine.store import Artifact


def model_card(plan: Plan, result: Result, artifacts: Mapping[str, Artifact], input_model: Path | None = None) -> str:
    """Return the card as Markdown. Text from the configuration is escaped, so that it cannot become markup.

    Args:
        input_model: folder of the input model, whose own card says its licence.
    """
    from olivine.config.writing import to_yaml

    name = model_name(plan.workflow.input_model.model_path)
    evaluation = plan.evaluation("final")
    values = list(values_of(evaluation, result.metrics.get("final", {}))) if evaluation is not None else []
    attributes = [artifacts[step.digest].manifest.attributes for step in plan.passes if step.digest in artifacts]
    carried = carried_from(input_model)
    bits = quantised_bits(attributes)
    lines = [
        "---",
        to_yaml(metadata(plan, result, values, attributes, carried)).rstrip(),
        "---",
        "",
        f"# {_escape(name)}, as {result.format}" + (f", {bits}-bit" if bits is not None else ""),
        "",
        f"Made by Olivine {__version__} from `{_escape(name)}`. {size(result.size)} on disk.",
        _licence(carried),
        "",
        "## How it was made",
        "",
        "| step | type | time | peak memory | reported |",
        "|---|---|---|---|---|",
    ]
    for step in result.steps:
        if step.type in ("evaluate", "record"):
            continue
        reported = ", ".join(f"{key} {number(value)}" for key, value in _numbers(step.metrics).items())
        row = (_escape(step.name), step.type, duration(step.seconds), memory(step.peak_memory), reported)
        lines.append("| " + " | ".join(row) + " |")
    lines += _quantisation(attributes)
    if result.goals:
        lines += ["", "## Goals", ""]
        if result.state != "succeeded":
            lines += ["**This model missed its goals.**", ""]
        lines += [f"- {_escape(sentence(verdict))}" for verdict in result.goals]
    if result.metrics:
        lines += ["", "## What was measured", "", *_metric_rows(result.metrics)]
    lines += [
        "",
        "## How to make it again",
        "",
        "`workflow.yaml` in this folder is the whole configuration:",
        "",
        "```",
        "olivine run --config workflow.yaml",
        "```",
        "",
    ]
    if result.format == "genai":
        on = f" --execution-provider {result.untried}" if result.untried else ""
        lines += ["## How to use it", "", "```", f'olivine generate . --prompt "..."{on}', "```", ""]
        if result.untried:
            lines += [
                f"**It was built for {_escape(result.untried)} and has not run there yet**: the machine that made it "
                "has none. Try it, and measure it (`olivine evaluate`), on one that has.",
                "",
            ]
    return "\n".join(lines)


def _licence(carried: Mapping[str, Any]) -> str:
    """Return the sentence about the licence."""
    named = carried.get("license_name") or carried.get("license")
    if not isinstance(named, str):
        return "The card of the model that it was made from names no licence: ask whoever gave it to you."
    return f"Licence of the model that it was made from: {_escape(named)}."


QUANTISATION = ("precision", "bits", "group_size", "symmetric", "method", "scaling", "form", "execution_provider")
"""Attributes of a quantising pass that the card shows."""


def _quantisation(attributes: list[Mapping[str, Any]]) -> list[str]:
    """Return the section on quantisation, of the last pass that quantised; nothing if none did."""
    if quantised_bits(attributes) is None:
        return []
    last = next(each for each in reversed(attributes) if quantised_bits([each]) is not None)
    rows = [f"| {key.replace('_', ' ')} | {_escape(str(last[key]))} |" for key in QUANTISATION if key in last]
    return ["", "## How it is quantised", "", "| | |", "|---|---|", *rows, *_mixture(attributes)]


def _mixture(passes: list[Mapping[str, Any]]) -> list[str]:
    """Return what each matrix was given, if a pass chose for each; ``loss`` is what it costs, in nats a token."""
    attributes = next((each for each in reversed(passes) if isinstance(each.get("mixture"), Mapping)), None)
    if attributes is None:
        return []
    mixture = attributes["mixture"]
    lines = [
        "",
        f"Bits were chosen for each matrix: {number(attributes['average_bits'])} a weight on average, scales included. "
        f"Divergence from the float model: {number(attributes['predicted_divergence'])} nats a token predicted"
        + (
            f", {number(attributes['measured_divergence'])} measured on the calibration text."
            if "measured_divergence" in attributes
            else "."
        ),
        "",
        "| matrix | bits | group size | zero points | size | divergence |",
        "|---|---|---|---|---|---|",
    ]
    for name, each in mixture.items():
        kept = each["bits"] is None
        cells = ["float", "", ""] if kept else [each["bits"], each["group_size"], "no" if each["symmetric"] else "yes"]
        row = [_escape(name), *map(str, cells), size(each["bytes"]), number(each["loss"])]
        lines.append(f"| {' | '.join(row)} |")
    return lines


def _metric_rows(metrics: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return a table with one row per value and one column per model that was measured."""
    columns = [which for which in ("input", "final") if which in metrics]
    rows = ["| metric | " + " | ".join(f"{which} model" for which in columns) + " |", "|---" * (len(columns) + 1) + "|"]
    values = {which: flat(metrics[which]) for which in columns}
    for key in dict.fromkeys(key for which in columns for key in values[which]):
        cells = [number(values[which][key]) if key in values[which] else "" for which in columns]
        rows.append(f"| {_escape(key)} | " + " | ".join(cells) + " |")
    return rows


def flat(metrics: Mapping[str, Any], prefix: str = "") -> dict[str, float]:
    """Return the numbers in nested metrics by dotted name; tables (dicts of dicts) are left out.

    A metric's main value, which has the metric's own name, is called by it once: ``accuracy``.
    """
    found: dict[str, float] = {}
    for key, value in metrics.items():
        name = f"{prefix}.{key}" if prefix and key != prefix else key
        if isinstance(value, Mapping):
            if not any(isinstance(item, Mapping) for item in value.values()) or not prefix:
                found |= flat(value, name)
        elif isinstance(value, int | float) and not isinstance(value, bool):
            found[name] = value
    return found


def _numbers(metrics: Mapping[str, Any]) -> dict[str, float]:
    return {key: value for key, value in flat(metrics).items() if "." not in key}


def _escape(text: str) -> str:
    for character in "&<>":
        text = text.replace(character, f"&#{ord(character)};")
    return text.replace("|", "\\|").replace("`", "'").replace("\n", " ")
