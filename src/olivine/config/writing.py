"""A workflow as a file: canonical, flat, without what is the default anyway."""

from __future__ import annotations

from typing import Any

import yaml

from olivine.config.schema import SCHEMA_VERSION, Workflow

SCHEMA_URL = "https://olivine-ml.github.io/schema/workflow-1.json"


def dump(workflow: Workflow) -> str:
    """Return a workflow as YAML that loads to the same workflow."""
    plain = as_plain(workflow)
    text = yaml.safe_dump(plain, sort_keys=False, allow_unicode=True, width=120, default_flow_style=False)
    return f"# yaml-language-server: $schema={SCHEMA_URL}\n{text}"


def as_plain(workflow: Workflow) -> dict[str, Any]:
    """Return a workflow as plain values in the flat form of a file, defaults left out."""
    value = workflow.model_dump(mode="json", exclude_defaults=True)
    plain: dict[str, Any] = {
        "version": SCHEMA_VERSION,
        **{key: item for key, item in value.items() if key != "version"},
    }
    if "passes" in plain:
        plain["passes"] = {name: _flat(item) for name, item in plain["passes"].items()}
    for evaluator in plain.get("evaluators", {}).values():
        evaluator["metrics"] = [_flat(metric) for metric in evaluator["metrics"]]
    return plain


def _flat(item: dict[str, Any]) -> dict[str, Any]:
    """Put the parameters beside the type again."""
    params: dict[str, Any] = item.get("params", {})
    return {key: value for key, value in item.items() if key != "params"} | params
