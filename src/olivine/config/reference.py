"""Writes the configuration reference from the schema: ``python -m olivine.config.reference``."""

from __future__ import annotations

import inspect
import re
import types
import typing
from typing import Any, Literal, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from olivine.config.docstrings import field_docs
from olivine.config.schema import (
    Accelerator,
    AutoOptimizer,
    AzureMLClient,
    Build,
    Component,
    DataConfig,
    Engine,
    Evaluator,
    Goal,
    InputModel,
    LoadKwargs,
    MetricConfig,
    Packaging,
    PassConfig,
    SearchStrategy,
    SubType,
    System,
    Tracking,
    Workflow,
)

INTRODUCTION = """\
# Configuration reference

Generated from the schema by `python -m olivine.config.reference`; do not edit. `olivine config schema` prints the
same as JSON Schema for editors.

A configuration is JSON or YAML. An unknown key is an error. Relative paths are meant from the configuration's folder.
"""

SECTIONS: tuple[tuple[str, type[BaseModel]], ...] = (
    ("The whole", Workflow),
    ("`input_model`", InputModel),
    ("`input_model.load_kwargs`", LoadKwargs),
    ("`data_configs`, each", DataConfig),
    ("`data_configs.*.load_dataset` and the other parts", Component),
    ("`systems`, each", System),
    ("`systems.*.more_accelerators`, each", Accelerator),
    ("`passes`, each", PassConfig),
    ("`evaluators`, each", Evaluator),
    ("`evaluators.*.metrics`, each", MetricConfig),
    ("`evaluators.*.metrics.*.sub_types`, each", SubType),
    ("`evaluators.*.metrics.*.sub_types.*.goal`", Goal),
    ("`engine`", Engine),
    ("`tracking`", Tracking),
    ("`engine.search_strategy`", SearchStrategy),
    ("`engine.packaging_config`, each", Packaging),
    ("`azureml_client`", AzureMLClient),
    ("`auto_optimizer_config`", AutoOptimizer),
    ("`builds`, each", Build),
)


def reference_markdown() -> str:
    """Return the reference as Markdown."""
    from olivine.evaluate import registry as metrics
    from olivine.passes import registry as passes

    parts = [INTRODUCTION]
    for title, model in SECTIONS:
        parts.append(_section(f"## {title}", inspect.getdoc(model) or "", model, skip=("params",)))
    parts.append("## Passes\n")
    for name in passes.BUILTIN:
        found = passes.find(name)
        assert found is not None
        takes = " or ".join(f"`{each}`" for each in sorted(found.accepts))
        lead = f"{found.summary[0].upper()}{found.summary[1:].rstrip('.')}. Takes {takes}, gives `{found.produces}`."
        parts.append(_section(f"### {found.type}", lead, found.params_type))
    parts.append("## Metrics\n")
    for name in metrics.BUILTIN:
        metric = metrics.find(name)
        assert metric is not None
        lead = f"{metric.summary[0].upper()}{metric.summary[1:].rstrip('.')}."
        parts.append(_section(f"### {metric.type}", lead, metric.params_type))
    return "\n".join(parts).rstrip() + "\n"


def _section(title: str, lead: str, model: type[BaseModel], skip: tuple[str, ...] = ()) -> str:
    rows = [title, "", _plain(lead), ""]
    fields = {name: field for name, field in model.model_fields.items() if name not in skip}
    if fields:
        rows += ["| key | type | default | what |", "|---|---|---|---|"]
        docs = field_docs(model)
        rows += [_row(name, field, docs.get(name, "")) for name, field in fields.items()]
    return "\n".join(rows) + "\n"


def _row(name: str, field: FieldInfo, text: str) -> str:
    default = "required" if field.is_required() else _value(field.get_default(call_default_factory=True))
    return f"| `{name}` | {_type(field.annotation)} | {default} | {_cell(text)} |"


def _value(value: Any) -> str:
    if isinstance(value, BaseModel):
        return "see below"
    if value is None:
        return "none"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    plain = isinstance(value, str) and value.isprintable() and value.strip() == value != ""
    return f"`{_cell(value if plain else repr(value))}`"


def _type(annotation: Any) -> str:
    """Return a type in words."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return " ".join(f"`{str(each).lower() if isinstance(each, bool) else each}`" for each in arguments)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(dict.fromkeys(_type(each) for each in arguments if each is not type(None)))
    if origin is list:
        return f"list of {_type(arguments[0])}"
    if origin is dict:
        return f"object of {_type(arguments[1])}"
    if origin is not None:
        return _type(arguments[0])
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return "object"
    words = {str: "text", int: "whole number", float: "number", bool: "true or false", type(None): "null"}
    return words.get(annotation, "anything")


def _plain(text: str) -> str:
    return re.sub(r"``([^`]*)``", r"`\1`", text)


def _cell(text: str) -> str:
    return _plain(" ".join(text.split())).replace("|", "\\|")


if __name__ == "__main__":
    print(reference_markdown(), end="")
