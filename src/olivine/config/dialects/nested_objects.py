"""Objects in objects: ``{"type": ..., "config": {...}}`` was the only form up to 0.6.2, and one of two from 0.7 on.

The canonical form is flat, so this goes before every other break, which then has one form to read. What Olive 0.7 and
later take at the top level for keys of the engine goes into ``engine``. A key that stands in both places has the value
of the nested one, as in Olive. ``null`` means that nothing is given, and such keys go.
"""

from __future__ import annotations

from typing import Any

from olivine.config.dialects.detection import ENGINE_KEYS
from olivine.config.dialects.document import Document, Entries, Section
from olivine.config.dialects.releases import age
from olivine.config.wording import suggestion

TOP_KEYS = frozenset(
    [
        "$schema",
        "workflow_id",
        "input_model",
        "systems",
        "data_root",
        "data_config",
        "data_configs",
        "evaluators",
        "engine",
        "passes",
        "pass_flows",
        "azureml_client",
        "auto_optimizer_config",
        "workflow_host",
        "builds",
        "max_concurrent_builds",
        "metrics",
        "verbose",
    ]
)
"""The keys that a configuration had at the top level at any time."""

DATA_PARTS = ("load_dataset_config", "pre_process_data_config", "post_process_data_config", "dataloader_config")


def translate(document: Document) -> None:
    """Make every object flat."""
    root = document.root
    root.take("$schema")
    _top_level(document)
    for key in ("input_model", "systems", "engine", "azureml_client", "auto_optimizer_config"):
        _without_nulls(root.get(key))
    model = root.get("input_model")
    if isinstance(model, Section):
        _flatten_model(document, model)
    elif isinstance(model, str):
        # A bare string is a model's name in the command lines; in a file it can mean nothing else.
        origin = root.origins.get("input_model")
        made = Section(root.at("input_model"))
        made.put("model_path", model, origin)
        root.put("input_model", made, origin)
    for system in root.section("systems").values():
        flatten(document, system, "config")
    for _, each in document.passes():
        flatten(document, each, "config")
        for key in [key for key, value in each.items() if value is None and key in ("host", "evaluator")]:
            each.take(key)
    data = root.get("data_configs")
    for each in data.values() if isinstance(data, dict) else data if isinstance(data, list) else ():
        for part in DATA_PARTS:
            if isinstance(each, Section):
                flatten(document, each.get(part), "params")


def flatten(document: Document, section: Any, nested: str) -> None:
    """Move what an object holds below ``nested`` into the object itself."""
    if not isinstance(section, Section) or nested not in section:
        return
    inner = section[nested]
    if inner is None:
        section.take(nested)
        return
    if not isinstance(inner, Section):
        document.fault(section.at(nested), f"`{nested}` must be an object")
        section.take(nested)
        return
    section.take(nested)
    for key in list(inner):
        value, origin = inner.take(key)
        if key in section and section[key] is not None and section[key] != value:
            document.note(section.at(key), f"has no effect: the {nested} has it too, and goes first")
        section.put(key, value, origin)


def _flatten_model(document: Document, model: Section) -> None:
    flatten(document, model, "config")
    _without_nulls(model)
    for key in ("model_path", "adapter_path"):
        flatten(document, model.get(key), "config")
    _without_nulls(model.get("hf_config"))
    components = model.get("model_components")
    for each in components if isinstance(components, Entries) else ():
        if isinstance(each, Section):
            _flatten_model(document, each)


def _top_level(document: Document) -> None:
    """Put keys of the engine where they belong, and name those that nobody knows."""
    root = document.root
    flat = age(document.dialect) >= age("0.7")
    known = TOP_KEYS | ENGINE_KEYS if flat else TOP_KEYS
    for key in list(root):
        if key in TOP_KEYS:
            if root[key] is None:
                root.take(key)
        elif key in ENGINE_KEYS:
            if not flat:
                document.note((key,), "stands outside of engine; it is taken for a key of it")
            engine = root.get("engine")
            if engine is None:
                engine = Section((key,))
                root.put("engine", engine)
            if not isinstance(engine, Section):
                continue
            value, origin = root.take(key)
            if engine.get(key) is None:
                engine.put(key, value, origin)
        else:
            root.take(key)
            document.fault((key,), f"`{key}` is not a key of a configuration", remedy=suggestion(key, sorted(known)))


def _without_nulls(section: Any) -> None:
    """Remove the keys of an object, and of the objects in it, that hold ``null``."""
    if not isinstance(section, Section):
        return
    for key in list(section):
        if section[key] is None:
            section.take(key)
        else:
            _without_nulls(section[key])
