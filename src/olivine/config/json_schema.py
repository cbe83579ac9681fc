"""The JSON Schema (2020-12) of a configuration file, for editors: flat, with every pass's and metric's parameters."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel

from olivine.config.docstrings import documented_schema
from olivine.config.schema import MetricConfig, PassConfig, Workflow
from olivine.config.writing import SCHEMA_URL

DRAFT = "https://json-schema.org/draft/2020-12/schema"


def json_schema() -> dict[str, Any]:
    """Return the schema. A pass or metric is checked against the parameters of the type that it names."""
    from olivine.evaluate import known as known_metrics
    from olivine.evaluate import registry as metrics
    from olivine.passes import known as known_passes
    from olivine.passes import registry as passes

    schema = documented_schema(Workflow)
    definitions: dict[str, Any] = schema["$defs"]
    definitions["PassConfig"] = _by_type(PassConfig, _types(passes), known_passes.names(), definitions)
    definitions["MetricConfig"] = _by_type(MetricConfig, _types(metrics), known_metrics.names(), definitions)
    for name in ("Evaluator", "Component"):
        # What stands beside their type is theirs; the files are flat.
        definitions[name]["properties"].pop("params")
        definitions[name]["additionalProperties"] = True
    schema["properties"]["$schema"] = {"type": "string", "description": "Where this schema is, for editors."}
    return {"$schema": DRAFT, "$id": SCHEMA_URL, "title": "Olivine workflow"} | {
        key: value for key, value in schema.items() if key != "title"
    }


def _types(registry: Any) -> list[Any]:
    return [found for name in registry.names() if (found := registry.find(name)) is not None]


def _by_type(node: type[BaseModel], types: list[Any], known: list[str], definitions: dict[str, Any]) -> dict[str, Any]:
    """Return one schema per type, chosen by ``type``, with the parameters beside it.

    Types that are only known, and not available, take any parameters.
    """
    own = {key: value for key, value in documented_schema(node)["properties"].items() if key not in ("params", "type")}
    branches = []
    for found in types:
        inner = documented_schema(found.params_type)
        definitions.update(inner.pop("$defs", {}))
        name = f"{found.type}{'Pass' if node is PassConfig else 'Metric'}"
        definitions[name] = {
            "type": "object",
            "description": found.summary,
            "properties": {"type": {"const": found.type}, **own, **inner.get("properties", {})},
            "required": ["type", *inner.get("required", [])],
            "additionalProperties": False,
        }
        branches.append(
            {
                "if": {"properties": {"type": {"const": found.type}}, "required": ["type"]},
                "then": {"$ref": f"#/$defs/{name}"},
            }
        )
    return {
        "type": "object",
        "description": node.__doc__.split(":")[0] if node.__doc__ else "",
        "properties": {"type": {"enum": list(dict.fromkeys([*(found.type for found in types), *known]))}, **own},
        "required": ["type"],
        "allOf": branches,
    }
